from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.special import ndtri
from torch import Tensor, nn

from denoiser_training.__main__ import main
from denoiser_training.certify import Certifier
from denoiser_training.evaluate_config import load_evaluation
from denoiser_training.table import PAPER_ROWS, Report, markdown

CONFIG = """
name = "tiny"
pictures = 8
denoisers = ["identity", "median:3"]
paper = "cifar10"

[data]
source = "FOLDER"
license = "test"
crop_px = 8

[certify]
sigma = 0.25
n0 = 5
n = 40
batch = 20

[[targets]]
name = "always-cat"
network = "tests.training.test_evaluation:AlwaysCat"

[[targets]]
name = "bright"
network = "tests.training.test_evaluation:Bright"

[runtime]
threads = 1
device = "cpu"
"""


class AlwaysCat(nn.Module):
    """Two classes, the first one always."""

    def forward(self, pictures: Tensor) -> Tensor:
        return torch.tensor([1.0, 0.0]).expand(len(pictures), -1)


class Bright(nn.Module):
    """Class 1 where a picture is brighter than its middle grey."""

    def forward(self, pictures: Tensor) -> Tensor:
        mean = pictures.mean(dim=(1, 2, 3)) - 0.5
        return torch.stack([-mean, mean], dim=1)


@pytest.fixture
def config(tmp_path: Path, folder: Path) -> Path:
    """Of eight pictures, four of each class, and two targets with two classes."""
    path = tmp_path / "tiny-evaluation.toml"
    path.write_text(CONFIG.replace("FOLDER", str(folder)), encoding="utf-8")
    return path


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """An evaluation sets torch's threads for its whole process."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def run(config: Path, out: Path, *overrides: str) -> int:
    chosen = ["--set", *overrides] if overrides else []
    return main(["evaluate", str(config), "--out", str(out), *chosen])


def rows(out: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((out / "evaluation.json").read_text())["rows"]
    return found


def test_every_denoiser_stands_in_front_of_every_target(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run(config, out) == 0
    found = rows(out)
    pairs = [(row["denoiser"], row["target"]) for row in found]
    assert pairs == [(d, t) for d in ("identity", "median:3") for t in ("always-cat", "bright")]
    cat = found[0]
    assert (cat["clean"], cat["noisy"], cat["denoised"]) == (0.5, 0.5, 0.5)
    largest = 0.25 * float(ndtri(0.001 ** (1 / 40)))
    assert [(p["radius"], p["accuracy"]["count"]) for p in cat["certified"]] == [
        (r, 4 if r <= largest else 0) for r in (0, 0.1, 0.25, 0.5, 0.75, 1)
    ]
    assert cat["average_radius"] == pytest.approx(largest / 2)
    low, high = (cat["certified"][0]["accuracy"][end] for end in ("low", "high"))
    assert (low, high) == (pytest.approx(0.15701, abs=1e-5), pytest.approx(0.84299, abs=1e-5))
    assert found[2]["psnr"] < found[0]["psnr"]  # the pictures are noise, which a median filter takes away
    assert found[0]["versions"]["torch"].startswith(torch.__version__.partition("+")[0])
    assert "1 CPU thread," in found[0]["machine"]
    table = (out / "evaluation.md").read_text()
    assert "| identity | always-cat |" in table
    assert (
        "| 50.0 | 50.0 | 50.0 | 50.0 [15.7, 84.3] | 50.0 [15.7, 84.3] | 50.0 [15.7, 84.3] | 0.0 [0.0, 36.9] |"
        in table
    )
    assert (
        "| Stab+MSE, 14 surrogates (paper) | ResNet-110 |  |  |  |  |  | 69.0 | 59.0 | 44.0 | 18.0 | 4.2 |  |"
        in table
    )
    assert table in capsys.readouterr().out


def test_against_the_targets_own_clean_answers_no_labels_are_needed(config: Path, tmp_path: Path) -> None:
    assert run(config, tmp_path / "out", "reference=clean", 'denoisers=["identity"]') == 0
    cat, bright = rows(tmp_path / "out")
    assert (cat["clean"], cat["denoised"], bright["clean"]) == (1.0, 1.0, 1.0)
    assert cat["certified"][0]["accuracy"]["count"] == 8


def test_an_interrupted_evaluation_goes_on_after_its_finished_rows(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, asked = tmp_path / "out", []
    certify = Certifier.certify

    def interrupted(self: Certifier, *arguments: Any) -> Any:
        asked.append(self.denoiser.name)
        if len(asked) == 10:
            raise KeyboardInterrupt
        return certify(self, *arguments)

    monkeypatch.setattr(Certifier, "certify", interrupted)
    assert run(config, out) == 130
    assert "The same command goes on from there" in " ".join(capsys.readouterr().out.split())
    kept = rows(out)
    assert [row["denoiser"] for row in kept] == ["identity"] * 2
    asked.clear()
    asked.extend([""] * 10)
    assert run(config, out) == 0
    assert asked[10:] == ["median:3"] * 8
    assert rows(out)[:2] == kept
    assert len(rows(out)) == 4


def test_a_further_denoiser_adds_its_rows_and_the_table_shows_what_is_asked_for(
    config: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert run(config, out, 'denoisers=["identity"]') == 0
    first = rows(out)
    assert run(config, out, 'denoisers=["median:3", "identity"]') == 0
    assert rows(out)[:2] == first
    lines = (out / "evaluation.md").read_text().splitlines()
    order = [line.split(" ")[1] for line in lines if "always-cat" in line]
    assert order == ["median:3", "identity"]


@pytest.mark.parametrize("override", ["certify.n=50", "reference=clean", "pictures=4", "data.crop_px=9"])
def test_rows_of_other_settings_are_refused(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], override: str
) -> None:
    out = tmp_path / "out"
    assert run(config, out, 'denoisers=["identity"]') == 0
    before = rows(out)
    assert run(config, out, override) == 2
    error = capsys.readouterr().err
    assert "made with other settings" in error
    assert override.partition("=")[0] in error
    assert rows(out) == before


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (['denoisers=["identity", "waveletz"]'], "did you mean 'wavelet'"),
        (['denoisers=["nowhere/card.json"]'], "no such denoiser card"),
        (['denoisers=["digits"]', "certify.sigma=0.9"], "trained for sigma 0.1 to 0.75, not for 0.9"),
        (['denoisers=["median:3", "median:3"]'], "'median:3' stands twice"),
        (['denoisers=["median:3", "median"]'], "'median:3' and 'median' are the same"),
        (["targets.0.network=mlp"], "'always-cat': weights are missing"),
        (["targets.0.training={steps=3}"], "targets are not trained here"),
        (["data.source=digits"], "'always-cat' knows 2 classes, digits has 10"),
        (["data.source=FOLDER/cat"], "lie in no class folders; set reference"),
        (["data.source=nowhere"], "no such folder or zip"),
        (["data.limit=3"], "set `pictures` at the top"),
        (["data.crop_px=6"], "windows of 7x7"),
        (["data.crop_px=11"], "smaller than crop_px = 11"),
        (["certify.n=9"], "n = 9 draws can certify nothing at alpha = 0.001"),
        (["certify.sigmaa=1"], "certify.sigmaa: unknown key; did you mean 'sigma'"),
        (["certify.n"], "expected KEY=VALUE"),
        (["runtime.device=cudda"], "runtime.device 'cudda'"),
    ],
)
def test_bad_input_ends_before_anything_is_computed(
    config: Path,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    overrides: list[str],
    says: str,
) -> None:
    monkeypatch.setattr(Certifier, "_denoised", lambda *_: pytest.fail("a draw was made"))
    assert run(config, tmp_path / "out", *(text.replace("FOLDER", str(folder)) for text in overrides)) == 2
    assert says in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("text", ["{", "[]", '{"settings": {}, "rows": [{}]}'])
def test_a_damaged_report_is_refused_and_left_alone(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    path = tmp_path / "out/evaluation.json"
    path.parent.mkdir()
    path.write_text(text)
    assert run(config, tmp_path / "out") == 2
    assert "evaluation.json" in capsys.readouterr().err
    assert path.read_text() == text


def test_validation_pictures_are_those_that_training_holds_out(config: Path, tmp_path: Path) -> None:
    assert (
        run(config, tmp_path / "out", "part=validation", "data.validation_every=3", 'denoisers=["identity"]') == 0
    )
    assert rows(tmp_path / "out")[0]["certified"][0]["accuracy"]["total"] == 4


@pytest.mark.parametrize(
    ("sigma", "denoiser", "percents"),
    [
        (0.25, "none", (10.0, 9.0, 7.0, 2.0, 0.0, None)),
        (0.25, "Stab, full access to the target", (76.2, 67.8, 55.6, 35.0, 15.2, None)),
        (0.12, "Stab+MSE, 14 surrogates", (82.8, None, 43.4, None, None, None)),
    ],
)
def test_the_papers_rows_are_quoted_with_their_source(
    sigma: float, denoiser: str, percents: tuple[float | None, ...]
) -> None:
    (row,) = [row for row in PAPER_ROWS if (row.sigma, row.denoiser) == (sigma, denoiser)]
    text = markdown([], (0, 0.1, 0.25, 0.5, 0.75, 1.0), [row])
    cells = " | ".join("" if percent is None else f"{percent:.1f}" for percent in percents)
    assert f"| {denoiser} (paper) | ResNet-110 |  |  |  |  |  | {cells} |" in text
    assert "NeurIPS 2020" in text
    certified = [row.certified[radius] for radius in sorted(row.certified)]
    assert certified == sorted(certified, reverse=True)


def test_the_committed_configs_are_complete() -> None:
    configs = sorted((Path(__file__).parents[2] / "configs/evaluate").glob("*.toml"))
    assert [load_evaluation(path).paper for path in configs] == ["cifar10"]


def test_a_trained_denoiser_stands_beside_none_under_the_spec_it_was_asked_by(
    config: Path, tmp_path: Path
) -> None:
    spec = "digits,precision=float32,device=cpu"
    overrides = ["data.source=digits", "reference=clean", f'denoisers=["identity", "{spec}"]']
    assert run(config, tmp_path / "out", *overrides) == 0
    found = rows(tmp_path / "out")
    assert [row["denoiser"] for row in found] == ["identity"] * 2 + [spec] * 2
    assert found[2]["psnr"] > found[0]["psnr"] + 3
    assert found[2]["fingerprint"].startswith("sha256:")


def test_the_committed_config_runs_on_the_shared_pictures_and_targets(shared_data: Path, tmp_path: Path) -> None:
    config = Path(__file__).parents[2] / "configs/evaluate/cifar10.toml"
    networks = shared_data / "cifar10-classifiers"
    paths = [
        f"data.source={shared_data / 'cifar10-jpeg/test.zip'}",
        f"targets.0.weights={networks / 'resnet56.safetensors'}",
        f"targets.1.weights={networks / 'resnet44.safetensors'}",
    ]
    tiny = ["pictures=10", "certify.n0=5", "certify.n=15", "certify.batch=20", 'denoisers=["median:3"]']
    assert run(config, tmp_path / "out", *paths, *tiny) == 0
    found = rows(tmp_path / "out")
    assert [(row["target"], row["certified"][0]["accuracy"]["total"]) for row in found] == [
        ("resnet56", 10),
        ("resnet44", 10),
    ]
    assert all(row["clean"] >= 0.6 and row["denoised"] < row["clean"] for row in found)
    assert 14 < found[0]["psnr"] < 22


def test_a_report_survives_json(config: Path, tmp_path: Path) -> None:
    assert run(config, tmp_path / "out", 'denoisers=["identity"]') == 0
    text = (tmp_path / "out/evaluation.json").read_text()
    assert Report.model_validate_json(text).model_dump_json(indent=2) + "\n" == text
