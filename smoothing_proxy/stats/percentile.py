"""How far a confidence can move: the median over noise, and its bounds within a radius.

Chiang, Curry, Abdelkader, Kumar, Dickerson, Goldstein, "Detection as Regression: Certified Object Detection by
Median Smoothing", NeurIPS 2020 (arXiv 2007.03730), Lemma 1 and Theorem 1, for the median, with ties.

Theorem. Let F be a deterministic or random real function and s = eps / sigma. A median of F(x + delta + eps'),
eps' ~ N(0, sigma^2 I), is any number m with P'(F <= m) >= 1/2 and P'(F >= m) >= 1/2. If P(F < low) <= Phi(-s) and
P(F > high) <= Phi(-s) at x, then every median at x + delta lies in [low, high], for each |delta|_2 < eps.
Proof. By the Neyman-Pearson lemma P'(F < low) <= Phi(Phi^-1(P(F < low)) + |delta| / sigma) < Phi(0) = 1/2. A
median m < low would have P'(F <= m) >= 1/2, and P'(F <= m) <= P'(F < low). The other side is its mirror.

Order statistics. Let X_1 <= ... <= X_n be independent draws of F, and k the largest number with
P(Binomial(n, Phi(-s)) <= k - 1) <= alpha / 2. With q = the largest number with P(F < q) <= Phi(-s), X_k > q means
that at most k - 1 draws are <= q, each of which is so with probability P(F <= q) >= Phi(-s): so with probability
>= 1 - alpha / 2, low = X_k is <= q, and has P(F < low) <= Phi(-s). In the same way high = X_(n-k+1).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from smoothing_proxy.stats.binomial import check_alpha, tail_at_least
from smoothing_proxy.stats.certificates import required_probability
from smoothing_proxy.types import ConfidenceInterval

__all__ = ["bounds_between", "median_bounds", "order_statistic"]


def median_bounds(
    confidences: Sequence[float], failed: int, *, radius: float, sigma: float, alpha: float
) -> ConfidenceInterval | None:
    """The median confidence, and where every median within `radius` of the picture lies.

    confidences: of the draws that were answered, >= 0, 0.0 where the label was not in the reply, in any order.
    failed: draws without an answer, >= 0; they count as the least confidence there is for `low` and as the
    greatest for `high`, so that these hold whatever they would have said; `high` is infinite where too many
    failed. radius, sigma: l2 on the [0, 1] pixel scale.

    None where there are too few draws for the percentile, or no confidence at all. False with probability <=
    alpha: alpha / 2 for each side. Raises ConfigError for radius, sigma or alpha out of range, and ValueError for
    a confidence that is negative or NaN.
    """
    k = order_statistic(len(confidences) + failed, radius, sigma, alpha)
    return bounds_between(confidences, failed, k, radius)


def bounds_between(
    confidences: Sequence[float], failed: int, k: int | None, radius: float
) -> ConfidenceInterval | None:
    """From X_k to X_(n-k+1), with failed draws as in `median_bounds`. None where k is, or nothing was answered.

    Raises ValueError for a confidence that is negative or NaN.
    """
    if not all(value >= 0.0 for value in confidences) or failed < 0:
        raise ValueError("confidences and the number of failed draws are >= 0")
    if k is None or not confidences:
        return None
    n = len(confidences) + failed
    ordered = sorted(confidences)
    return ConfidenceInterval(
        median=ordered[(len(ordered) - 1) // 2],
        low=ordered[k - failed - 1] if k > failed else 0.0,
        high=ordered[n - k] if n - k < len(ordered) else math.inf,
        radius=radius,
    )


def order_statistic(n: int, radius: float, sigma: float, alpha: float) -> int | None:
    """k of X_k, the lower bound, in 1..n; X_(n-k+1) is the upper one. None where n draws are too few.

    Raises ConfigError for radius, sigma or alpha out of range.
    """
    above = required_probability(radius, sigma)  # Phi(s) rounded up: Phi(-s) rounded down
    check_alpha(alpha)
    holds, fails = 0, n // 2 + 1
    while fails - holds > 1:
        k = (holds + fails) // 2
        if tail_at_least(n - k + 1, n, above) <= alpha / 2:
            holds = k
        else:
            fails = k
    return holds or None
