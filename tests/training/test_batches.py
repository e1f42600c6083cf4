from __future__ import annotations

import numpy as np
import pytest
import torch

from denoiser_training.batches import JUDGE, Batches, Place, add_noise, centre_crops, generator
from denoiser_training.data import digits
from denoiser_training.pictures import Pictures
from smoothing_proxy.errors import ConfigError
from smoothing_proxy.images.noise import GRID_SCALE

CPU = torch.device("cpu")


def pictures(count: int = 10, height: int = 9, width: int = 12) -> Pictures:
    """Each of one grey of its own."""
    pixels = tuple(torch.full((3, height, width), i, dtype=torch.uint8) for i in range(count))
    return Pictures(tuple(f"{i:03d}" for i in range(count)), pixels, torch.arange(count), ("a",))


def batches(batch: int = 4, crop_px: int = 8, pad_px: int = 0, flip: bool = False, seed: int = 0) -> Batches:
    return Batches(digits(), batch, crop_px, pad_px, flip, seed)


def test_a_step_is_a_function_of_seed_phase_and_number() -> None:
    first = batches(pad_px=2, flip=True).at(Place(1, 5))
    again = batches(pad_px=2, flip=True).at(Place(1, 5))
    assert torch.equal(first[0], again[0])
    for other in (
        batches(pad_px=2, flip=True, seed=1).at(Place(1, 5)),
        batches(pad_px=2, flip=True).at(Place(0, 5)),
    ):
        assert not torch.equal(first[0], other[0])


def test_every_picture_comes_once_per_epoch_in_a_new_order_with_its_label() -> None:
    cuts = Batches(pictures(10), 4, 8, 0, flip=True, seed=0)
    row = []
    for step in range(5):
        crops, labels = cuts.at(Place(0, step))
        assert crops.shape == (4, 3, 8, 8)
        assert labels is not None
        assert torch.equal(crops[:, 0, 0, 0].long(), labels)
        row += labels.tolist()
    assert sorted(row[:10]) == sorted(row[10:]) == list(range(10))
    assert row[:10] != row[10:]


def test_the_copies_of_a_picture_are_one_crop_and_an_epoch_still_shows_each_picture_once() -> None:
    cuts = Batches(digits(), 6, 8, 2, flip=True, seed=0, copies=3)
    crops, labels = cuts.at(Place(0, 1))
    alone, own = Batches(digits(), 2, 8, 2, flip=True, seed=0).at(Place(0, 1))
    assert labels is not None
    assert own is not None
    assert torch.equal(crops, alone.repeat(3, 1, 1, 1))
    assert torch.equal(labels, own.repeat(3))
    row = [index for step in range(5) for index in _shown(Batches(pictures(10), 4, 8, 0, True, 0, 2), step)]
    assert sorted(row) == sorted([*range(10), *range(10)])


def _shown(cuts: Batches, step: int) -> list[int]:
    labels = cuts.at(Place(0, step))[1]
    assert labels is not None
    return labels.tolist()


def test_half_of_the_crops_are_mirrored_and_every_offset_is_used() -> None:
    ramp = torch.arange(12, dtype=torch.uint8).expand(3, 9, 12).contiguous()
    cuts = Batches(Pictures(("a",), (ramp,), None, ()), 400, 8, 0, flip=True, seed=0)
    crops, labels = cuts.at(Place(0, 0))
    mirrored = (crops[:, 0, 0, 0] > crops[:, 0, 0, -1]).float().mean()
    assert labels is None
    assert 0.4 < float(mirrored) < 0.6
    assert set(crops[:, 0, 0].min(dim=1).values.tolist()) == set(range(5))


@pytest.mark.parametrize(("crop_px", "pad_px"), [(9, 0), (13, 2), (8, 8)])
def test_crops_and_padding_that_do_not_fit_are_refused(crop_px: int, pad_px: int) -> None:
    with pytest.raises(ConfigError, match="px"):
        batches(crop_px=crop_px, pad_px=pad_px)


def test_centre_crops_come_from_the_middle_and_need_room() -> None:
    ramp = torch.arange(12, dtype=torch.uint8).expand(3, 9, 12).contiguous()
    one = Pictures(("a",), (ramp,), None, ())
    assert centre_crops(one, 8)[0, 0, 0].tolist() == list(range(2, 10))
    with pytest.raises(ConfigError, match="crop_px = 10"):
        centre_crops(one, 10)


@pytest.mark.parametrize("sigma", [0.05, 0.25, 1.0])
def test_noise_is_what_certification_adds(sigma: float) -> None:
    crops = torch.randint(0, 256, (64, 3, 16, 16), dtype=torch.uint8)
    level = torch.full((64,), sigma)
    noisy = add_noise(crops, level, generator(CPU, 0, Place(0, 0))).double() * GRID_SCALE
    grid = noisy.round()
    assert float((noisy - grid).abs().max()) < 0.1
    noise = grid - crops.double() * 256
    assert float(noise.std()) / GRID_SCALE == pytest.approx(sigma, rel=0.01)
    assert abs(float(noise.mean())) / GRID_SCALE < 4 * sigma / np.sqrt(noise.numel())
    z = torch.randn(crops.shape, generator=generator(CPU, 0, Place(0, 0)))
    exact = torch.floor(z.double() * sigma * GRID_SCALE + 0.5)
    assert float((noise - exact).abs().max()) <= 1
    assert noisy.min() < 0
    assert noisy.max() > GRID_SCALE


def test_each_picture_has_its_own_noise_level() -> None:
    crops = torch.full((2, 3, 64, 64), 128, dtype=torch.uint8)
    noisy = add_noise(crops, torch.tensor([0.1, 0.8]), generator(CPU, 3, Place(0, 0)))
    assert noisy.std(dim=(1, 2, 3)).tolist() == pytest.approx([0.1, 0.8], rel=0.05)


def test_training_and_evaluation_draw_from_different_streams() -> None:
    drawn = [torch.rand(3, generator=generator(CPU, 0, Place(0, 0), *use)).tolist() for use in ((), (JUDGE,))]
    assert drawn[0] != drawn[1]
