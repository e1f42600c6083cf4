"""Phi and its inverse never lie on the wrong side."""

from __future__ import annotations

import math

import mpmath as mp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smoothing_proxy.stats.normal import probability_down, probability_up, quantile_down, quantile_up
from tests.stats.exact_binomial import normal_probability

probabilities = st.floats(1e-12, 1 - 1e-12) | st.floats(-290, -1).map(lambda e: 10.0**e)
near_one = st.floats(-15, -1).map(lambda e: 1 - 10.0**e)


@settings(deadline=None)
@given(probabilities | near_one)
def test_a_quantile_is_rounded_outward_and_stays_close(p: float) -> None:
    """By Phi, which has no such trouble as its inverse: Phi(down) <= p <= Phi(up)."""
    with mp.workdps(60):
        assert normal_probability(quantile_down(p)) <= mp.mpf(p) <= normal_probability(quantile_up(p))
    assert quantile_up(p) - quantile_down(p) <= 1e-10


@settings(deadline=None)
@given(st.floats(-37, 9))
def test_a_probability_is_rounded_outward_and_stays_close(z: float) -> None:
    exact = normal_probability(z)
    assert probability_down(z) <= exact <= probability_up(z)
    assert probability_up(z) <= probability_down(z) * (1 + 1e-10) + 1e-299


@pytest.mark.parametrize("rounded", [quantile_down, quantile_up])
def test_certain_and_impossible_have_no_finite_quantile(rounded: object) -> None:
    assert callable(rounded)
    assert (rounded(0.0), rounded(1.0)) == (-math.inf, math.inf)
    assert math.isnan(rounded(math.nan))


def test_probabilities_end_at_one_and_never_reach_nothing() -> None:
    assert probability_up(40.0) == probability_up(math.inf) == 1.0
    assert probability_up(-60.0) > 0.0
    assert probability_down(-60.0) == 0.0
