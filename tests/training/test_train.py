from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from denoiser_training.__main__ import main
from denoiser_training.batches import centre_crops
from denoiser_training.config import load_config
from denoiser_training.data import load_pictures, split
from denoiser_training.evaluate import Judges, runner
from smoothing_proxy.denoisers import weights

ROOT = Path(__file__).resolve().parents[2]
OUTPUTS = ("metrics.csv", "validation.csv", "surrogates/mlp/metrics.csv", "surrogates/mlp/validation.csv")


def journals(out: Path) -> dict[str, list[dict[str, str]]]:
    """Every row of a run, without the one column that tells of time."""
    tables = {name: list(csv.DictReader((out / name).read_text().splitlines())) for name in OUTPUTS}
    return {n: [{k: v for k, v in row.items() if k != "pictures_per_s"} for row in t] for n, t in tables.items()}


def killed(config: Path, out: Path, step: int, *overrides: str) -> None:
    """Train in a process of its own, which SIGKILLs itself when it has written the row of `step`."""
    arguments = [str(step), str(config), "--out", str(out), "--set", *overrides]
    command = [sys.executable, "-m", "tests.training.killed_member", *arguments]
    assert subprocess.run(command, stdout=subprocess.DEVNULL, cwd=ROOT, timeout=240).returncode == -signal.SIGKILL


