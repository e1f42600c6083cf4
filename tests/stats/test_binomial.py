from __future__ import annotations

import math
from fractions import Fraction

import mpmath as mp
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.stats import binom, binomtest
from statsmodels.stats.proportion import proportion_confint

from smoothing_proxy.errors import ConfigError
from smoothing_proxy.stats.binomial import lower_bound, tail_at_least, two_sided_at_half, upper_bound
from tests.stats.exact_binomial import tail

ALPHAS = [0.5, 0.05, 1e-3, 1e-6, 1e-12]
SIZES = [1, 2, 3, 10, 20, 100, 300, 1_000, 10_000, 100_000, 1_000_000, 10_000_000]

counts = st.integers(1, 3_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
alphas = st.floats(-12, -0.01).map(lambda exponent: 10.0**exponent)


def spread(n: int) -> list[int]:
    """Counts at both ends of 0..n and in between."""
    near_ends = {0, 1, 2, 5, n - 5, n - 2, n - 1, n}
    between = {round(n * share) for share in (0.1, 0.3, 0.5, 0.55, 0.7, 0.9, 0.99, 0.9999)}
    return sorted(k for k in near_ends | between if 0 <= k <= n)


ROUNDED_BY = 1e-12


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("alpha", ALPHAS)
def test_a_lower_bound_is_below_the_true_one_and_next_to_it(n: int, alpha: float) -> None:
    for k in spread(n):
        bound = lower_bound(k, n, alpha)
        if k == 0:
            assert bound == 0.0
        else:
            assert tail(k, n, bound) <= alpha < tail(k, n, mp.mpf(bound) + ROUNDED_BY), k


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("alpha", ALPHAS)
def test_an_upper_bound_is_above_the_true_one_and_next_to_it(n: int, alpha: float) -> None:
    for k in spread(n):
        complement = 1 - mp.mpf(upper_bound(k, n, alpha))
        if k == n:
            assert complement == 0
        else:
            assert tail(n - k, n, complement) <= alpha < tail(n - k, n, complement + ROUNDED_BY), k


@given(counts, alphas)
@example((1, 1), 1e-100)
@example((2, 3), 1e-100)
def test_no_lower_bound_is_above_the_true_one(votes: tuple[int, int], alpha: float) -> None:
    k, n = votes
    assert tail(k, n, lower_bound(k, n, alpha)) <= alpha or k == 0


@given(counts, alphas, st.integers(1, 64))
def test_the_tail_is_at_most_alpha_below_a_bound_too(votes: tuple[int, int], alpha: float, steps: int) -> None:
    k, n = votes
    bound = lower_bound(k, n, alpha)
    assert tail_at_least(k, n, bound * (1 - steps * 2.0**-53)) <= alpha or k == 0


@given(st.integers(1, 60).flatmap(lambda n: st.tuples(st.integers(1, n), st.just(n))), alphas)
def test_the_tail_at_a_bound_in_exact_fractions_is_at_most_alpha(votes: tuple[int, int], alpha: float) -> None:
    k, n = votes
    p = Fraction(lower_bound(k, n, alpha))
    exact = sum((math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k, n + 1)), Fraction(0))
    assert exact <= Fraction(alpha)


@given(counts, st.floats(0.0, 1.0))
def test_a_tail_is_rounded_up_and_no_further_than_it_says(votes: tuple[int, int], p: float) -> None:
    k, n = votes
    exact = tail(k, n, p)
    rounded = tail_at_least(k, n, p)
    assert exact <= rounded <= max(exact * (1 + 8e-14 * math.sqrt(n)), 1e-200)


@pytest.mark.parametrize(
    ("k", "n", "p", "expected"),
    [
        (0, 0, 0.3, 1.0),
        (0, 9, 0.0, 1.0),
        (1, 9, 0.0, 0.0),
        (9, 9, 1.0, 1.0),
        (1, 1, 0.25, 0.25),
        (2, 2, 0.5, 0.25),
    ],
)
def test_tails_at_the_edges(k: int, n: int, p: float, expected: float) -> None:
    assert tail_at_least(k, n, p) == pytest.approx(expected, rel=1e-13)


