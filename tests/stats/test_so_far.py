"""Bounds that hold at any time: how often they ever miss, computed exactly, and what they cost."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from smoothing_proxy.errors import ConfigError
from smoothing_proxy.stats.binomial import lower_bound
from smoothing_proxy.stats.per_label import Chosen, certify_presence
from smoothing_proxy.stats.percentile import median_bounds, order_statistic
from smoothing_proxy.stats.so_far import (
    certify_presence_so_far,
    lower_bound_so_far,
    median_bounds_so_far,
    order_statistic_so_far,
)
from smoothing_proxy.types import Votes

SIGMA = 0.25
LONGEST = 250


def ever(p: float, misses: Callable[[int, int], bool]) -> float:
    """The probability that draws of probability p ever come to a (k, n) that misses, n <= LONGEST; exact.

    misses: grows with k.
    """
    alive, missed, first = np.array([1.0]), 0.0, 0
    for n in range(1, LONGEST + 1):
        alive = np.append(alive * (1 - p), 0.0) + np.append(0.0, alive * p)
        while first <= n and not misses(first, n):
            first += 1
        missed += float(alive[first:].sum())
        alive[first:] = 0.0
    return missed


@pytest.mark.parametrize("p", [0.5, 0.6, 0.8, 0.95])
def test_the_lower_bound_is_ever_above_the_truth_with_a_probability_of_alpha_at_most(p: float) -> None:
    alpha = 0.05
    assert 0.1 * alpha < ever(p, lambda k, n: lower_bound_so_far(k, n, alpha) > p) <= alpha
    assert ever(p, lambda k, n: lower_bound(k, n, alpha) > p) > 2 * alpha, "a fixed number's bound would be"


@pytest.mark.parametrize("ratio", [0.25, 0.5, 1.0])
def test_the_order_statistic_ever_misses_its_percentile_with_a_probability_of_alpha_at_most(ratio: float) -> None:
    alpha = 0.1

    def misses(above: int, n: int) -> bool:
        k = order_statistic_so_far(n, ratio * SIGMA, SIGMA, alpha)
        return k is not None and above >= n - k + 1

    assert 0.0 < ever(float(norm.cdf(ratio)), misses) <= alpha / 2


@settings(deadline=None)
@given(st.integers(1, 400), st.integers(0, 400), st.sampled_from([0.05, 1e-3, 1e-9]))
def test_the_bound_grows_with_votes_and_never_beats_that_of_a_fixed_number(
    n: int, less: int, alpha: float
) -> None:
    k = max(0, n - less)
    bound = lower_bound_so_far(k, n, alpha)
    assert bound <= lower_bound(k, n, alpha)
    assert bound == 0.0 or 0.5 <= bound < k / n
    assert lower_bound_so_far(max(0, k - 1), n, alpha) <= bound


@pytest.mark.parametrize(("alpha", "fewest"), [(0.05, 6), (0.001, 12), (1e-6, 22)])
def test_so_many_draws_that_agree_prove_a_majority(alpha: float, fewest: int) -> None:
    assert lower_bound_so_far(fewest, fewest, alpha) > 0.5
    assert lower_bound_so_far(fewest - 1, fewest - 1, alpha) == 0.0


def test_many_draws_are_no_trouble() -> None:
    bound = lower_bound_so_far(90_000, 100_000, 1e-9)
    assert 0.89 < bound < lower_bound(90_000, 100_000, 1e-9)
    k = order_statistic_so_far(100_000, SIGMA, SIGMA, 1e-9)
    assert k is not None
    assert 0.9 * 100_000 * norm.sf(1.0) < k < (order_statistic(100_000, SIGMA, SIGMA, 1e-9) or 0)
    assert order_statistic_so_far(1000, 100 * SIGMA, SIGMA, 0.001) is None


def test_a_claim_and_its_confidence_are_bounded_by_them() -> None:
    claim, votes = Chosen("dog", present=True), Votes({"present": 95, "absent": 5}, failed=2)
    proof = certify_presence_so_far(claim, votes, threshold=0.5, sigma=SIGMA, alpha=0.001)
    fixed = certify_presence(claim, votes, threshold=0.5, sigma=SIGMA, alpha=0.001)
    assert (proof.present, proof.p_lower) == (True, lower_bound_so_far(95, 102, 0.001))
    assert 0 < proof.radius < fixed.radius
    unproven = certify_presence_so_far(
        Chosen("dog", present=False), votes, threshold=0.5, sigma=SIGMA, alpha=0.001
    )
    assert (unproven.present, unproven.radius) == (None, 0.0)

    confidences = [i / 100 for i in range(100)]
    interval = median_bounds_so_far(confidences, 0, radius=0.1, sigma=SIGMA, alpha=0.01)
    narrower = median_bounds(confidences, 0, radius=0.1, sigma=SIGMA, alpha=0.01)
    assert interval is not None
    assert narrower is not None
    assert interval.low < narrower.low <= narrower.high < interval.high
    assert median_bounds_so_far(confidences[:5], 0, radius=0.1, sigma=SIGMA, alpha=0.01) is None


def test_arguments_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match=r"0\.\.n"):
        lower_bound_so_far(3, 2, 0.001)
    with pytest.raises(ConfigError):
        lower_bound_so_far(2, 2, 0.0)
    with pytest.raises(ConfigError):
        order_statistic_so_far(10, math.inf, SIGMA, 0.001)
