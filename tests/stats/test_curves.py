from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom
from statsmodels.stats.proportion import proportion_confint

from smoothing_proxy.errors import ConfigError
from smoothing_proxy.stats.curves import (
    Interval,
    Judged,
    abstention_rate,
    average_certified_radius,
    certified_accuracy,
    share_of,
)

ABSTAINED = Judged(correct=False, radius=0.0, abstained=True)
FOLDER = [
    Judged(correct=True, radius=0.5),
    Judged(correct=True, radius=0.25),
    Judged(correct=False, radius=0.75),
    Judged(correct=True, radius=0.0),
    ABSTAINED,
]
INTERVALS: list[Interval] = ["clopper-pearson", "wilson"]

outcomes = st.lists(
    st.just(ABSTAINED) | st.builds(Judged, correct=st.booleans(), radius=st.floats(0.0, 4.0)),
    min_size=1,
    max_size=40,
)


def test_a_curve_counts_the_correct_pictures_certified_at_least_so_far() -> None:
    curve = certified_accuracy(FOLDER, [0.0, 0.25, 0.250001, 0.5, 0.75])
    assert [(point.radius, point.accuracy.count) for point in curve] == [
        (0.0, 3),
        (0.25, 2),
        (0.250001, 1),
        (0.5, 1),
        (0.75, 0),
    ]
    assert [point.accuracy.value for point in curve] == [0.6, 0.4, 0.2, 0.2, 0.0]
    assert {point.accuracy.total for point in curve} == {5}


def test_wrong_and_abstained_pictures_have_no_radius_in_the_average() -> None:
    assert average_certified_radius(FOLDER) == 0.15


def test_the_abstention_rate_counts_pictures_without_an_answer() -> None:
    share = abstention_rate(FOLDER)
    assert (share.count, share.total, share.value) == (1, 5, 0.2)
    assert share == share_of(1, 5)


@given(outcomes, st.lists(st.floats(0.0, 4.0), min_size=2, max_size=6))
def test_a_curve_never_rises(folder: list[Judged], radii: list[float]) -> None:
    values = [point.accuracy.value for point in certified_accuracy(folder, sorted(radii))]
    assert values == sorted(values, reverse=True)


@given(outcomes)
def test_the_average_radius_is_the_area_under_the_curve(folder: list[Judged]) -> None:
    steps = sorted({0.0, *(outcome.radius for outcome in folder)})
    shares = [point.accuracy.value for point in certified_accuracy(folder, steps)]
    area = sum((b - a) * share for a, b, share in zip(steps, steps[1:], shares[1:], strict=False))
    assert average_certified_radius(folder) == pytest.approx(area, abs=1e-12)


@given(st.integers(1, 300).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
@pytest.mark.parametrize("interval", INTERVALS)
def test_an_interval_is_statsmodels_and_holds_the_share(interval: Interval, counted: tuple[int, int]) -> None:
    count, total = counted
    share = share_of(count, total, interval=interval)
    method = "beta" if interval == "clopper-pearson" else "wilson"
    expected = proportion_confint(count, total, alpha=0.05, method=method)
    assert (share.low, share.high) == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert 0.0 <= share.low <= share.value <= share.high <= 1.0


@pytest.mark.parametrize("interval", INTERVALS)
def test_intervals_reach_the_edges_exactly(interval: Interval) -> None:
    for total in range(1, 60):
        assert share_of(0, total, interval=interval).low == 0.0
        assert share_of(total, total, interval=interval).high == 1.0


@pytest.mark.parametrize("total", [1, 7, 50])
@pytest.mark.parametrize("confidence", [0.9, 0.99])
def test_the_exact_interval_covers_at_every_share(total: int, confidence: float) -> None:
    shares = [share_of(count, total, confidence=confidence) for count in range(total + 1)]
    low, high = (np.array([getattr(share, side) for share in shares]) for side in ("low", "high"))
    for p in np.linspace(0.0, 1.0, 301):
        covering = (low <= p) & (p <= high)
        assert binom.pmf(np.flatnonzero(covering), total, p).sum() >= confidence - 1e-12


@pytest.mark.parametrize("radius", [-0.1, math.nan, math.inf])
def test_a_radius_is_a_distance(radius: float) -> None:
    with pytest.raises(ValueError, match="radius"):
        Judged(correct=True, radius=radius)
    with pytest.raises(ValueError, match="radius"):
        certified_accuracy(FOLDER, [radius])


@pytest.mark.parametrize(("correct", "radius"), [(True, 0.0), (False, 0.1)])
def test_an_abstention_is_neither_correct_nor_certified(correct: bool, radius: float) -> None:
    with pytest.raises(ValueError, match="abstention"):
        Judged(correct=correct, radius=radius, abstained=True)


def test_no_pictures_have_no_figures() -> None:
    with pytest.raises(ValueError, match="total"):
        certified_accuracy([], [0.0])
    with pytest.raises(ValueError, match="total"):
        abstention_rate([])
    with pytest.raises(ValueError, match="no outcomes"):
        average_certified_radius([])


@pytest.mark.parametrize(("count", "total"), [(2, 1), (-1, 3)])
def test_a_share_is_a_part(count: int, total: int) -> None:
    with pytest.raises(ValueError, match="count of total"):
        share_of(count, total)


def test_settings_of_an_interval_are_checked() -> None:
    with pytest.raises(ConfigError, match="did you mean 'wilson'"):
        share_of(1, 2, interval="wilsn")  # type: ignore[arg-type]
    for confidence in (0.0, 1.0, math.nan, 95.0):
        with pytest.raises(ConfigError, match="confidence"):
            share_of(1, 2, confidence=confidence)
