from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from denoiser_training.batches import WHOLE, Place
from denoiser_training.config import CopySettings, NoiseSettings
from denoiser_training.copies import Copies, Kind
from smoothing_proxy.denoisers.registry import denoiser
from smoothing_proxy.errors import ConfigError, DenoiserError

CROPS = torch.randint(60, 190, (400, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
NOISE = NoiseSettings(sigma_min=0.1, sigma_max=0.1)


def copies(*settings: dict[str, Any], seed: int = 3) -> Copies:
    return Copies([Kind.of(CopySettings(**fields)) for fields in settings], seed)


def test_a_stated_share_of_the_pictures_are_copies_of_each_kind() -> None:
    kinds = copies({"share": 0.5, "noise": NOISE}, {"share": 0.2, "denoisers": ("median:3",)})
    mixed = kinds.among(CROPS, Place(0, 5), WHOLE, len(CROPS))
    median = torch.from_numpy(
        denoiser("median:3").denoise((CROPS.float() / 255).permute(0, 2, 3, 1).contiguous().numpy(), 0.1)
    ).permute(0, 3, 1, 2)
    as_they_are = (mixed == CROPS).flatten(1).all(1)
    filtered = (mixed == (median * 255).round()).flatten(1).all(1) & ~as_they_are
    noisy = ~as_they_are & ~filtered
    assert [float(rows.float().mean()) for rows in (noisy, filtered, as_they_are)] == pytest.approx(
        [0.5, 0.2, 0.3], abs=0.07
    )
    assert float((mixed[noisy].float() - CROPS[noisy].float()).std()) == pytest.approx(25.5, rel=0.02)


def test_without_kinds_nothing_is_copied_and_with_all_of_them_everything() -> None:
    assert Copies().among(CROPS, Place(0, 0), WHOLE, len(CROPS)) is CROPS
    mixed = copies({"share": 1.0, "noise": NOISE}).among(CROPS, Place(0, 0), WHOLE, len(CROPS))
    assert bool((mixed != CROPS).flatten(1).any(1).all())


@pytest.mark.parametrize("part", [slice(0, None, 2), slice(1, None, 2)])
def test_each_process_makes_the_copies_of_its_own_rows(part: slice) -> None:
    kinds = copies({"share": 0.4, "noise": NOISE, "denoisers": ("wavelet:haar",)}, {"share": 0.3, "noise": NOISE})
    whole = kinds.among(CROPS, Place(1, 2), WHOLE, len(CROPS))
    assert torch.equal(kinds.among(CROPS[part], Place(1, 2), part, len(CROPS)), whole[part])


def test_copies_change_with_the_step_and_the_seed_alone() -> None:
    kind = {"share": 0.5, "noise": NOISE}
    first = copies(kind).among(CROPS, Place(0, 1), WHOLE, 400)
    assert torch.equal(copies(kind).among(CROPS, Place(0, 1), WHOLE, 400), first)
    assert not torch.equal(copies(kind).among(CROPS, Place(0, 2), WHOLE, 400), first)
    assert not torch.equal(copies(kind, seed=4).among(CROPS, Place(0, 1), WHOLE, 400), first)


def test_noise_comes_before_the_denoiser_which_is_told_its_level() -> None:
    flat = torch.full((1, 3, 32, 32), 128, dtype=torch.uint8)
    told = CopySettings(share=1, noise=NOISE, denoisers=("wavelet:haar",))
    noisy = copies({"share": 1.0, "noise": NOISE}).all_of(0, flat, Place(0, 0))
    denoised = Copies([Kind.of(told)], 3).all_of(0, flat, Place(0, 0))
    by_hand = denoiser("wavelet:haar").denoise((noisy.float() / 255).permute(0, 2, 3, 1).contiguous().numpy(), 0.1)
    assert np.abs(denoised.permute(0, 2, 3, 1).numpy() - by_hand * 255).max() < 1.5
    assert float(denoised.float().std()) < float(noisy.float().std()) / 3
    assert Kind.of(told).name == "noise 0.1-0.1, wavelet:haar"


def test_a_denoiser_that_there_is_not_or_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match="did you mean 'wavelet'"):
        copies({"share": 1, "denoisers": ("wavelett",)})
    with pytest.raises(DenoiserError, match="wavelet:haar"):
        Kind.of(CopySettings(share=1, denoisers=("wavelet:haar",))).check(1)
