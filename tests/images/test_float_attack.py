"""Floating-point noise gives false certificates, integer noise does not (Jin et al., arXiv 2205.10159).

The adversary is a base classifier made for one picture x: it says "x" exactly when every value that it sees
could be x plus some noise. Adding float32 noise rounds to a grid that depends on x, so that from x + noise alone
it tells x from a picture next to it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest
from scipy.special import ndtr, ndtri

from smoothing_proxy.images.noise import GRID_SCALE, noisy_batch, pixels_to_grid
from smoothing_proxy.stats.binomial import upper_bound
from smoothing_proxy.stats.certificates import certify_votes
from smoothing_proxy.types import Certificate, Votes

Pixels = npt.NDArray[np.uint8]
Copies = npt.NDArray[np.float32]
Noise = Callable[[Pixels, float, int], Copies]
Adversary = Callable[[Copies, Pixels], npt.NDArray[np.bool_]]

N, ALPHA = 1000, 0.001


def naive_noise(pixels: Pixels, sigma: float, stream: int) -> Copies:
    """As it is commonly written: randn * sigma + x, all in float32."""
    normal = np.random.default_rng(stream).standard_normal((N, *pixels.shape), dtype=np.float32)
    return as_float32(pixels) + np.float32(sigma) * normal


def integer_noise(pixels: Pixels, sigma: float, stream: int) -> Copies:
    return noisy_batch(pixels_to_grid(pixels), stream.to_bytes(16, "little"), range(N), sigma)


def reachable_in_float32(copies: Copies, pixels: Pixels) -> npt.NDArray[np.bool_]:
    """Whether every value of a copy is x + e in float32 for some float32 number e. [N]"""
    start = as_float32(pixels)
    difference = (copies.astype(np.float64) - start).astype(np.float32)
    reached = np.zeros(copies.shape, dtype=bool)
    for towards in (difference, np.float32(-np.inf), np.float32(np.inf)):
        reached |= start + np.nextafter(difference, towards) == copies
    return np.asarray(reached.all(axis=(1, 2, 3)))


def reachable_on_grid(copies: Copies, pixels: Pixels) -> npt.NDArray[np.bool_]:
    """Whether every value of a copy is a grid point: x plus an integer, and any integer may be noise. [N]"""
    steps = np.rint(copies * np.float64(GRID_SCALE)) - pixels_to_grid(pixels)
    rebuilt = ((steps + pixels_to_grid(pixels)) / GRID_SCALE).astype(np.float32)
    return np.asarray((rebuilt == copies).all(axis=(1, 2, 3)))


def low_bits(copies: Copies, pixels: Pixels) -> npt.NDArray[np.bool_]:
    """Whether the part of a copy below one pixel step lies rather below the middle than above it. [N]"""
    fraction = np.mod(copies * np.float64(GRID_SCALE) - pixels_to_grid(pixels), 256.0)
    return np.asarray(fraction.mean(axis=(1, 2, 3)) < 127.5)


def as_float32(pixels: Pixels) -> npt.NDArray[np.float32]:
    return pixels.astype(np.float32) / np.float32(255)


@dataclass(frozen=True)
class Pair:
    """Two pictures one pixel step apart in every value."""

    x: Pixels
    neighbour: Pixels
    sigma: float

    @property
    def distance(self) -> float:
        return float(np.linalg.norm((self.x.astype(float) - self.neighbour) / 255))


def grey(level: int, sigma: float) -> Pair:
    x = np.full((4, 4, 3), level, dtype=np.uint8)
    return Pair(x, x - np.uint8(1), sigma)


def any_picture(sigma: float) -> Pair:
    random = np.random.default_rng(20220520)
    x = random.integers(1, 255, (12, 12, 3), dtype=np.uint8)
    return Pair(x, x + random.choice([-1, 1], x.shape).astype(np.uint8), sigma)


PAIRS = [
    pytest.param(grey(16, 0.12), id="grey 16 and 15, sigma 0.12"),
    pytest.param(grey(32, 0.25), id="grey 32 and 31, sigma 0.25"),
    pytest.param(grey(64, 0.5), id="grey 64 and 63, sigma 0.5"),
    pytest.param(any_picture(0.5), id="any 12x12 picture, sigma 0.5"),
    pytest.param(any_picture(1.0), id="any 12x12 picture, sigma 1.0"),
]


def votes(noise: Noise, adversary: Adversary, pair: Pair, at: Pixels, stream: int) -> Votes:
    says_x = int(adversary(noise(at, pair.sigma, stream), pair.x).sum())
    return Votes({"x": says_x, "not x": N - says_x})


def certificate(noise: Noise, adversary: Adversary, pair: Pair, at: Pixels, stream: int) -> Certificate:
    selection = votes(noise, adversary, pair, at, stream)
    estimation = votes(noise, adversary, pair, at, stream + 1)
    return certify_votes(estimation, selection.top(), sigma=pair.sigma, alpha=ALPHA)


def contradict(here: Certificate, there: Certificate, distance: float) -> bool:
    """The smoothed label is proven constant around `here`, and proven to be another one at `there`, inside."""
    proven = here.label is not None and there.label is not None
    return proven and here.label != there.label and distance < here.radius


@pytest.mark.parametrize("pair", PAIRS)
def test_naive_noise_certifies_a_radius_inside_which_the_smoothed_label_differs(pair: Pair) -> None:
    here = certificate(naive_noise, reachable_in_float32, pair, pair.x, stream=1)
    there = certificate(naive_noise, reachable_in_float32, pair, pair.neighbour, stream=3)
    assert (here.label, here.votes.of("x")) == ("x", N)
    assert pair.distance < here.radius / 4
    assert there.label == "not x"
    assert contradict(here, there, pair.distance)


@pytest.mark.parametrize("pair", PAIRS)
def test_with_naive_noise_the_votes_fall_far_below_what_the_gaussian_promises(pair: Pair) -> None:
    here = certificate(naive_noise, reachable_in_float32, pair, pair.x, stream=5)
    promised = float(ndtr(ndtri(here.p_lower) - pair.distance / pair.sigma))
    seen = votes(naive_noise, reachable_in_float32, pair, pair.neighbour, stream=7)
    assert promised > 0.95
    assert upper_bound(seen.of("x"), seen.n, 1e-9) < 0.3


@pytest.mark.parametrize("adversary", [reachable_in_float32, reachable_on_grid, low_bits])
@pytest.mark.parametrize("pair", PAIRS)
def test_integer_noise_gives_the_same_adversary_no_contradiction(pair: Pair, adversary: Adversary) -> None:
    here = certificate(integer_noise, adversary, pair, pair.x, stream=1)
    there = certificate(integer_noise, adversary, pair, pair.neighbour, stream=3)
    assert not contradict(here, there, pair.distance)
    assert not contradict(there, here, pair.distance)


@pytest.mark.parametrize("adversary", [reachable_in_float32, reachable_on_grid, low_bits])
@pytest.mark.parametrize("pair", PAIRS)
def test_with_integer_noise_the_votes_stay_within_what_the_gaussian_allows(
    pair: Pair, adversary: Adversary
) -> None:
    here = votes(integer_noise, adversary, pair, pair.x, stream=9).of("x") / N
    there = votes(integer_noise, adversary, pair, pair.neighbour, stream=11).of("x") / N
    allowed = 2 * float(ndtr(pair.distance / (2 * pair.sigma))) - 1
    sampling = 5 * math.sqrt(0.5 / N)
    assert abs(here - there) <= allowed + sampling


def test_every_integer_sum_is_reachable_from_every_picture() -> None:
    pair = grey(32, 0.25)
    assert reachable_on_grid(integer_noise(pair.neighbour, pair.sigma, 13), pair.x).all()
    assert not reachable_in_float32(naive_noise(pair.neighbour, pair.sigma, 13), pair.x).any()
