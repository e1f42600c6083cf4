from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import ndtri

from smoothing_proxy.errors import ConfigError
from smoothing_proxy.stats.certificates import certify_votes
from smoothing_proxy.stats.planning import (
    draws_for_radius,
    largest_radius,
    require_certifiable,
    smallest_n,
)
from smoothing_proxy.types import Votes


def certifies(k: int, n: int, radius: float, *, sigma: float, alpha: float) -> bool:
    certificate = certify_votes(Votes({"cat": k, "dog": n - k}), "cat", sigma=sigma, alpha=alpha)
    return certificate.label == "cat" and certificate.radius >= radius


@pytest.mark.parametrize(
    ("alpha", "n"), [(0.9, 1), (0.5, 2), (0.05, 5), (0.01, 7), (0.001, 10), (2.0**-10, 11), (1e-12, 40)]
)
def test_the_fewest_draws_that_can_certify(alpha: float, n: int) -> None:
    assert smallest_n(alpha) == n


@given(st.floats(-100, -0.001).map(lambda exponent: 10.0**exponent))
def test_unanimous_votes_certify_from_the_smallest_n_on(alpha: float) -> None:
    n = smallest_n(alpha)
    assert Fraction(alpha) * 2**n > 1 >= Fraction(alpha) * 2 ** (n - 1)
    assert largest_radius(n, alpha, 0.25) > 0.0 == largest_radius(n - 1, alpha, 0.25)


@pytest.mark.parametrize("n", [0, 1, 9])
def test_an_n_that_can_never_certify_is_refused_with_the_smallest_that_can(n: int) -> None:
    with pytest.raises(ConfigError, match="use n >= 10"):
        require_certifiable(n, 0.001)


def test_an_n_that_can_certify_is_accepted() -> None:
    require_certifiable(10, 0.001)


@given(st.integers(10, 1_000_000), st.floats(0.05, 2.0))
def test_the_largest_radius_is_that_of_unanimous_votes(n: int, sigma: float) -> None:
    largest = largest_radius(n, 0.001, sigma)
    assert largest == certify_votes(Votes({"cat": n}), "cat", sigma=sigma, alpha=0.001).radius
    assert largest == pytest.approx(sigma * ndtri(0.001 ** (1 / n)), rel=1e-8)


@pytest.mark.parametrize(
    ("ratio", "n"), [(0, 10), (0.25, 14), (0.5, 19), (1, 40), (1.5, 100), (2, 301), (2.5, 1109), (5, 24_098_087)]
)
@pytest.mark.parametrize("sigma", [0.12, 0.25, 1.0])
def test_draws_for_a_radius_when_all_agree(ratio: float, n: int, sigma: float) -> None:
    assert draws_for_radius(ratio * sigma, sigma, 0.001) == n


@pytest.mark.parametrize("p", [0.75, 0.9, 0.99, 1.0])
@pytest.mark.parametrize("ratio", [0.0, 0.25, 0.5])
@pytest.mark.parametrize("alpha", [0.05, 0.001])
def test_draws_for_a_radius_are_the_first_that_certify_it(p: float, ratio: float, alpha: float) -> None:
    sigma = 0.25
    n = draws_for_radius(ratio * sigma, sigma, alpha, p)

    def enough(draws: int) -> bool:
        votes = math.floor(Fraction(str(p)) * draws)
        return certifies(votes, draws, ratio * sigma, sigma=sigma, alpha=alpha)

    assert enough(n)
    assert not any(enough(draws) for draws in range(1, n))


@given(st.floats(0.0, 2.0), st.floats(0.05, 1.0), st.floats(0.001, 0.05))
def test_one_draw_fewer_than_planned_does_not_certify(ratio: float, sigma: float, alpha: float) -> None:
    radius = ratio * sigma
    n = draws_for_radius(radius, sigma, alpha)
    assert certifies(n, n, radius, sigma=sigma, alpha=alpha)
    assert not certifies(n - 1, n - 1, radius, sigma=sigma, alpha=alpha)


@pytest.mark.parametrize(
    ("radius", "p", "message"),
    [
        (1.0, 0.84, "can never certify"),
        (0.0, 0.5, "can never certify"),
        (9.0, 1.0, "can never certify"),
        (8.0, 1.0, "smaller radius"),
        (-1.0, 1.0, "radius is"),
        (math.nan, 1.0, "radius is"),
        (0.5, 0.0, "share of votes"),
        (0.5, 1.1, "share of votes"),
        (0.5, math.nan, "share of votes"),
    ],
)
def test_a_radius_out_of_reach_is_refused(radius: float, p: float, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        draws_for_radius(radius, 1.0, 0.001, p)
