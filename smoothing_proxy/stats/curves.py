"""What a folder of certificates amounts to: certified accuracy by radius, average certified radius, abstentions.

Shares come with two-sided binomial intervals, since a folder is a sample of the pictures to come.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from smoothing_proxy.errors import ConfigError, nearest
from smoothing_proxy.stats.binomial import lower_bound, upper_bound

__all__ = [
    "CurvePoint",
    "Interval",
    "Judged",
    "Share",
    "abstention_rate",
    "average_certified_radius",
    "certified_accuracy",
    "share_of",
]

Interval: TypeAlias = Literal["clopper-pearson", "wilson"]


@dataclass(frozen=True, slots=True)
class Judged:
    """One picture's certificate, judged.

    correct: the certified label is the reference label. radius: l2, on the [0, 1] pixel scale, >= 0; of one space
    for the whole folder, where noise was added or the user's own. abstained: then correct is False and radius 0.0.
    """

    correct: bool
    radius: float
    abstained: bool = False

    def __post_init__(self) -> None:
        if not 0.0 <= self.radius < math.inf:
            raise ValueError(f"a certified radius is finite and not negative: {self.radius!r}")
        if self.abstained and (self.correct or self.radius > 0.0):
            raise ValueError(f"an abstention is not correct and has radius 0.0: {self!r}")


@dataclass(frozen=True, slots=True)
class Share:
    """count of total, with a two-sided confidence interval: value, low and high in [0, 1]."""

    count: int
    total: int
    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """radius: as asked for. accuracy: the share of pictures certified correctly at `radius` or more."""

    radius: float
    accuracy: Share


def certified_accuracy(
    outcomes: Sequence[Judged],
    radii: Iterable[float],
    *,
    confidence: float = 0.95,
    interval: Interval = "clopper-pearson",
) -> tuple[CurvePoint, ...]:
    """The share of pictures with the correct label and a certified radius >= r, for each r of `radii`, in order.

    At r = 0 it is the share answered correctly; wrong and abstained pictures count in the total at every r.
    Each point has its own interval (see `share_of`): the band is not simultaneous.
    Raises ValueError when there are no outcomes or a radius is negative or not finite; ConfigError as `share_of`.
    """
    return tuple(_point(outcomes, radius, confidence, interval) for radius in radii)


def average_certified_radius(outcomes: Sequence[Judged]) -> float:
    """ACR: the mean radius over all pictures, 0 for wrong and abstained ones (Zhai et al. 2020, arXiv 2001.02378).

    Raises ValueError when there are no outcomes.
    """
    if not outcomes:
        raise ValueError("no outcomes: the average certified radius of no pictures is undefined")
    return math.fsum(o.radius for o in outcomes if o.correct) / len(outcomes)


def abstention_rate(
    outcomes: Sequence[Judged], *, confidence: float = 0.95, interval: Interval = "clopper-pearson"
) -> Share:
    """The share of pictures without an answer. Raises as `share_of`."""
    return share_of(sum(o.abstained for o in outcomes), len(outcomes), confidence=confidence, interval=interval)


def share_of(count: int, total: int, *, confidence: float = 0.95, interval: Interval = "clopper-pearson") -> Share:
    """count / total with its interval at `confidence`, in (0, 1).

    "clopper-pearson" covers with at least `confidence`, whatever the share; it is the certificates' own bound, so
    0 of n, n of n and confidences near 1 come out exact. "wilson" (statsmodels' proportion_confint) is shorter and
    covers with about `confidence` on average.
    Raises ValueError unless 0 <= count <= total and total >= 1; ConfigError for confidence outside (0, 1) or an
    unknown interval.
    """
    if not (total >= 1 and 0 <= count <= total):
        raise ValueError(f"expected count of total with total >= 1, not {count} of {total}")
    if not 0.0 < confidence < 1.0:
        raise ConfigError(f"confidence is {confidence!r}: expected a probability between 0 and 1, such as 0.95")
    if interval not in get_args(Interval):
        raise ConfigError(f"unknown interval {interval!r}{nearest(interval, get_args(Interval))}")
    bounds = _clopper_pearson if interval == "clopper-pearson" else _wilson
    low, high = bounds(count, total, 1.0 - confidence)
    return Share(count, total, count / total, low, high)


def _point(outcomes: Sequence[Judged], radius: float, confidence: float, interval: Interval) -> CurvePoint:
    if not 0.0 <= radius < math.inf:
        raise ValueError(f"a radius is finite and not negative: {radius!r}")
    certified = sum(o.correct and o.radius >= radius for o in outcomes)
    return CurvePoint(radius, share_of(certified, len(outcomes), confidence=confidence, interval=interval))


def _clopper_pearson(count: int, total: int, alpha: float) -> tuple[float, float]:
    return lower_bound(count, total, alpha / 2), upper_bound(count, total, alpha / 2)


def _wilson(count: int, total: int, alpha: float) -> tuple[float, float]:
    from statsmodels.stats.proportion import proportion_confint

    low, high = proportion_confint(count, total, alpha=alpha, method="wilson")
    # The formula's edges are 0 and 1 only up to rounding.
    return (0.0 if count == 0 else max(0.0, float(low))), (1.0 if count == total else min(1.0, float(high)))
