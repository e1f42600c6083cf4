"""Filters are compared on the same noisy pictures, by what is left of the noise."""

from __future__ import annotations

import math

import numpy as np
import pytest

from smoothing_proxy.denoisers.registry import denoiser
from smoothing_proxy.denoisers.tuning import (
    FAMILIES,
    best_of_each,
    candidates,
    noisy_copies,
    restored,
    sweep,
)
from smoothing_proxy.errors import ConfigError
from smoothing_proxy.images.pixels import Pixels

SIGMA = 0.1


def smooth_pictures(count: int = 3, side: int = 32) -> list[Pixels]:
    ramp = np.linspace(60, 200, side)
    return [
        np.stack([np.add.outer(ramp, (i + 1) * 10 - ramp / 3)] * 3, axis=2).clip(0, 255).astype(np.uint8)
        for i in range(count)
    ]


def test_scores_are_what_the_formulas_say_of_what_is_shown() -> None:
    pictures = smooth_pictures()
    noisy = noisy_copies(pictures, SIGMA, 0)
    (score,) = sweep(["gaussian:1"], pictures, noisy, SIGMA)
    shown = restored(denoiser("gaussian:1"), noisy, SIGMA)
    errors = [float(((p / 255 - s / 255) ** 2).mean()) for p, s in zip(pictures, shown, strict=True)]
    assert score.mse == pytest.approx(math.fsum(errors) / 3)
    assert score.psnr == pytest.approx(math.fsum(-10 * math.log10(error) for error in errors) / 3)
    assert (score.spec, score.family) == ("gaussian:1", "gaussian")


def test_unfiltered_noise_scores_its_own_variance() -> None:
    pictures = [np.full((64, 64, 3), 128, np.uint8)]
    (score,) = sweep(["identity"], pictures, noisy_copies(pictures, SIGMA, 0), SIGMA)
    assert score.mse == pytest.approx(SIGMA**2, rel=0.05)
    assert score.psnr == pytest.approx(20, abs=0.3)


def test_on_smooth_pictures_every_family_has_a_filter_that_beats_none() -> None:
    pictures = smooth_pictures()
    scores = sweep(candidates(FAMILIES, SIGMA), pictures, noisy_copies(pictures, SIGMA, 0), SIGMA)
    best = {score.family: score for score in best_of_each(scores)}
    assert set(best) == {"identity", *FAMILIES}
    assert all(best[family].psnr > best["identity"].psnr + 5 for family in FAMILIES)
    for score in scores:
        assert best[score.family].psnr >= score.psnr


def test_the_noise_follows_seed_and_picture_and_nothing_else() -> None:
    first, second = smooth_pictures(2)
    alone, together = noisy_copies([second], SIGMA, 1), noisy_copies([first, second], SIGMA, 1)
    assert (alone[0] == together[1]).all()
    assert (alone[0] != noisy_copies([second], SIGMA, 2)[0]).any()


def test_filters_that_do_not_take_such_small_pictures_are_left_out() -> None:
    pictures = smooth_pictures(side=12)
    scores = sweep(candidates(["wavelet"], SIGMA), pictures, noisy_copies(pictures, SIGMA, 0), SIGMA)
    specs = {score.spec for score in scores}
    assert "wavelet:haar,level=3" in specs
    assert "wavelet:db4,level=3" not in specs


def test_nothing_to_compare_is_refused() -> None:
    with pytest.raises(ConfigError, match="no pictures"):
        sweep(["identity"], [], [], SIGMA)
    tiny = [np.zeros((1, 1, 3), np.uint8)]
    with pytest.raises(ConfigError, match="none of the filters"):
        sweep(["wavelet:haar"], tiny, noisy_copies(tiny, SIGMA, 0), SIGMA)
    with pytest.raises(ConfigError, match="did you mean 'median'"):
        candidates(["medain"], SIGMA)
