"""Target radius: stop as soon as the answer is proven, or hopeless, with the whole run's error still at alpha.

One stream of draws and no selection phase: every label is tested at once. A label is certified the first time that
its count reaches `up`; the sum of the false ones' chances is at most reach(p0) + reach(1 - p0), because the chance
to reach is convex on [0, p0] and zero at zero. Giving up is not binding: the proof never rests on it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from smoothing_proxy.stats.mixture import crossing_counts
from smoothing_proxy.stats.reaching import reach_probability

__all__ = ["Boundary", "boundary", "error_of", "giving_up", "ladder_error", "mixture_boundary"]

Ints = npt.NDArray[np.int64]

CALIBRATED_UP_TO = 20_000
"""Draws; above this, the boundary that is valid without an end costs little and is computed at once."""

WORTH = 5.0
"""What a certificate is worth, in n_max queries: what giving up weighs the queries against."""

TOLERANCE = 1e-4
"""Of the calibrated threshold."""


@dataclass(frozen=True, eq=False)
class Boundary:
    """When to stop, for one target. Counts are of the leading label, failed draws count in n alone.

    p0: the probability that has to be exceeded, 1/2 <= p0 < 1. alpha: error, in (0, 1).
    n_max: the most draws. up: int [n_max + 1], votes that certify; above n where none do.
    low: int [n_max + 1], votes at which it is not worth going on; -1 where it always is.
    error: the exact probability bound that this boundary has, <= alpha.
    """

    p0: float
    alpha: float
    n_max: int
    up: Ints
    low: Ints
    error: float

    @property
    def first_crossing(self) -> int:
        """n1: the fewest draws that certify, if they all agree."""
        return self.fewest_more(0, 0)

    def certifies(self, n: int, k: int) -> bool:
        """Whether k votes of n draws prove the label."""
        return bool(k >= self.up[n])

    def is_hopeless(self, n: int, k: int) -> bool:
        """Whether to give up at k votes of n draws for the leading label."""
        return n >= self.n_max or bool(k <= self.low[n])

    def fewest_more(self, n: int, k: int) -> int:
        """The fewest further draws that could certify; what is left of n_max when none could."""
        m = np.arange(1, self.n_max - n + 1)
        enough = np.flatnonzero(k + m >= self.up[n + 1 :])
        return int(m[enough[0]]) if len(enough) else self.n_max - n


def boundary(p0: float, alpha: float, n_max: int) -> Boundary:
    """The calibrated boundary with an exact last look. p0: certificates.required_probability of the target radius.

    Above CALIBRATED_UP_TO draws it is the mixture boundary at alpha / 2, valid for any number of draws: alpha / 2
    for a label at p0, and as much for all others.
    Raises ValueError outside of 1/2 <= p0 < 1, 0 < alpha < 1, n_max >= 1.
    """
    if not (0.5 <= p0 < 1 and 0 < alpha < 1 and n_max >= 1):
        raise ValueError(f"p0 {p0}, alpha {alpha}, n_max {n_max}: expected in [1/2, 1), in (0, 1), >= 1")
    if n_max > CALIBRATED_UP_TO:
        up = mixture_boundary(n_max, p0, alpha / 2)
        return Boundary(p0, alpha, n_max, up, giving_up(up), error=alpha)
    up = _with_last_look(_calibrated(n_max, p0, alpha), p0, alpha)
    return Boundary(p0, alpha, n_max, up, giving_up(up), error=error_of(up, p0))


def mixture_boundary(n_max: int, p0: float, alpha: float) -> Ints:
    """up of h = ln(1/alpha), which holds at every n without an end (Ville)."""
    return crossing_counts(n_max, p0, math.log(1.0 / alpha))


def error_of(up: Ints, p0: float) -> float:
    """The most probability that any set of labels, none above p0, has to certify one of them."""
    return reach_probability(p0, up) + reach_probability(1.0 - p0, up)


def ladder_error(ladder: Sequence[Boundary]) -> float:
    """The most probability that a ladder of targets proves something false; ladder: smallest p0 first.

    A label whose probability lies between two rungs is false on the upper one only, while every other label is
    false on the lowest one already: reach_j(p) + reach_0(1 - p), convex in p, so that the ends of each interval
    are its worst. Below the lowest rung it is that rung's own error.
    """
    first = ladder[0]
    errors = [first.error]
    for lower, upper in pairwise(ladder):
        errors += [
            reach_probability(p, upper.up) + reach_probability(1.0 - p, first.up) for p in (lower.p0, upper.p0)
        ]
    return max(errors)


def _calibrated(n_max: int, p0: float, alpha: float) -> Ints:
    """up of the smallest h whose error is at most alpha / 2: the other half is for the last look."""
    valid = math.log(1.0 / alpha) + 2 * math.log(2.0)
    high, up_high = valid, crossing_counts(n_max, p0, valid)
    low, up_low = 0.0, crossing_counts(n_max, p0, 0.0)
    while high - low > TOLERANCE:
        middle = (low + high) / 2
        up = crossing_counts(n_max, p0, middle, (up_low, up_high))
        if error_of(up, p0) <= alpha / 2:
            high, up_high = middle, up
        else:
            low, up_low = middle, up
    return up_high


def _with_last_look(up: Ints, p0: float, alpha: float) -> Ints:
    """Lower up[n_max] as far as the error stays at alpha. The error is computed again for what is returned."""
    fails, holds = int(p0 * (len(up) - 1)), int(up[-1])
    while holds - fails > 1:
        middle = (fails + holds) // 2
        if error_of(_ending(up, middle), p0) <= alpha:
            holds = middle
        else:
            fails = middle
    return _ending(up, holds)


def _ending(up: Ints, last: int) -> Ints:
    changed = up.copy()
    changed[-1] = last
    return changed


def giving_up(up: Ints) -> Ints:
    """low: the most votes at which expected queries outweigh what a certificate is worth; -1 for none.

    Backward over (n, k): V(n, k) = max(0, -1 + q V(n+1, k+1) + (1 - q) V(n+1, k)), q = (1 + k) / (1.25 + n), with
    V = WORTH n_max where certified. V grows with k, so that one number per n says where it is zero, and only
    counts between that number of the next draw and `up` need be looked at.
    """
    n_max = len(up) - 1
    prize = WORTH * n_max
    low = np.full(n_max + 1, -1, dtype=np.int64)
    low[n_max] = up[n_max] - 1
    first, value = int(up[n_max]), np.zeros(0)  # V(n + 1, k) for k = first, first + 1, ... below up[n + 1]
    for n in range(n_max - 1, -1, -1):
        counts = np.arange(max(0, first - 1), min(int(up[n]), n + 1))
        if len(counts):
            here = _value(counts + 1, first, value, int(up[n + 1]), prize)
            stay = _value(counts, first, value, int(up[n + 1]), prize)
            q = (1.0 + counts) / (1.25 + n)
            worth = -1.0 + q * here + (1.0 - q) * stay
            positive = int(np.argmax(worth > 0.0)) if bool((worth > 0.0).any()) else len(counts)
            first = int(counts[0]) + positive
            value = worth[positive:]
        low[n] = first - 1
    return low


def _value(
    counts: Ints, first: int, value: npt.NDArray[np.float64], up: int, prize: float
) -> npt.NDArray[np.float64]:
    """V of the next draw at these counts: 0 below first, the prize from `up` on."""
    result = np.zeros(len(counts))
    inside = (counts >= first) & (counts < up)
    result[inside] = value[counts[inside] - first]
    result[counts >= up] = prize
    return result
