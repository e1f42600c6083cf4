from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from denoiser_training.__main__ import main
from denoiser_training.batches import Batches, Place, add_noise, generator
from denoiser_training.config import load_config
from denoiser_training.data import digits
from denoiser_training.machine import all_hardware
from denoiser_training.team import ALONE, Team, team_of
from denoiser_training.train import check_batches
from smoothing_proxy.denoisers import weights
from smoothing_proxy.errors import ConfigError

from .test_train import journals, wait_for

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")


def together(module: str, arguments: Sequence[str], processes: int = 2) -> subprocess.Popen[str]:
    """torchrun on this machine, in a process group of its own."""
    launch = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "-m", module]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen(
        [sys.executable, "-m", *launch, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=ROOT,
        start_new_session=True,
    )


def finished(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Exit status and output; the whole group is killed when it takes longer than two minutes."""
    try:
        out, err = process.communicate(timeout=240)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return process.returncode, out, err


@pytest.mark.parametrize("copies", [1, 2])
def test_the_parts_of_a_team_make_up_the_batch_and_its_noise(copies: int) -> None:
    batches, place = Batches(digits(), 6, 8, 2, flip=True, seed=0, copies=copies), Place(0, 3)
    whole, labels = batches.at(place)
    level = torch.linspace(0.1, 0.6, 6)
    noisy = add_noise(whole, level, generator(CPU, 0, place))
    assert labels is not None
    for rank in range(3):
        part = Team(rank, 3).part
        crops, own = batches.at(place, part)
        assert own is not None
        assert torch.equal(crops, whole[rank::3])
        assert torch.equal(own, labels[rank::3])
        mine = add_noise(crops, level[part], generator(CPU, 0, place), part=part, of=6)
        assert torch.equal(mine, noisy[rank::3])


COPIES = ["phases.1.copies=2", "phases.1.objective={clf=1.0,consistency=2.0,entropy=0.5,mse=50.0}"]


@pytest.mark.parametrize("phase", [[], COPIES], ids=["one copy", "two copies"])
def test_two_processes_train_what_one_trains(tiny: Path, tmp_path: Path, phase: list[str]) -> None:
    overrides = ["--set", "runtime.samples_every=20", "optimiser.precision=fp32", "runtime.device=cpu", *phase]
    one, two = tmp_path / "one", tmp_path / "two"
    status, out, err = finished(together("denoiser_training", [str(tiny), "--out", str(two), *overrides]))
    assert status == 0, err
    assert out.count("tiny.json") == 1
    assert main([str(tiny), "--out", str(one), *overrides]) == 0
    for name, rows in journals(two).items():
        assert len(rows) > 0
        for mine, theirs in zip(rows, journals(one)[name], strict=True):
            assert mine.keys() == theirs.keys()
            for key, value in mine.items():
                if "mlp" not in key and value:
                    assert float(value) == pytest.approx(float(theirs[key]), rel=1e-4, abs=1e-6), (name, key)
    (lone, alone), (joint, shared) = (weights.load(out / "tiny.json") for out in (one, two))
    assert joint.hardware.startswith("2 processes, each on ")
    assert "processes" not in lone.hardware
    for key, tensor in alone.state_dict().items():
        assert torch.allclose(tensor, shared.state_dict()[key], atol=1e-5), key
    assert sorted(path.name for path in one.rglob("*")) == sorted(path.name for path in two.rglob("*"))


def test_both_processes_end_with_the_same_weights_and_hear_of_the_first_ones_errors(tmp_path: Path) -> None:
    status, _, err = finished(together("tests.training.team_member", [str(tmp_path)]))
    assert status == 0, err
    mine, theirs = (torch.load(tmp_path / f"rank-{rank}.pt", weights_only=True) for rank in range(2))
    assert mine["error"] == theirs["error"] == "said by the first"
    assert mine["steps"] == theirs["steps"] == 7
    assert mine["each"] == theirs["each"] == ["process 0", "process 1"]
    assert mine["rows"] != theirs["rows"]
    for kind in ("best", "last"):
        for key, tensor in mine[kind].items():
            assert torch.equal(tensor, theirs[kind][key]), (kind, key)
    for rank in range(2):
        during, after = json.loads((tmp_path / f"threads-{rank}.json").read_text())
        assert len(during) > 0
        assert after == [], "a thread that outlives the team can abort the process as the interpreter ends"


def test_a_signal_stops_all_processes_at_one_step_and_saves(tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    long = [
        "phases.0.steps=100000",
        "evaluate.every=99999",
        "runtime.checkpoint_every=99999",
        "runtime.device=cpu",
    ]
    process = together("denoiser_training", [str(tiny), "--out", str(out), "--set", *long])
    assert wait_for(out / "metrics.csv", "\n15,")
    process.send_signal(signal.SIGTERM)
    status, _, err = finished(process)
    assert status != 0
    assert "forcefully exiting" not in err, "torchrun kills a process that does not stop by itself"
    assert (out / "last.ckpt").exists()
    assert not (out / "tiny.json").exists()
    saved = torch.load(out / "last.ckpt", weights_only=True)
    assert saved["step"] >= 15


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["optimiser.batch=7"], "optimiser.batch (or the phase's) = 7"),
        (["phases.1.batch=7"], "optimiser.batch (or the phase's) = 7"),
        (
            ["optimiser.batch=10", "phases.1.copies=2"],
            "optimiser.batch (or the phase's) = 10, with 2 copies of each picture",
        ),
        (["surrogates.0.training.optimiser.batch=7"], "classifier mlp: batch = 7"),
    ],
)
def test_a_batch_that_cannot_be_dealt_out_is_refused_by_name(tiny: Path, overrides: list[str], says: str) -> None:
    config = load_config(tiny, overrides)
    check_batches(config, ALONE)
    with pytest.raises(ConfigError) as error:
        check_batches(config, Team(1, 2))
    assert f"{says}: not a multiple of the 2 processes" in str(error.value)


def test_the_hardware_of_a_card_is_that_of_all_processes() -> None:
    assert all_hardware(["1 CPU thread, X"]) == "1 CPU thread, X"
    assert all_hardware(["A", "B", "A"]) == "2 processes, each on A; B"


def test_one_process_is_a_team_of_itself() -> None:
    with team_of({}) as team:
        assert team is ALONE
    values = {"loss": torch.tensor(2.0)}
    assert (ALONE.mean(values), ALONE.any(here=True), ALONE.first(lambda: 5)) == (values, True, 5)
    with pytest.raises(ConfigError, match=r"runtime\.device 'cudda'"):
        ALONE.device("cudda")
