"""Top-k: a radius within which a label stays among the k most likely labels of the smoothed classifier.

Jia, Cao, Wang, Gong, "Certified Robustness for Top-k Predictions against Adversarial Perturbations via Randomized
Smoothing", ICLR 2020 (arXiv 1912.09899), Theorem 1, for an open set of labels: those without a bound of their own
are bounded together.

Theorem. Write P for probabilities of f(x + eps) and P' for those of f(x + delta + eps), |delta| = r, s = r /
sigma. Let l be a label with P(l) >= p_lower; u_1 >= u_2 >= ... upper bounds of the named others; rest one of the
total of all other labels (the pool). For j = 0..k let T_j be any k labels other than l of which j are in the pool
and k - j named. l is among the top k at x + delta, ties counted against it, if for each j for which there are k -
j named
    min over t1 <= k - j, t2 <= j, t1 + t2 >= 1 of  Phi(Phi^-1(m) + s) / (t1 + t2)  <  Phi(Phi^-1(p_lower) - s),
    m = min(1 - p_lower, u_(k-j-t1+1) + ... + u_(k-j) + rest * t2 / j).
Proof. If l is not among the top k, then some T = T_j has P'(c) >= P'(l) for each of its k labels, so that
P'(S) >= t P'(l) for each S in T of t labels. Fix t1, t2. Of T's named labels take the t1 with the smallest bounds:
their total is at most that of the t1 smallest among the k - j largest bounds. Of T's j pooled labels take the t2
least likely ones: they have at most t2 / j of the j, hence of rest. For their union S, P(S) <= m, as S excludes l.
By the Neyman-Pearson lemma (Cohen et al., Lemma 4) P'(S) <= Phi(Phi^-1(P(S)) + s) and
P'(l) >= Phi(Phi^-1(P(l)) - s), so P'(S) < t P'(l) where the condition holds: a contradiction.
Without a pool (j = 0) this is the paper's equation 8. The left side grows with s and the right one falls, so that
bisection finds the largest s; with k = 1 it is Cohen et al.'s (Phi^-1(p_lower) - Phi^-1(p_upper)) / 2.

Bounds: the paper's SimuEM is Clopper-Pearson with alpha shared out over all classes. Here the classes are those
that the selection draws name, and the pool (stats.two_sided), which needs no list of the classifier's labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from smoothing_proxy.errors import ConfigError
from smoothing_proxy.stats.certificates import check_sigma
from smoothing_proxy.stats.normal import probability_down, quantile_down, quantile_up
from smoothing_proxy.stats.two_sided import named_others, simultaneous_bounds
from smoothing_proxy.types import Label, TopKCertificate, Votes

__all__ = ["LARGEST_K", "certify_top_k", "check_k", "top_k_radius"]

LARGEST_K = 20

Rivals = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]
"""For one j: Phi^-1(m) rounded up, and t1 + t2, of every choice of t1 and t2. Both float64 [choices]."""

_FARTHEST = 32.0
"""In sigma; Phi^-1 of a float below 1 stays under 9, and k = LARGEST_K adds less than 3."""


def certify_top_k(
    votes: Votes, label: Label | None, k: int, *, sigma: float, alpha: float, selection: Votes
) -> TopKCertificate:
    """The radius in which `label` stays among the k most likely labels, or an abstention.

    votes: of the estimation draws; failed ones count against the label, and for each of the others. label: chosen
    without looking at `votes`; None abstains. selection: names the others that get a bound of their own.
    False with probability <= alpha. Raises ConfigError for k, sigma or alpha out of range.
    """
    check_sigma(sigma)
    check_k(k)
    if label is None or not votes.n:
        return TopKCertificate(None, k, 0.0, 0.0, sigma, alpha, votes, selection)
    named = named_others(selection, label, k)
    bounds = simultaneous_bounds(votes, label, named, alpha)
    radius = top_k_radius(bounds.p_lower, bounds.uppers, bounds.rest, k, sigma)
    proven = label if radius > 0.0 else None
    return TopKCertificate(proven, k, radius, bounds.p_lower, sigma, alpha, votes, selection, named)


def top_k_radius(p_lower: float, uppers: Sequence[float], rest: float, k: int, sigma: float) -> float:
    """The theorem's radius, rounded down; 0.0 where nothing is proven, also for NaN.

    p_lower: of the label. uppers: of each named other, in any order. rest: of all other labels together; 0.0 where
    there are none. All in [0, 1]. The result has sigma's unit.
    """
    if not (0.0 < p_lower <= 1.0 and 0.0 <= rest <= 1.0 and all(0.0 <= u <= 1.0 for u in uppers)):
        return 0.0
    sets = _rivals(p_lower, sorted(uppers, reverse=True), rest, k)
    z_lower = quantile_down(min(p_lower, 1.0 - 2.0**-53))
    proven, too_far = 0.0, _FARTHEST
    while proven < (s := (proven + too_far) / 2) < too_far:
        if all(_stays(z_lower, rivals, s) for rivals in sets):
            proven = s
        else:
            too_far = s
    return proven * sigma * (1.0 - 2.0**-50)


def check_k(k: int) -> None:
    """Raises ConfigError unless k is a whole number in 1..LARGEST_K."""
    if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= LARGEST_K:
        raise ConfigError(f"k = {k!r}: expected a whole number of labels, 1 to {LARGEST_K}")


def _stays(z_lower: float, rivals: Rivals, s: float) -> bool:
    """Whether the condition holds at distance s for one j."""
    z, t = rivals
    most = np.minimum(1.0, ndtr(z + s) * (1.0 + 2.0**-38) + 1e-300)  # as probability_up
    return bool((most / t).min() * (1.0 + 2.0**-50) < probability_down(z_lower - s))


def _rivals(p_lower: float, uppers: list[float], rest: float, k: int) -> list[Rivals]:
    """The sets T_j that there can be; `uppers` largest first."""
    sets = []
    for j in range(k + 1):
        if k - j > len(uppers) or (j and rest == 0.0):
            continue
        largest = uppers[: k - j]
        choices = [(t1, t2) for t1, t2 in product(range(k - j + 1), range(j + 1)) if t1 + t2]
        masses = [sum(largest[k - j - t1 :]) + (rest * t2 / j if j else 0.0) for t1, t2 in choices]
        caps = [min(1.0 - p_lower, mass) * (1.0 + 2.0**-40) + 2.0**-52 for mass in masses]
        z = np.array([quantile_up(min(cap, 1.0)) for cap in caps])
        sets.append((z, np.array([t1 + t2 for t1, t2 in choices], float)))
    return sets
