"""The configurations for a user's own photographs train with nothing set but where these are."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from denoiser_training.__main__ import main
from denoiser_training.config import Config, load_config
from denoiser_training.evaluate_config import load_evaluation
from smoothing_proxy.denoisers import weights
from smoothing_proxy.denoisers.architectures import build
from smoothing_proxy.denoisers.registry import denoiser
from smoothing_proxy.denoisers.shipped import shipped_cards

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
OURS = ("photographs", "natural-large")

SMALLER = (
    "denoiser.options={widths=[8],blocks=1}",
    "phases.0.steps=1",
    "phases.0.batch=2",
    "phases.1.steps=1",
    "phases.1.batch=2",
    "phases.1.crop_px=64",
    "evaluate.crop_px=64",
    "evaluate.pictures=1",
    "evaluate.sigmas=[0.25]",
    "runtime.device=cpu",
    "runtime.samples_every=0",
)


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """One thread, as this machine's cores may be busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def photographs(folder: Path) -> Path:
    """Three smooth pictures, as large as the configurations resize theirs."""
    random = np.random.default_rng(0)
    folder.mkdir()
    for number in range(3):
        small: Any = random.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(small).resize((300, 260)).save(folder / f"{number}.jpg")
    return folder


def downloaded(config: Config, home: Path) -> None:
    """Where torchvision looks before it downloads: random weights under the names of those it would fetch."""
    from torchvision import models  # type: ignore[import-untyped]

    folder = home / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    for classifier in (*config.surrogates, *config.evaluate.classifiers):
        model = classifier.network.removeprefix("torchvision:")
        state = models.get_model(model, weights=None).state_dict()
        torch.save(state, folder / models.get_model_weights(model).DEFAULT.url.rpartition("/")[2])


@pytest.mark.parametrize("name", OURS)
def test_two_steps_of_it_with_a_smaller_network_make_a_card(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = CONFIGS / "training" / f"{name}.toml"
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    downloaded(load_config(path), tmp_path / "home")
    source = f"data.source={photographs(tmp_path / 'mine')}"
    assert main([str(path), "--out", str(tmp_path / "out"), "--set", source, *SMALLER]) == 0
    card, _ = weights.load(tmp_path / "out" / f"{name}.json")
    assert card.training_data == "2 pictures of mine"
    assert card.training_data_license == "not stated"
    rows = list(csv.DictReader((tmp_path / "out" / "metrics.csv").read_text().splitlines()))
    assert [(row["step"], row["phase"]) for row in rows] == [("1", "0"), ("2", "1")]
    assert float(rows[1]["soft_stab"]) > 0


@pytest.mark.parametrize("name", OURS)
def test_it_keeps_no_test_and_needs_nothing_from_here(name: str) -> None:
    config = load_config(CONFIGS / "training" / f"{name}.toml")
    assert config.data.test_every == 0
    assert config.best == "accuracy"
    classifiers = (*config.surrogates, *config.evaluate.classifiers)
    assert all(one.weights is None and one.network.startswith("torchvision:") for one in classifiers)


def test_the_large_network_is_eight_times_the_shipped_one() -> None:
    config = load_config(CONFIGS / "training" / "natural-large.toml")
    with torch.device("meta"):
        sizes = [
            sum(parameter.numel() for parameter in build("unet", options).parameters())
            for options in (config.denoiser.options, {})
        ]
    assert 7.5 < sizes[0] / sizes[1] < 8.5


@pytest.mark.parametrize("path", sorted((CONFIGS / "evaluate").glob("*.toml")), ids=lambda path: path.stem)
def test_a_committed_evaluation_has_the_shipped_denoisers_that_its_pictures_are_for(path: Path) -> None:
    config = load_evaluation(path)
    assert config.name == path.stem
    for spec in config.denoisers:
        denoiser(spec).check(config.certify.sigma, config.data.crop_px, config.data.crop_px)
    assert {name for name in shipped_cards() if name.startswith(path.stem)} <= set(config.denoisers)
