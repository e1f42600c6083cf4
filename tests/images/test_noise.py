from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kstest, norm

from smoothing_proxy.errors import ConfigError, ImageError
from smoothing_proxy.images.noise import (
    ENTROPY_BYTES,
    GRID_SCALE,
    MAX_SIGMA,
    gaussian,
    insecure_entropy,
    new_entropy,
    noisy_batch,
    pixels_to_grid,
    to_grid,
)

ENTROPY = bytes(range(16))


def test_a_pixel_is_its_grid_value_exactly() -> None:
    pixels = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    grid = pixels_to_grid(pixels)
    assert grid.dtype == np.int32
    np.testing.assert_array_equal(grid, pixels.astype(np.int32) * 256)
    np.testing.assert_array_equal(to_grid(pixels / 255.0), grid)
    assert grid.max() == GRID_SCALE


@pytest.mark.parametrize(
    ("steps", "rounded"), [(0.0, 0), (0.49, 0), (0.5, 1), (0.51, 1), (1.5, 2), (2.5, 3), (65279.5, 65280)]
)
def test_real_values_go_to_the_nearest_grid_value_halves_upward(steps: float, rounded: int) -> None:
    assert np.all(to_grid(np.full((2, 3, 3), steps / GRID_SCALE)) == rounded)


@pytest.mark.parametrize("bad", [-1e-9, 1.0 + 1e-9, math.nan, math.inf])
def test_values_that_no_picture_has_are_refused(bad: float) -> None:
    image = np.full((4, 4, 3), 0.5)
    image[1, 2, 0] = bad
    with pytest.raises(ImageError, match="values from"):
        to_grid(image)


@pytest.mark.parametrize("sigma", [0.001, 0.12, 0.25, 1.0, MAX_SIGMA])
def test_the_noise_is_the_rounded_gaussian(sigma: float) -> None:
    noise = gaussian(ENTROPY, 0, (300_000,), sigma)
    steps = sigma * GRID_SCALE
    spread = noise + np.random.default_rng(5).uniform(-0.5, 0.5, noise.size)
    assert kstest(spread / steps, norm(scale=math.hypot(1, 1 / (steps * math.sqrt(12)))).cdf).pvalue > 1e-3
    near = np.arange(-2, 3)
    expected = norm.cdf((near + 0.5) / steps) - norm.cdf((near - 0.5) / steps)
    counts = np.array([(noise == k).sum() for k in near])
    assert np.all(np.abs(counts - noise.size * expected) <= 5 * np.sqrt(noise.size * expected) + 5)


def test_two_draws_are_independent_and_share_no_value_of_their_streams() -> None:
    size = 200_000
    draws = np.stack([gaussian(ENTROPY, draw, (size,), 1.0) for draw in (0, 1, 2, 2**63)]).astype(np.float64)
    correlation = np.corrcoef(draws) - np.eye(len(draws))
    assert np.abs(correlation).max() < 5 / math.sqrt(size)
    words = [np.random.Philox(key=7, counter=draw << 192).random_raw(100_000) for draw in (0, 1, 2)]
    assert len(np.unique(np.concatenate(words))) == 300_000


def test_neighbouring_values_are_uncorrelated() -> None:
    noise = gaussian(ENTROPY, 3, (400_000,), 1.0) / GRID_SCALE
    for lag in (1, 2, 3, 224 * 3):
        assert abs(np.mean(noise[lag:] * noise[:-lag])) < 5 / math.sqrt(noise.size)


def test_a_draw_is_the_same_alone_in_any_order_and_in_any_batch() -> None:
    grid = pixels_to_grid(np.random.default_rng(0).integers(0, 256, (160, 150, 3), dtype=np.uint8))
    together = noisy_batch(grid, ENTROPY, [4, 0, 9], 0.25)
    for row, draw in enumerate([4, 0, 9]):
        np.testing.assert_array_equal(noisy_batch(grid, ENTROPY, [draw], 0.25)[0], together[row])
        expected = ((grid + gaussian(ENTROPY, draw, grid.shape, 0.25)) / GRID_SCALE).astype(np.float32)
        np.testing.assert_array_equal(together[row], expected)


@pytest.mark.parametrize(
    ("entropy", "draw", "values"),
    [
        (ENTROPY, 0, [-2391, 13156, 2461, 5217, 14380, 17907, -5426, 7556]),
        (ENTROPY, 1, [-22535, 18388, 4088, -8223, -717, -6025, 36889, 13270]),
        (bytes(16), 2**64 - 1, [29715, 21656, -9627, 37849, -14187, -13780, -4543, 3478]),
    ],
)
def test_a_ledger_written_today_gives_the_same_noise_tomorrow(
    entropy: bytes, draw: int, values: list[int]
) -> None:
    assert gaussian(entropy, draw, (8,), 0.25).tolist() == values


