"""Bounds on a median confidence: which order statistic, how often they miss, and that they bound what moves."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, norm

from smoothing_proxy.errors import ConfigError
from smoothing_proxy.stats.percentile import median_bounds, order_statistic

SIGMA = 0.5

samples = st.lists(st.floats(0.0, 1.0), min_size=60, max_size=150)


@pytest.mark.parametrize("ratio", [0.0, 0.25, 0.5, 1.0, 1.5])
@pytest.mark.parametrize("n", [1, 5, 11, 12, 50, 100, 1000, 10_000])
@pytest.mark.parametrize("alpha", [0.001, 0.05])
def test_the_order_statistic_is_the_last_one_that_misses_its_percentile_rarely_enough(
    ratio: float, n: int, alpha: float
) -> None:
    k = order_statistic(n, ratio * SIGMA, SIGMA, alpha)
    percentile = norm.sf(ratio)
    assert binom.cdf((k or 0) - 1, n, percentile) <= alpha / 2 * (1 + 1e-9)
    assert binom.cdf(k or 0, n, percentile) > alpha / 2 * (1 - 1e-9), "the next one would miss too often"


@pytest.mark.parametrize(("ratio", "fewest"), [(0.0, 11), (0.5, 21), (1.0, 44)])
def test_too_few_draws_for_the_percentile_prove_nothing(ratio: float, fewest: int) -> None:
    """Phi(s)^n <= alpha / 2 is what the smallest of n needs."""
    for n in (fewest - 1, fewest):
        found = median_bounds([0.5] * n, 0, radius=ratio, sigma=1.0, alpha=0.001)
        assert (found is None) == (n < fewest)


def test_bounds_of_a_sample_by_hand() -> None:
    confidences = [i / 100 for i in range(100)]
    k = order_statistic(100, 0.125, SIGMA, 0.01)
    assert k is not None
    found = median_bounds(confidences[::-1], 0, radius=0.125, sigma=SIGMA, alpha=0.01)
    assert found is not None
    assert (found.median, found.radius) == (0.49, 0.125)
    assert (found.low, found.high) == (confidences[k - 1], confidences[100 - k])


def test_failed_draws_count_against_both_bounds() -> None:
    k = order_statistic(110, 0.125, SIGMA, 0.01)
    assert k is not None
    confidences = [i / 100 for i in range(100)]
    found = median_bounds(confidences, 10, radius=0.125, sigma=SIGMA, alpha=0.01)
    assert found is not None
    assert (found.low, found.high) == (confidences[k - 11], confidences[110 - k])
    many = median_bounds(confidences, 100, radius=0.125, sigma=SIGMA, alpha=0.01)
    assert many is not None
    assert (many.low, many.high) == (0.0, math.inf)
    assert median_bounds([], 100, radius=0.125, sigma=SIGMA, alpha=0.01) is None


@settings(deadline=None)
@given(samples, st.integers(0, 20))
def test_the_median_lies_between_its_bounds_and_failures_only_widen_them(sample: list[float], failed: int) -> None:
    found = median_bounds(sample, 0, radius=0.1, sigma=SIGMA, alpha=0.01)
    worse = median_bounds(sample, failed, radius=0.1, sigma=SIGMA, alpha=0.01)
    assert found is not None
    assert worse is not None
    assert found.low <= found.median <= found.high
    assert worse.low <= found.low
    assert worse.high >= found.high
    for said in (0.0, 0.5, 1.0):  # whatever they would have said
        told = median_bounds(sample + [said] * failed, 0, radius=0.1, sigma=SIGMA, alpha=0.01)
        assert told is not None
        assert worse.low <= told.low
        assert worse.high >= told.high


@settings(deadline=None)
@given(samples, st.floats(0.0, 0.3), st.floats(0.0, 0.3))
def test_a_larger_radius_has_wider_bounds(sample: list[float], one: float, other: float) -> None:
    near = median_bounds(sample, 0, radius=min(one, other), sigma=SIGMA, alpha=0.05)
    far = median_bounds(sample, 0, radius=max(one, other), sigma=SIGMA, alpha=0.05)
    if far is not None:
        assert near is not None
        assert far.low <= near.low
        assert far.high >= near.high


@settings(deadline=None)
@given(samples, st.floats(0.1, 10.0))
def test_only_the_radius_in_units_of_sigma_counts(sample: list[float], factor: float) -> None:
    found = median_bounds(sample, 0, radius=0.1, sigma=SIGMA, alpha=0.01)
    scaled = median_bounds(sample, 0, radius=0.1 * factor, sigma=SIGMA * factor, alpha=0.01)
    assert found is not None
    assert scaled is not None
    assert (scaled.low, scaled.high) == (found.low, found.high)


GRID = np.linspace(0.0, 1.0, 11)
TIED = np.array([3, 0, 1, 5, 0, 8, 2, 0, 0, 4, 7]) / 30


def quantiles(values: np.ndarray, chances: np.ndarray, s: float) -> tuple[float, float]:
    """The largest `low` with P(F < low) <= Phi(-s), and the smallest `high` with P(F > high) <= Phi(-s)."""
    below = np.concatenate([[0.0], np.cumsum(chances)[:-1]])
    above = 1.0 - np.cumsum(chances)
    p = norm.sf(s)
    return float(values[below <= p + 1e-12].max()), float(values[above <= p + 1e-12].min())


@pytest.mark.parametrize("s", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("chances", [TIED, np.full(11, 1 / 11), np.eye(11)[4], np.array([0.5] + [0] * 9 + [0.5])])
def test_each_bound_misses_no_more_often_than_half_of_alpha_with_ties(chances: np.ndarray, s: float) -> None:
    """Exactly: X_k > q just when at most k - 1 draws are <= q."""
    n, alpha = 80, 0.05
    k = order_statistic(n, s * SIGMA, SIGMA, alpha)
    assert k is not None
    low, high = quantiles(GRID, chances, s)
    assert binom.cdf(k - 1, n, min(1.0, chances[low >= GRID].sum())) <= alpha / 2
    assert binom.cdf(k - 1, n, min(1.0, chances[high <= GRID].sum())) <= alpha / 2


def test_by_simulation_bounds_miss_where_few_draws_make_it_likely_and_no_more_often_than_alpha() -> None:
    rng, n, alpha, s, runs = np.random.default_rng(5), 30, 0.4, 0.3, 4000
    low, high = quantiles(GRID, TIED, s)
    missed = 0
    for _ in range(runs):
        sample = rng.choice(GRID, n, p=TIED)
        failed = rng.integers(0, 3)  # the first ones fail, whatever they would have said
        found = median_bounds(sample[failed:].tolist(), int(failed), radius=s * SIGMA, sigma=SIGMA, alpha=alpha)
        assert found is not None
        missed += found.low > low + 1e-12 or found.high < high - 1e-12
    assert 0 < missed / runs <= alpha


def test_the_median_of_a_moved_picture_stays_within_bounds_that_the_theorem_makes_tight() -> None:
    """F = Phi of the picture's first coordinate: its median moves exactly as far as the picture does."""
    rng, n, radius = np.random.default_rng(6), 4000, 0.25
    for x in (-0.5, 0.0, 0.2, 1.0):
        confidences = norm.cdf(x + SIGMA * rng.standard_normal(n)).tolist()
        found = median_bounds(confidences, 0, radius=radius, sigma=SIGMA, alpha=0.001)
        assert found is not None
        assert found.low <= norm.cdf(x - radius) < norm.cdf(x + radius) <= found.high
        assert found.high - found.low <= norm.cdf(x + radius) - norm.cdf(x - radius) + 0.06


@pytest.mark.parametrize("confidences", [[0.5, -0.1] * 50, [0.5, math.nan] * 50])
def test_what_is_no_confidence_is_refused(confidences: list[float]) -> None:
    with pytest.raises(ValueError, match="confidences"):
        median_bounds(confidences, 0, radius=0.1, sigma=SIGMA, alpha=0.01)


@pytest.mark.parametrize(
    ("radius", "sigma", "alpha", "named"),
    [(-0.1, 0.5, 0.01, "radius"), (0.1, 0.0, 0.01, "sigma"), (0.1, 0.5, 0.0, "alpha")],
)
def test_settings_out_of_range_are_refused(radius: float, sigma: float, alpha: float, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        median_bounds([0.5] * 100, 0, radius=radius, sigma=sigma, alpha=alpha)
