"""The radius from a lower bound on the label *and* upper bounds on every other: eq. 3 of Cohen et al. with both.

CERTIFY takes p_upper = 1 - p_lower, as if one other label had all the rest. Where the rest is spread over several
labels, bounding these proves more, and it proves labels that have less than half of the votes.

Construction. The selection draws fix a label A and a set of others to be named; all labels that are neither, seen
or not, are pooled into one outcome. So before the first estimation draw there are m + 2 fixed outcomes, and each
one's votes are binomial. With Clopper-Pearson
    p_lower <= p_A        but for a probability of alpha / 2,
    upper_i >= p_i        but for a probability of alpha / 2 / (m + 1), for each of the m named,
    rest    >= the pooled labels' total, but for the same.
By Bonferroni all of them hold together with probability >= 1 - alpha, and then every label c other than A has
    p_c <= p_upper = min(1 - p_lower, max(rest, upper_1, ..., upper_m)),
since a pooled label has at most the pool's probability. Theorem 1 (stats.certificates) gives the radius. This uses
one set of bounds at a total of alpha; the one-sided bound at the full alpha is another procedure, and taking the
larger radius of the two *after* seeing the votes would cost up to 2 alpha. `certify_either` therefore chooses by
the selection draws alone.

A failed draw counts against everybody: in n for the label, and as a vote for each other outcome.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from smoothing_proxy.stats.binomial import lower_bound, upper_bound
from smoothing_proxy.stats.certificates import certify_votes, check_sigma
from smoothing_proxy.stats.normal import quantile_down, quantile_up
from smoothing_proxy.types import Certificate, Label, Votes

__all__ = [
    "MOST_NAMED",
    "Bounds",
    "certify_either",
    "certify_two_sided",
    "named_others",
    "simultaneous_bounds",
    "two_sided_radius",
]

MOST_NAMED = 20
"""Others with a bound of their own. Ten times as many would raise each bound by about an eighth."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """That hold together. p_lower: of the label. uppers: of each named other, largest first.

    rest: of all labels that are neither, together. All in [0, 1].
    """

    p_lower: float
    uppers: tuple[float, ...]
    rest: float

    @property
    def p_upper(self) -> float:
        """Of every label but the bounded one."""
        return min(_complement(self.p_lower), max(self.rest, *self.uppers, 0.0))


def named_others(selection: Votes, label: Label | None, k: int = 1) -> tuple[Label, ...]:
    """Which others get a bound of their own: by the selection draws alone, most votes first, MOST_NAMED at most.

    The k next ones at least; then further ones for as long as those left over have together more votes than the
    k-th one, so that the pool is not what limits the radius.
    """
    others = [(name, votes) for name, votes in selection.ranked() if name != label]
    named = min(k, len(others))
    limit = others[k - 1][1] if len(others) >= k else 0
    while named < min(len(others), MOST_NAMED) and sum(votes for _, votes in others[named:]) > limit:
        named += 1
    return tuple(name for name, _ in others[:named])


def simultaneous_bounds(votes: Votes, label: Label, named: tuple[Label, ...], alpha: float) -> Bounds:
    """The module's construction. label, named: chosen without looking at `votes`, all different.

    Raises ConfigError unless 1e-100 <= alpha < 1 (after it was shared out).
    """
    share = alpha / 2 / (len(named) + 1)
    counts = [votes.of(name) for name in named]
    pooled = votes.n - votes.failed - votes.of(label) - sum(counts)
    uppers = sorted((upper_bound(k + votes.failed, votes.n, share) for k in counts), reverse=True)
    return Bounds(
        p_lower=lower_bound(votes.of(label), votes.n, alpha / 2),
        uppers=tuple(uppers),
        rest=upper_bound(pooled + votes.failed, votes.n, share),
    )


def two_sided_radius(p_lower: float, p_upper: float, sigma: float) -> float:
    """sigma / 2 * (Phi^-1(p_lower) - Phi^-1(p_upper)), rounded down; 0.0 unless p_lower > p_upper (so for NaN).

    Both in [0, 1]; the result has sigma's unit.
    """
    if not p_lower > p_upper:
        return 0.0
    distance = quantile_down(min(p_lower, 1.0 - 2.0**-53)) - quantile_up(max(p_upper, 1e-300))
    return max(0.0, sigma / 2 * distance * (1.0 - 2.0**-40))


def certify_two_sided(
    votes: Votes,
    label: Label | None,
    named: tuple[Label, ...],
    *,
    sigma: float,
    alpha: float,
    selection: Votes | None = None,
) -> Certificate:
    """The certificate of the module's construction; `label` None abstains. Its p_upper is set.

    False with probability <= alpha over the draws of `votes`. Raises ConfigError for alpha or sigma out of range.
    """
    check_sigma(sigma)
    record = Votes() if selection is None else selection
    if label is None:
        return Certificate(None, 0.0, 0.0, sigma, alpha, votes, record)
    bounds = simultaneous_bounds(votes, label, named, alpha)
    radius = two_sided_radius(bounds.p_lower, bounds.p_upper, sigma)
    certificate = Certificate(label, radius, bounds.p_lower, sigma, alpha, votes, record, p_upper=bounds.p_upper)
    return certificate if radius > 0.0 else replace(certificate, label=None)


def certify_either(votes: Votes, selection: Votes, *, sigma: float, alpha: float) -> Certificate:
    """CERTIFY with one bound or with both, whichever would prove more if the selection's shares came again.

    The choice depends on the selection and on the number of estimation draws, which is fixed beforehand, so that
    one procedure runs on fresh draws, and its error is alpha. An exact tie takes the one bound.
    """
    label = selection.top()
    named = named_others(selection, label)
    expected = _scaled(selection, votes.n)
    one = certify_votes(expected, label, sigma=sigma, alpha=alpha)
    both = certify_two_sided(expected, label, named, sigma=sigma, alpha=alpha)
    if both.radius > one.radius:
        return certify_two_sided(votes, label, named, sigma=sigma, alpha=alpha, selection=selection)
    return certify_votes(votes, label, sigma=sigma, alpha=alpha, selection=selection)


def _complement(p: float) -> float:
    """1 - p, rounded up."""
    return min(1.0, (1.0 - p) + 2.0**-53)


def _scaled(selection: Votes, n: int) -> Votes:
    """n votes in the selection's proportions, rounded down; what rounding leaves over counts for nobody."""
    if not selection.n:
        return Votes(failed=n)
    counts = {label: count * n // selection.n for label, count in selection.counts.items()}
    return Votes(counts, n - sum(counts.values()))
