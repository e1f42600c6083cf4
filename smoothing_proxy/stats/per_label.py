"""Per-label proofs: which labels of a multi-label reply stay present, and which stay absent.

For a label L and a threshold t fixed before the draws, the base classifier f answers "present" (L is in the reply
with confidence >= t), "absent" (a reply without that), or fails. That is a classifier of two classes, so that
CERTIFY's Proposition 2 holds for each label: p_lower <= P(f(x + eps) says the answer) but for a probability of its
alpha, and then the smoothed answer cannot change for any |delta|_2 < sigma * Phi^-1(p_lower).

Which labels, and which of the two answers each is tested for, is chosen by the selection draws alone: m claims. On
the fresh estimation draws each is then tested at alpha / m, so that with probability >= 1 - alpha all of them hold
(Bonferroni; the labels of one draw may depend on each other in any way).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from smoothing_proxy.stats.binomial import lower_bound
from smoothing_proxy.stats.certificates import certify_votes
from smoothing_proxy.types import Label, LabelCertificate, Votes

__all__ = ["ABSENT", "PRESENT", "Chosen", "Scores", "certify_presence", "choose_labels"]

PRESENT = "present"
ABSENT = "absent"

Scores: TypeAlias = Mapping[Label, float]
"""One reply: confidence by canonical label, >= 0; a label that is not there has confidence 0."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """A claim to test on fresh draws. present: whether it is that the label stays present, or absent."""

    label: Label
    present: bool


def choose_labels(
    selection: Sequence[Scores | None],
    *,
    threshold: float,
    most: int,
    n: int,
    alpha: float,
    watched: Iterable[Label] = (),
) -> tuple[Chosen, ...]:
    """The claims worth testing with n further draws, at most `most` of them, all different labels.

    selection: the replies of the selection draws; None answered nothing. The answer that more draws gave is
    tested, "absent" where both are level. First come the `watched` labels, in their order, whatever the draws say.
    Then those that some draw had at the threshold, the present ones before the absent ones, each the most frequent
    first and ties by name; of these only labels that n draws would prove at alpha / most, if they came with the
    probability that the selection suggests, (count + 1) / (draws + 1.25).
    """
    answered = [scores for scores in selection if scores is not None]
    seen = Counter(label for scores in answered for label, score in scores.items() if score >= threshold)
    chosen = {label: Chosen(label, _mostly(seen[label], len(answered))) for label in watched}
    candidates = [Chosen(label, _mostly(count, len(answered))) for label, count in seen.items()]

    def votes_for(claim: Chosen) -> int:
        count = seen[claim.label]
        return count if claim.present else len(answered) - count

    for claim in sorted(candidates, key=lambda c: (not c.present, -votes_for(c), c.label)):
        if len(chosen) < most and _is_worth_it(votes_for(claim), len(selection), n, alpha / most):
            chosen.setdefault(claim.label, claim)
    return tuple(chosen.values())


def certify_presence(
    claim: Chosen, votes: Votes, *, threshold: float, sigma: float, alpha: float
) -> LabelCertificate:
    """One claim's certificate. votes: for PRESENT and for ABSENT, of the estimation draws; failed ones for
    neither.

    alpha: this claim's own share. False with probability <= alpha. Raises ConfigError for alpha or sigma out of
    range.
    """
    proof = certify_votes(votes, PRESENT if claim.present else ABSENT, sigma=sigma, alpha=alpha)
    return LabelCertificate(
        label=claim.label,
        present=None if proof.label is None else claim.present,
        radius=proof.radius,
        p_lower=proof.p_lower,
        threshold=threshold,
        votes=votes,
    )


def _mostly(present: int, answered: int) -> bool:
    return 2 * present > answered


def _is_worth_it(count: int, draws: int, n: int, alpha: float) -> bool:
    p = (count + 1.0) / (draws + 1.25)
    return lower_bound(min(n, round(p * n)), n, alpha) > 0.5
