"""How many draws a proof needs: everything that can be known before the first query.

Each answer is found with the functions that will judge the votes, so that a plan never promises what CERTIFY then
refuses.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from scipy.special import betainc, ndtri

from smoothing_proxy.errors import ConfigError
from smoothing_proxy.stats.binomial import check_alpha, lower_bound
from smoothing_proxy.stats.certificates import certified_radius, check_sigma, required_probability
from smoothing_proxy.types import Votes

__all__ = [
    "draws_for_radius",
    "fewest_unanimous",
    "largest_radius",
    "pilot_estimation",
    "require_certifiable",
    "smallest_n",
]

_SEARCHED = 1_000_000
_LARGEST = 10**9
_BLOCK = 4_000


def largest_radius(n: int, alpha: float, sigma: float) -> float:
    """The radius when all n votes agree, sigma * Phi^-1(alpha^(1/n)) rounded down; 0.0 when n is too small.

    Raises ConfigError unless 1e-100 <= alpha < 1 and sigma is positive and finite; ValueError when n < 0.
    """
    check_sigma(sigma)
    return certified_radius(lower_bound(n, n, alpha), sigma)


def smallest_n(alpha: float) -> int:
    """The fewest draws with which anything can be certified: the smallest n with alpha^(1/n) > 1/2.

    Raises ConfigError unless 1e-100 <= alpha < 1.
    """
    check_alpha(alpha)
    n = max(1, math.floor(-math.log2(alpha)))
    while not lower_bound(n, n, alpha) > 0.5:
        n += 1
    return n


def require_certifiable(n: int, alpha: float) -> None:
    """Raises ConfigError when n draws can never certify at alpha, even if all agree. It names the smallest n."""
    fewest = smallest_n(alpha)
    if n < fewest:
        raise ConfigError(
            f"n is {n}: with fewer than {fewest} draws nothing can be certified at alpha {alpha:g}; "
            f"use n >= {fewest} (more draws prove larger radii)"
        )


def draws_for_radius(radius: float, sigma: float, alpha: float, p: float = 1.0) -> int:
    """The smallest n at which floor(p n) votes of n certify `radius`.

    p: the share of votes that the label is expected to get, in (0, 1]. Counts are whole, so that some larger n may
    fail again when p < 1: floor(p n) falls behind p n by up to one vote.
    Raises ConfigError when no n can do it (p <= Phi(radius / sigma)) or none is found: the search ends a million
    draws after the n that would do if all agreed, and at 1e9. Also for alpha, sigma, radius or p out of range.
    """
    check_alpha(alpha)
    needed = required_probability(radius, sigma)
    if not 0.0 < p <= 1.0:
        raise ConfigError(f"p is {p!r}: expected a share of votes, above 0 and at most 1")
    if p <= needed:
        raise ConfigError(
            f"a share of {p:g} of the votes can never certify radius {radius:g} at sigma {sigma:g}: "
            f"it takes more than {needed:.6g}, or a larger sigma"
        )
    for n, k in _candidates(needed, alpha, p):
        p_lower = lower_bound(k, n, alpha)
        if p_lower > 0.5 and certified_radius(p_lower, sigma) >= radius:
            return n
    raise ConfigError(
        f"radius {radius:g} at sigma {sigma:g} and alpha {alpha:g} with a share of {p:g} of the votes "
        f"needs more than {_SEARCHED:,} draws: choose a smaller radius"
    )


def fewest_unanimous(radius: float, sigma: float, alpha: float) -> int:
    """The fewest draws after which a sequential test can have proven `radius`, if they all agree.

    Any of two labels might have won them, so that p0^n + (1 - p0)^n <= alpha is needed.
    Raises ConfigError for a radius or a sigma out of range.
    """
    p0 = required_probability(radius, sigma)
    if p0 >= 1.0:
        return _LARGEST
    n = max(1, math.ceil(math.log(alpha) / math.log(p0)))
    while p0**n + (1.0 - p0) ** n > alpha:
        n += 1
    return n


def pilot_estimation(pilot: Votes, n_max: int, alpha: float, tolerance: float) -> int:
    """How many fresh draws to spend on the pilot's leading label; 0 where none are worth it.

    The fewest n whose projected radius comes within `tolerance` (a share, >= 0) of what n_max draws would prove,
    if the label's probability is what the pilot suggests. Where even n_max draws would prove nothing, half of them
    when one standard deviation more would, else none.
    """
    leader = pilot.of(pilot.top())
    p = (leader + 1.0) / (pilot.n + 1.25)
    optimistic = min(1.0, p + math.sqrt(p * (1.0 - p) / pilot.n)) if pilot.n else 1.0
    best = _projected(p, n_max, alpha)
    if leader == 0 or _projected(optimistic, n_max, alpha) <= 0.0:
        return 0
    if best <= 0.0:
        return max(1, n_max // 2)
    return next(n for n in _growing(n_max) if _projected(p, n, alpha) * (1.0 + tolerance) >= best)


def _projected(p: float, n: int, alpha: float) -> float:
    """The radius in units of sigma that n draws prove for a label of probability p, by its expected count."""
    return float(ndtri(max(0.5, lower_bound(min(n, round(p * n)), n, alpha))))


def _growing(n_max: int) -> Iterator[int]:
    """From 1 to n_max, each about 2 % above the one before."""
    n = 1
    while n < n_max:
        yield n
        n += max(1, n // 50)
    yield n_max


def _candidates(needed: float, alpha: float, p: float) -> Iterator[tuple[int, int]]:
    """(n, floor(p n)), n rising, where P(Binomial(n, needed) >= floor(p n)) is about alpha or less."""
    fewest = max(1, math.floor(math.log(alpha) / math.log(needed)) - 1)  # below it, even n of n is too few
    for start in range(fewest, min(fewest + _SEARCHED, _LARGEST), _BLOCK):
        n = np.arange(start, start + _BLOCK)
        k = np.floor(p * n + 1e-9).astype(np.int64)  # 1e-9: 0.29 * 100 is 28.999999999999996
        tails = np.where(k > 0, betainc(np.maximum(k, 1), n - k + 1, needed), 1.0)
        for index in np.flatnonzero(tails <= alpha * (1 + 1e-6)):
            yield int(n[index]), int(k[index])
