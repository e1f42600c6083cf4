"""The loader's benchmark measures what training does, on any configuration."""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from denoiser_training.config import load_config

ROOT = Path(__file__).resolve().parents[2]
BENCH: Any = SimpleNamespace(**runpy.run_path(str(ROOT / "benchmarks" / "bench_loader.py")))

CPU = torch.device("cpu")


def test_loader_and_training_take_turns_on_the_pictures_of_a_folder(tiny: Path, tmp_path: Path) -> None:
    config = load_config(tiny)
    (tmp_path / "files").mkdir()
    source = BENCH.random_files(tmp_path / "files", 10, 12, 9)
    pictures, rates = BENCH.read_rates(config, str(source), tmp_path / "cache")
    assert len(pictures) == 9
    assert len(list((tmp_path / "cache").iterdir())) == 1
    contest = BENCH.Contest.of(config, pictures, CPU)
    before = [tensor.clone() for tensor in contest.task.network.state_dict().values()]
    found = BENCH.measured(contest, CPU, rounds=1, seconds=0.0)
    after = contest.task.network.state_dict().values()
    assert any(not torch.equal(*pair) for pair in zip(before, after, strict=True))
    ratio = found["loader_pictures_per_s"] / found["training_pictures_per_s"]
    assert found["times_training"] == pytest.approx(ratio, rel=0.05)
    assert rates.keys() == {"files_pictures_per_s", "cache_pictures_per_s"}


@pytest.mark.parametrize("name", BENCH.CONFIGS)
def test_its_configurations_are_committed_and_their_crops_fit_its_pictures(name: str) -> None:
    config = load_config(ROOT / "configs" / "training" / f"{name}.toml")
    assert min(BENCH.SIZES[name]) >= (config.phases[0].crop_px or config.data.crop_px)
