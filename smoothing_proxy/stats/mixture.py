"""The Beta mixture martingale: how strongly k of n draws speak against "the label has at most probability p0".

A Beta(a, b) prior over p > p0 is mixed into a likelihood ratio against p0. Its reciprocal bounds the probability
of ever seeing such a ratio when p <= p0, at whatever moment one looks (Ville's inequality; Robbins 1970; Howard,
Ramdas, McAuliffe, Sekhon 2021, arXiv 1810.08240).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import special

__all__ = ["PRIOR", "crossing_counts", "log_mixture"]

PRIOR = (1.0, 0.5)
"""(a, b): most weight near p = 1, where most pictures of a useful classifier lie."""

FLOOR = -700.0
"""Of a logarithm, below which exp() has nothing left."""

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def log_mixture(n: Ints, k: Ints, p0: float) -> Floats:
    """log M(n, k), elementwise, rounded up to 0 where k <= p0 n. n: draws, >= 0. k: votes, 0..n. p0: in (0, 1).

    With k <= p0 n no p > p0 makes the votes likelier than p0 does, so that M <= 1. There the tail of the Beta
    distribution can be smaller than any float, and its floored logarithm would overstate M without limit.
    """
    a, b = PRIOR
    above = special.betainc(b + n - k, a + k, 1.0 - p0)
    value: Floats = (
        special.betaln(a + k, b + n - k)
        - special.betaln(a, b)
        + _log(above)
        - _log(special.betainc(b, a, 1.0 - p0))
        - k * np.log(p0)
        - (n - k) * np.log1p(-p0)
    )
    return np.where(k <= p0 * n, np.minimum(value, 0.0), value)


def crossing_counts(n_max: int, p0: float, h: float, between: tuple[Ints, Ints] | None = None) -> Ints:
    """int [n_max + 1]: the fewest votes k > p0 n of n draws with log M(n, k) >= h; n + 1 where there are none.

    between: counts for a smaller and for a larger h, which make the search shorter.
    """
    n = np.arange(n_max + 1)
    if between is None:
        low, high = np.floor(p0 * n).astype(np.int64), n + 1
    else:
        low, high = np.maximum(between[0] - 1, np.floor(p0 * n).astype(np.int64)), between[1].copy()
    low = np.minimum(low, high - 1)
    # Invariant: log M(n, low) < h (or low <= p0 n), log M(n, high) >= h (or high = n + 1).
    while np.any(high - low > 1):
        open_ = np.flatnonzero(high - low > 1)
        middle = (low[open_] + high[open_]) // 2
        reached = log_mixture(open_, middle, p0) >= h
        high[open_[reached]] = middle[reached]
        low[open_[~reached]] = middle[~reached]
    return high


def _log(value: npt.ArrayLike) -> Floats:
    with np.errstate(divide="ignore"):
        return np.maximum(np.log(value), FLOOR)
