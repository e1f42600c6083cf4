"""The weights that ship are those of the committed configurations, and do what their cards say."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from denoiser_training.config import load_config
from smoothing_proxy.denoisers import weights
from smoothing_proxy.denoisers.registry import denoiser
from smoothing_proxy.denoisers.shipped import shipped_cards
from smoothing_proxy.images.codec import quantise
from smoothing_proxy.images.noise import insecure_entropy, noisy_batch, pixels_to_grid

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "training"
RESULTS = CONFIGS.parents[1] / "benchmarks" / "results" / "shipped.json"
TEST_PICTURES = 150


@pytest.mark.parametrize("name", sorted(shipped_cards()))
def test_a_card_tells_of_the_committed_configuration(name: str) -> None:
    card, config = weights.load(shipped_cards()[name])[0], load_config(CONFIGS / f"{name}.toml")
    assert card.name == config.name == name
    assert (card.architecture, card.options) == (config.denoiser.architecture, config.denoiser.options)
    assert (card.sigma_min, card.sigma_max) == (config.noise.sigma_min, config.noise.sigma_max)
    assert [origin.split(" (")[0] for origin in card.surrogates] == [one.name for one in config.surrogates]
    phases = card.schedule.split("; then ")
    if config.denoiser.start is not None:
        start = shipped_cards()[config.denoiser.start.stem]
        assert phases.pop(0).startswith(f"weights of {start.stem} (sha256 {weights.load(start)[0].sha256[:16]}, ")
    for phase, settings in zip(phases, config.phases, strict=True):
        objective = " + ".join(f"{weight:g} {part}" for part, weight in settings.objective.weights().items())
        assert phase.startswith(f"{settings.steps} steps of {objective} at lr ")


@pytest.mark.parametrize("name", ["cifar10", "cifar10-wide", "natural"])
def test_a_card_tells_what_was_certified_in_front_of_unseen_classifiers(name: str) -> None:
    """As benchmarks/certify_shipped.py wrote it down, of these weights."""
    card = weights.load(shipped_cards()[name])[0]
    measured = {
        f"{row['classifier']}, sigma {row['smoothing']['sigma']:g}": row
        for key, row in json.loads(RESULTS.read_text(encoding="utf-8")).items()
        if key != "speed" and row["denoiser"] == name
    }
    told = card.model_dump()["figures"]["certified in front of classifiers that took no part in training"]
    assert {key: entry["certified"] for key, entry in told.items()} == {
        key: row["certified"] for key, row in measured.items()
    }
    assert measured
    assert all(row["fingerprint"].startswith(f"sha256:{card.sha256}") for row in measured.values())


@pytest.mark.parametrize("name", sorted(shipped_cards()))
def test_a_card_tells_which_step_was_kept_and_what_counts_as_correct(name: str) -> None:
    card = weights.load(shipped_cards()[name])[0]
    assert card.kept.startswith(f"after step {card.steps} of ")
    figures = card.model_dump()["figures"]
    figures = figures.get("validation", figures)
    assert figures["correct"].keys() == figures["clean"].keys()


@pytest.mark.parametrize("name", sorted(name for name in shipped_cards() if name.startswith("cifar10")))
@pytest.mark.parametrize("sigma", [0.12, 0.25, 0.5])
def test_test_pictures_are_cleaned_as_well_as_the_card_says(name: str, sigma: float, shared_data: Path) -> None:
    with zipfile.ZipFile(shared_data / "cifar10-jpeg" / "test.zip") as archive:
        names = sorted(entry for entry in archive.namelist() if entry.endswith(".jpg"))
        chosen = names[:: len(names) // TEST_PICTURES][:TEST_PICTURES]
        pictures = np.stack([np.asarray(Image.open(io.BytesIO(archive.read(entry)))) for entry in chosen])
    noisy = np.concatenate(
        [
            noisy_batch(pixels_to_grid(picture), insecure_entropy(7, b"%d" % i), range(1), sigma)
            for i, picture in enumerate(pictures)
        ]
    )
    figures = weights.load(shipped_cards()[name])[0].model_dump()["figures"][f"sigma {sigma:g}"]
    found = decibels(quantise(denoiser(name).denoise(noisy, sigma)), pictures)
    assert found == pytest.approx(figures["denoised"]["psnr"], abs=0.5)
    assert found > figures["noisy"]["psnr"] + 5


def decibels(given: npt.NDArray[np.uint8], pictures: npt.NDArray[np.uint8]) -> float:
    """The mean over pictures of the peak signal-to-noise ratio."""
    errors = ((given.astype(float) - pictures) / 255) ** 2
    return float(np.mean(-10 * np.log10(errors.mean(axis=(1, 2, 3)))))
