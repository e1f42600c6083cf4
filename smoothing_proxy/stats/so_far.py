"""Bounds that hold at whatever moment one stops: for draws whose number their own answers have decided.

Clopper-Pearson and order statistics speak of a number of draws that was fixed beforehand. A sequential plan stops
when the votes say so, and whoever takes its draws for another question inherits that choice. Here every bound
holds for all n at once, so that it holds for the n at which anything stopped.

Lower bound on p. With the prior of stats.mixture on [1/2, 1], M_n(p) = (integral of L_n(q) dprior(q)) / L_n(p),
where L_n(q) = q^k (1 - q)^(n - k), is a martingale with mean 1 if each draw says so with probability p. So M_n(p)
ever reaches 1 / alpha with probability <= alpha (Ville). Its numerator does not depend on p, and L_n grows up to
k / n, so that M_n falls there: where M_n(b) >= 1 / alpha for some b <= k / n, so is M_n(p) for every p <= b, and
"p > b" is false, at whatever n, with probability <= alpha (Robbins 1970; Howard, Ramdas, McAuliffe, Sekhon 2021,
arXiv 1810.08240).

Order statistic. In stats.percentile, X_k > q means that n - k + 1 or more of n draws are above the percentile q,
each of which is so with probability <= Phi(s). Here it is not the binomial tail but the mixture martingale against
Phi(s) that says how many of them there will be at no n, but for a probability of alpha / 2. The other side is its
mirror.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from smoothing_proxy.stats.binomial import check_alpha
from smoothing_proxy.stats.certificates import certified_radius, check_sigma, required_probability
from smoothing_proxy.stats.mixture import log_mixture
from smoothing_proxy.stats.per_label import ABSENT, PRESENT, Chosen
from smoothing_proxy.stats.percentile import bounds_between
from smoothing_proxy.types import ConfidenceInterval, LabelCertificate, Votes

__all__ = [
    "certify_presence_so_far",
    "lower_bound_so_far",
    "median_bounds_so_far",
    "order_statistic_so_far",
]

_ROUNDING = 1e-6
"""Of a log M: its terms are up to some 1e5 for as many draws, with relative errors of 1e-14 or so."""


def certify_presence_so_far(
    claim: Chosen, votes: Votes, *, threshold: float, sigma: float, alpha: float
) -> LabelCertificate:
    """As per_label.certify_presence, with the same arguments and errors, for draws that stopped at any time."""
    check_sigma(sigma)
    p_lower = lower_bound_so_far(votes.of(PRESENT if claim.present else ABSENT), votes.n, alpha)
    return LabelCertificate(
        label=claim.label,
        present=claim.present if p_lower > 0.5 else None,
        radius=certified_radius(p_lower, sigma),
        p_lower=p_lower,
        threshold=threshold,
        votes=votes,
    )


def median_bounds_so_far(
    confidences: Sequence[float], failed: int, *, radius: float, sigma: float, alpha: float
) -> ConfidenceInterval | None:
    """As percentile.median_bounds, with the same arguments and errors, for draws that stopped at any time."""
    k = order_statistic_so_far(len(confidences) + failed, radius, sigma, alpha)
    return bounds_between(confidences, failed, k, radius)


def lower_bound_so_far(k: int, n: int, alpha: float) -> float:
    """A lower bound on p after k of n draws, n being any stopping time; 0.0 unless it exceeds 1/2.

    Whatever p is, the bound ever exceeds it, at any n, with probability <= alpha. n: draws so far, in issue order
    and without a gap. Raises ValueError unless 0 <= k <= n, ConfigError unless 1e-100 <= alpha < 1.
    """
    check_alpha(alpha)
    if not 0 <= k <= n:
        raise ValueError(f"k must be one of 0..n, not k={k!r} of n={n!r}")
    needed = -math.log(alpha) + _ROUNDING
    at_half = _log_m(k, n, 0.5)
    if 2 * k <= n or at_half < needed:
        return 0.0
    proven, too_high = 0.5, math.nextafter(k / n, 0.0)
    while proven < (p := (proven + too_high) / 2) < too_high:
        if at_half + _log_of_halves(n) - _log_likelihood(k, n, p) >= needed:
            proven = p
        else:
            too_high = p
    return proven


def order_statistic_so_far(n: int, radius: float, sigma: float, alpha: float) -> int | None:
    """k of X_k as percentile.order_statistic has it, n being any stopping time; None where n draws are too few.

    Raises ConfigError for radius, sigma or alpha out of range.
    """
    above = required_probability(radius, sigma)  # Phi(s) rounded up: Phi(-s) rounded down
    check_alpha(alpha)
    if above >= 1.0:
        return None
    needed = math.log(2.0 / alpha) + _ROUNDING
    holds, fails = 0, min(n // 2, math.ceil(n * (1.0 - above))) + 1
    while fails - holds > 1:
        k = (holds + fails) // 2
        if n - k + 1 > n * above and _log_m(n - k + 1, n, above) >= needed:
            holds = k
        else:
            fails = k
    return holds or None


def _log_m(k: int, n: int, p0: float) -> float:
    return float(log_mixture(np.array([n]), np.array([k]), p0)[0])


def _log_of_halves(n: int) -> float:
    return -n * math.log(2.0)


def _log_likelihood(k: int, n: int, p: float) -> float:
    return k * math.log(p) + (n - k) * math.log1p(-p)
