"""Sequential boundaries: their published values, their error computed exactly, and what they save."""

from __future__ import annotations

import math
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from scipy import stats

from smoothing_proxy.smoothing.plan import ladder_of
from smoothing_proxy.smoothing.settings import Smoothing
from smoothing_proxy.stats.certificates import required_probability
from smoothing_proxy.stats.mixture import log_mixture
from smoothing_proxy.stats.planning import fewest_unanimous
from smoothing_proxy.stats.reaching import operating, reach_probability
from smoothing_proxy.stats.sequential import Boundary, boundary, error_of, ladder_error, mixture_boundary

ALPHA = 0.001


@cache
def made(ratio: float, n_max: int) -> Boundary:
    return boundary(required_probability(ratio, 1.0), ALPHA, n_max)


@pytest.mark.parametrize(
    ("ratio", "first", "counts"),
    [
        (0.0, 12, {50: 40, 100: 71, 500: 300, 1000: 571, 10_000: 5238}),
        (0.25, 16, {50: 44, 100: 80, 500: 347, 1000: 667, 10_000: 6217}),
        (0.5, 22, {50: 47, 100: 87, 500: 389, 1000: 755, 10_000: 7129}),
        (1.0, 47, {50: 50, 100: 97, 500: 453, 1000: 889, 10_000: 8578}),
        (1.5, 117, {50: 51, 100: 101, 500: 487, 1000: 964, 10_000: 9441}),
        (2.0, 351, {50: 51, 100: 101, 500: 499, 1000: 994, 10_000: 9835}),
        (2.5, 1296, {500: 501, 1000: 1001, 10_000: 9968}),
    ],
)
def test_the_mixture_boundary_has_its_published_values(ratio: float, first: int, counts: dict[int, int]) -> None:
    up = mixture_boundary(10_000, float(stats.norm.cdf(ratio)), ALPHA)
    assert {n: int(up[n]) for n in counts} == counts
    assert int(np.flatnonzero(up <= np.arange(10_001))[0]) == first


@pytest.mark.parametrize("n_max", [100, 300, 1000])
@pytest.mark.parametrize("ratio", [0.0, 0.25, 0.5, 1.0, 1.5, 2.0])
def test_the_error_is_exactly_at_most_alpha(ratio: float, n_max: int) -> None:
    made_here = made(ratio, n_max)
    assert made_here.error == error_of(made_here.up, made_here.p0) <= ALPHA
    if made_here.first_crossing < n_max / 2:
        assert made_here.error > 0.5 * ALPHA, "alpha that is not used costs queries"


def test_reaching_agrees_with_the_binomial_distribution_and_with_simulation() -> None:
    never = np.arange(51) + 1
    never[50] = 40
    assert reach_probability(0.7, never) == pytest.approx(stats.binom.sf(39, 50, 0.7), rel=1e-8)
    up, rng = made(0.5, 300).up, np.random.default_rng(1)
    counts = (rng.random((20_000, 300)) < 0.78).cumsum(axis=1)
    simulated = float((counts >= up[1:]).any(axis=1).mean())
    assert reach_probability(0.78, up) == pytest.approx(simulated, abs=0.012)


def test_giving_up_only_loses_certificates() -> None:
    """And few of them: the proof never rests on it."""
    made_here = made(1.0, 1000)
    for p in (0.6, 0.84, 0.9, 0.95, 0.99):
        with_it = operating(p, made_here.up, made_here.low).certifies
        without = reach_probability(p, made_here.up)
        assert without - 0.15 <= with_it <= without + 1e-9
    assert operating(0.3, made_here.up, made_here.low).draws < 20, "hopeless is soon given up"
    assert operating(1.0, made_here.up, made_here.low).draws == made_here.first_crossing