def test_a_tail_too_small_to_be_trusted_is_not_zero() -> None:
    assert tail_at_least(10_000, 10_000, 0.5) == 1e-200


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("n", [1, 10, 1_000, 1_000_000])
def test_unanimous_votes_have_the_closed_form(n: int, alpha: float) -> None:
    assert lower_bound(n, n, alpha) == pytest.approx(alpha ** (1 / n), rel=1e-12)
    assert upper_bound(0, n, alpha) == pytest.approx(-math.expm1(math.log(alpha) / n), rel=1e-12, abs=1e-13)


def test_no_draws_bound_nothing() -> None:
    assert (lower_bound(0, 0, 0.001), upper_bound(0, 0, 0.001)) == (0.0, 1.0)


@pytest.mark.parametrize(("k", "n"), [(1, 2), (9, 10), (60, 100), (999, 1_000), (99_000, 100_000)])
@pytest.mark.parametrize("alpha", [0.05, 0.001])
def test_bounds_agree_with_statsmodels(k: int, n: int, alpha: float) -> None:
    expected = proportion_confint(k, n, alpha=2 * alpha, method="beta")
    assert (lower_bound(k, n, alpha), upper_bound(k, n, alpha)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("n", [1, 2, 5, 10, 30, 200])
@pytest.mark.parametrize("alpha", [0.3, 0.05, 0.001])
def test_a_bound_is_false_with_probability_at_most_alpha_at_every_p(n: int, alpha: float) -> None:
    k = np.arange(n + 1)
    bounds = np.array([lower_bound(int(i), n, alpha) for i in k])
    just_false = np.nextafter(bounds[1:], 0.0)
    for p in [*np.linspace(0.0, 1.0, 501), *just_false]:
        assert binom.pmf(k[bounds > p], n, p).sum() <= alpha * (1 + 1e-12)


@pytest.mark.parametrize("n", [100, 1_000])
@pytest.mark.parametrize("p", [0.3, 0.5, 0.8, 0.99, 0.999])
@pytest.mark.parametrize("alpha", [0.05, 0.001])
def test_simulated_bounds_are_false_no_more_often_than_alpha(n: int, p: float, alpha: float) -> None:
    runs = 200_000
    rng = np.random.default_rng(20260701)
    votes = rng.binomial(n, p, size=runs)
    seen = np.unique(votes)
    bounds = np.array([lower_bound(int(k), n, alpha) for k in seen])
    false = np.isin(votes, seen[bounds > p]).mean()
    assert false <= alpha + 4 * math.sqrt(alpha * (1 - alpha) / runs)


@given(st.integers(0, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_two_sided_test_is_scipys(votes: tuple[int, int]) -> None:
    k, n = votes
    expected = binomtest(k, n, 0.5).pvalue if n else 1.0
    assert two_sided_at_half(k, n) == pytest.approx(expected, rel=1e-11)
    assert two_sided_at_half(k, n) == two_sided_at_half(n - k, n)


@pytest.mark.parametrize(("k", "n"), [(2, 1), (-1, 5), (0, -1)])
def test_counts_that_cannot_be_are_the_callers_mistake(k: int, n: int) -> None:
    for bound in (lower_bound, upper_bound, tail_at_least):
        with pytest.raises(ValueError, match="k must be one of"):
            bound(k, n, 0.5)
    with pytest.raises(ValueError, match="k must be one of"):
        two_sided_at_half(k, n)


@pytest.mark.parametrize("alpha", [0.0, 1e-101, 1.0, -0.1, 1.5, math.nan, math.inf])
def test_an_alpha_that_is_no_probability_is_refused(alpha: float) -> None:
    for bound in (lower_bound, upper_bound):
        with pytest.raises(ConfigError, match="alpha"):
            bound(1, 2, alpha)


@pytest.mark.parametrize("p", [-0.1, 1.1, math.nan])
def test_a_p_that_is_no_probability_is_refused(p: float) -> None:
    with pytest.raises(ValueError, match="p must be a probability"):
        tail_at_least(1, 2, p)