def test_a_long_stream_is_kept_too() -> None:
    assert int(gaussian(ENTROPY, 5, (1_000_000,), 0.25).astype(np.int64).sum()) == -32085922


@given(st.integers(0, 2**128 - 1), st.integers(0, 2**64 - 1), st.floats(0.001, 2.0), st.integers(0, 2**32 - 1))
def test_the_noisy_sums_of_two_pictures_differ_by_exactly_the_pictures_difference(
    key: int, draw: int, sigma: float, pictures: int
) -> None:
    random = np.random.default_rng(pictures)
    one, two = (pixels_to_grid(random.integers(0, 256, (9, 7, 3), dtype=np.uint8)) for _ in range(2))
    entropy = key.to_bytes(16, "little")
    sums = [
        np.rint(noisy_batch(grid, entropy, [draw], sigma)[0].astype(np.float64) * GRID_SCALE).astype(np.int64)
        for grid in (one, two)
    ]
    np.testing.assert_array_equal(sums[0] - sums[1], one - two)


def test_rounding_the_noise_commutes_with_integer_shifts_where_ties_occur() -> None:
    ties = np.arange(-9.5, 10.5)
    for shift in (1, 256, 65280):
        np.testing.assert_array_equal(np.floor(ties + shift + 0.5), np.floor(ties + 0.5) + shift)
    assert not np.array_equal(np.rint(ties + 1), np.rint(ties) + 1)


def test_even_the_largest_sigma_stays_where_float32_holds_every_integer() -> None:
    # -log(2**-53) bounds y, and the ziggurat's tail (r = 3.6541528853610088) accepts x only if x**2 < 2 y.
    largest = 3.6541528853610088 + math.sqrt(2 * 53 * math.log(2))
    assert largest < 12.3
    assert GRID_SCALE * (1 + MAX_SIGMA * 12.3) + 1 < 2**24
    assert np.abs(gaussian(ENTROPY, 0, (1_000_000,), MAX_SIGMA)).max() < MAX_SIGMA * GRID_SCALE * 12.3


def test_no_noise_gives_the_picture_back() -> None:
    pixels = np.arange(192, dtype=np.uint8).reshape(8, 8, 3)
    copies = noisy_batch(pixels_to_grid(pixels), ENTROPY, range(3), 0.0)
    np.testing.assert_array_equal(copies, np.broadcast_to((pixels / 255).astype(np.float32), (3, 8, 8, 3)))


@pytest.mark.parametrize("sigma", [-0.1, math.nan, math.inf, -math.inf, MAX_SIGMA * 1.0001])
def test_a_sigma_that_is_none_is_refused(sigma: float) -> None:
    with pytest.raises(ConfigError, match="sigma is"):
        gaussian(ENTROPY, 0, (3,), sigma)


@pytest.mark.parametrize(
    ("entropy", "draw"), [(b"", 0), (bytes(15), 0), (bytes(17), 0), (ENTROPY, -1), (ENTROPY, 2**64)]
)
def test_noise_needs_sixteen_bytes_and_a_draw_number(entropy: bytes, draw: int) -> None:
    with pytest.raises(ConfigError, match=r"16 bytes|draw number"):
        gaussian(entropy, draw, (3,), 0.25)


@pytest.mark.parametrize(
    "grid",
    [
        np.zeros((4, 4), np.int32),
        np.zeros((4, 4, 1), np.int32),
        np.zeros((0, 4, 3), np.int32),
        np.full((4, 4, 3), -1, np.int32),
        np.full((4, 4, 3), GRID_SCALE + 1, np.int32),
        np.zeros((4, 4, 3), np.int64),
    ],
)
def test_a_grid_that_is_no_picture_is_refused(grid: np.ndarray) -> None:
    with pytest.raises(ImageError):
        noisy_batch(grid, ENTROPY, [0], 0.25)


def test_entropy_is_new_each_time_and_the_insecure_one_is_a_function_of_its_arguments() -> None:
    assert len({new_entropy() for _ in range(100)}) == 100
    assert len(new_entropy()) == ENTROPY_BYTES
    assert insecure_entropy(1, b"a") == insecure_entropy(1, b"a")
    several = {insecure_entropy(seed, name) for seed in (-1, 0, 1, 10**30) for name in (b"", b"a", b"1:a")}
    assert len(several) == 12
    assert all(len(entropy) == ENTROPY_BYTES for entropy in several)


def test_a_batch_takes_two_blocks_more_memory_than_its_copies() -> None:
    grid = pixels_to_grid(np.zeros((512, 512, 3), np.uint8))
    tracemalloc.start()
    copies = noisy_batch(grid, ENTROPY, range(4), 0.25)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < copies.nbytes + 2**21