def wait_for(path: Path, text: str) -> bool:
    """Whether the file comes to hold `text` within four minutes."""
    until = time.monotonic() + 240
    while time.monotonic() < until:
        if path.exists() and text in path.read_text():
            return True
        time.sleep(0.002)
    return False


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """A run sets torch's threads for its whole process."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_one_command_trains_surrogates_and_denoiser_and_writes_a_card(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main([str(tiny), "--out", str(out), "--set", "phases.0.steps=150", "runtime.samples_every=100"]) == 0
    assert capsys.readouterr().out.rstrip().endswith("tiny.json")
    card, network = weights.load(out / "tiny.json")
    assert (card.sigma_min, card.sigma_max, card.options["widths"]) == (0.1, 0.5, [8])
    assert card.surrogates[0].startswith("mlp (mlp trained on the training split, sha256 ")
    assert card.schedule == (
        "150 steps of 1 mse at lr 0.002, batch 8, 8 px; then "
        "20 steps of 100 mse + 1 soft_stab at lr 0.001, batch 8, 8 px"
    )
    figures = card.model_dump()["figures"]["sigma 0.25"]
    assert figures["denoised"]["psnr"] > figures["noisy"]["psnr"] + 2
    assert network(torch.rand(1, 3, 8, 8), 0.25).shape == (1, 3, 8, 8)
    for name in ("config.json", "samples/step-0000100.png", "surrogates/mlp.safetensors"):
        assert (out / name).exists()


def test_a_card_says_what_is_correct_and_judges_the_weights_as_they_are_stored(tiny: Path, tmp_path: Path) -> None:
    """The weights are such that float16 changes what the network does, and its figures with it."""
    assert main([str(tiny), "--out", str(tmp_path / "first")]) == 0
    card, network = weights.load(tmp_path / "first/tiny.json")
    exact = {key: tensor.half().float() * (1 + 0.49 / 1024) for key, tensor in network.state_dict().items()}
    facts = {key: value for key, value in card.model_dump().items() if key in weights.Provenance.model_fields}
    start = weights.save(tmp_path / "start", exact, weights.Provenance(**facts))
    still = [f"denoiser.start={start}", "phases.0.lr=1e-30", "phases.1.lr=1e-30", "optimiser.ema=0"]
    for dtype in ("float16", "float32"):
        out = ["--out", str(tmp_path / dtype), "--set", f"export.dtype={dtype}", *still]
        assert main([str(tiny), *out]) == 0
    (half, rounded), (full, _) = (weights.load(tmp_path / dtype / "tiny.json") for dtype in ("float16", "float32"))
    assert any(not torch.equal(tensor, exact[key]) for key, tensor in rounded.state_dict().items())
    figures, unrounded = (one.model_dump()["figures"] for one in (half, full))
    assert figures["on"].endswith("of the weights as stored (float16)")
    assert figures["correct"] == {"mlp": "the picture's label"}
    config = load_config(tiny)
    _, validation = split(load_pictures(config.data), config.data.validation_every)
    crops = centre_crops(validation.evenly(config.evaluate.pictures), 8)
    found = Judges(crops, None, 0, [], copies=1, batch=100, seed=0).figures(runner(rounded), 0.25)
    assert figures["sigma 0.25"]["denoised"]["psnr"] == pytest.approx(found["psnr"], abs=0.0006)
    assert unrounded["sigma 0.25"]["denoised"]["psnr"] != pytest.approx(found["psnr"], abs=0.0006)


def test_without_labels_a_card_says_that_a_classifier_is_compared_with_itself(tiny: Path, tmp_path: Path) -> None:
    judge = ['evaluate.classifiers=[{name="crisp",network="tests.training.test_ablation:Crisp"}]']
    assert main([str(tiny), "--out", str(tmp_path / "out"), "--set", *judge]) == 0
    figures = weights.load(tmp_path / "out/tiny.json")[0].model_dump()["figures"]
    assert figures["correct"] == {"crisp": "its own answer to the clean picture"}
    assert figures["clean"] == {"crisp": 100.0}


def test_a_card_says_how_many_copies_of_a_picture_were_compared(tiny: Path, tmp_path: Path) -> None:
    phase = ["phases.1.copies=2", "phases.1.objective={consistency=0.5,mse=100.0}"]
    assert main([str(tiny), "--out", str(tmp_path / "out"), "--set", *phase]) == 0
    card, _ = weights.load(tmp_path / "out" / "tiny.json")
    assert card.schedule.endswith(
        "20 steps of 100 mse + 0.5 consistency at lr 0.001, batch 8 with 2 copies of each picture, 8 px"
    )


def test_a_trained_denoiser_is_where_another_one_starts(tiny: Path, tmp_path: Path) -> None:
    assert main([str(tiny), "--out", str(tmp_path / "first")]) == 0
    further = ["--set", f"denoiser.start={tmp_path / 'first/tiny.json'}", "phases.0.lr=1e-9", "phases.1.lr=1e-9"]
    assert main([str(tiny), "--out", str(tmp_path / "second"), *further]) == 0
    (_, first), (card, second) = (weights.load(tmp_path / f"{folder}/tiny.json") for folder in ("first", "second"))
    assert card.schedule.startswith("weights of tiny (sha256 ")
    for old, new in zip(first.state_dict().values(), second.state_dict().values(), strict=True):
        assert torch.allclose(old, new, atol=1e-5)


def test_killed_in_the_middle_it_resumes_to_the_same_losses(tiny: Path, tmp_path: Path) -> None:
    steps = ("phases.0.steps=60", "phases.1.steps=200", "evaluate.every=40")
    assert main([str(tiny), "--out", str(tmp_path / "whole"), "--set", *steps]) == 0
    out = tmp_path / "killed"
    killed(tiny, out, 81, *steps)
    assert (out / "metrics.csv").read_text().splitlines()[-1].startswith("81,")
    assert not (out / "tiny.json").exists()
    assert main([str(tiny), "--out", str(out), "--set", *steps]) == 0
    assert journals(out) == journals(tmp_path / "whole")
    (_, one), (_, other) = (weights.load(tmp_path / f"{folder}/tiny.json") for folder in ("whole", "killed"))
    assert all(
        torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_says_how_to_go_on(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], number: signal.Signals
) -> None:
    out = tmp_path / "out"

    def signal_later() -> None:
        if wait_for(out / "metrics.csv", "\n15,"):
            os.kill(os.getpid(), number)

    sender = threading.Thread(target=signal_later)
    sender.start()
    overrides = ("phases.0.steps=100000", "runtime.checkpoint_every=99999", "evaluate.every=99999")
    assert main([str(tiny), "--out", str(out), "--set", *overrides]) == 130
    sender.join()
    assert "The same command goes on from there" in " ".join(capsys.readouterr().out.split())
    assert (out / "last.ckpt").exists()
    assert not (out / "tiny.json").exists()


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["data.crop_px=16"], "lower crop_px"),
        (["data.source=nowhere"], "no such folder or zip"),
        (["evaluate.crop_px=9"], "smaller than crop_px = 9"),
        (["phases.0.objective={stab=1}", "phases.0.crop_px=6"], "'mlp' cannot take pictures of 6x6 px"),
        (["denoiser.architecture=unett"], "did you mean 'unet'"),
        (["denoiser.start=nowhere.json"], "no such denoiser card"),
        (["runtime.device=cudda"], "runtime.device 'cudda'"),
        (["surrogates.0.network=mlpp"], "did you mean 'mlp'"),
    ],
)
def test_bad_input_ends_before_the_first_step(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], overrides: list[str], says: str
) -> None:
    assert main([str(tiny), "--out", str(tmp_path / "out"), "--set", *overrides]) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "out/metrics.csv").exists()


def test_a_run_folder_of_another_config_is_refused(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main([str(tiny), "--out", str(out)]) == 0
    assert main([str(tiny), "--out", str(out), "--set", "noise.sigma_max=0.7"]) == 2
    assert "another config; different: noise.sigma_max" in capsys.readouterr().err