def test_giving_up_agrees_with_the_recursion_written_out() -> None:
    made_here, n_max = made(0.5, 100), 100
    value = np.zeros(n_max + 2)
    value[int(made_here.up[n_max]) :] = 5.0 * n_max
    for n in range(n_max - 1, -1, -1):
        k = np.arange(n + 1)
        q = (1 + k) / (1.25 + n)
        after = value.copy()
        value = np.zeros(n_max + 2)
        value[: n + 1] = np.maximum(0.0, -1 + q * after[1 : n + 2] + (1 - q) * after[: n + 1])
        value[int(min(made_here.up[n], n + 1)) :] = 5.0 * n_max
        zero = np.flatnonzero(value[: n + 1] == 0)
        assert made_here.low[n] == (zero[-1] if len(zero) else -1)


@pytest.mark.parametrize("alpha", [1e-2, 1e-9])
@pytest.mark.parametrize("ratio", [0.0, 1.0, 3.5])
def test_a_hundred_thousand_draws_neither_overflow_nor_lose_a_number(ratio: float, alpha: float) -> None:
    made_here = boundary(required_probability(ratio, 1.0), alpha, 100_000)
    n = np.arange(100_001)
    assert np.isfinite(log_mixture(n, np.minimum(made_here.up, n), made_here.p0)).all()
    assert (np.diff(made_here.up) >= 0).all()
    assert (made_here.up > made_here.p0 * n).all()
    limit = math.log(alpha) / math.log(made_here.p0)
    assert limit <= made_here.first_crossing <= 1.5 * limit + 10


@pytest.mark.parametrize(
    ("p0", "alpha", "n_max"), [(0.4, 0.01, 10), (1.0, 0.01, 10), (0.5, 0.0, 10), (0.5, 0.1, 0)]
)
def test_settings_out_of_range_are_refused(p0: float, alpha: float, n_max: int) -> None:
    with pytest.raises(ValueError, match="expected"):
        boundary(p0, alpha, n_max)


@pytest.mark.parametrize(
    ("alpha", "n_max", "ratios"),
    [(0.001, 1000, (0.25, 0.5, 1.0)), (0.05, 500, (0.0, 0.05)), (0.1, 500, (0.05, 0.1)), (0.2, 500, (0.05, 0.15))],
)
def test_a_ladder_has_one_error_for_all_its_rungs(alpha: float, n_max: int, ratios: tuple[float, ...]) -> None:
    """Between two rungs the label is false on the upper one, every other label on the lowest already."""
    smoothing = Smoothing(sigma=1.0, alpha=alpha, target_radii=ratios, max_queries=n_max)
    rungs = [rung for _, rung in ladder_of(smoothing)]
    for lower, upper in pairwise(rungs):
        for p in np.linspace(lower.p0, upper.p0, 7):
            error = reach_probability(float(p), upper.up) + reach_probability(1 - float(p), rungs[0].up)
            assert error <= alpha
    assert ladder_error(rungs) <= alpha
    naive = [boundary(required_probability(ratio, 1.0), alpha, n_max) for ratio in ratios]
    assert (ladder_error(naive) > alpha) == (alpha >= 0.05), "where each rung alone would have taken all of alpha"


@pytest.mark.parametrize(("ratio", "alpha", "enough"), [(0.0, 0.001, 11), (0.0, 0.01, 8), (1.0, 0.001, 40)])
def test_the_fewest_draws_of_a_target_can_prove_it_and_one_fewer_cannot(
    ratio: float, alpha: float, enough: int
) -> None:
    assert fewest_unanimous(ratio, 1.0, alpha) == enough
    p0 = required_probability(ratio, 1.0)
    assert boundary(p0, alpha, enough).certifies(enough, enough)
    assert not boundary(p0, alpha, enough - 1).certifies(enough - 1, enough - 1)


def test_a_target_beyond_the_draws_can_never_be_proven() -> None:
    hopeless = made(2.0, 100)
    assert hopeless.first_crossing == 100
    assert not hopeless.certifies(100, 100)
    assert hopeless.is_hopeless(0, 0)
