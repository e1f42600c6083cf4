"""Plans for richer proofs: about every label of a multi-label reply, and about the k best labels.

A plan over replies is told whole replies in issue order, as scores of the label map, where a plan over votes is
told counts. It asks for many draws and is told them a part at a time, so that it keeps counts and not replies.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import replace
from typing import TypeAlias, TypeVar

from smoothing_proxy.errors import ConfigError, nearest
from smoothing_proxy.smoothing.plan import ESTIMATION, SELECTION, Plan
from smoothing_proxy.smoothing.settings import PerLabel, Smoothing
from smoothing_proxy.stats.per_label import ABSENT, PRESENT, Chosen, Scores, certify_presence, choose_labels
from smoothing_proxy.stats.percentile import median_bounds
from smoothing_proxy.stats.topk import certify_top_k, check_k
from smoothing_proxy.types import (
    Draws,
    Label,
    LabelCertificate,
    LabelsCertificate,
    TopKCertificate,
    Votes,
)

__all__ = ["Replies", "ReplyPlan", "check_watched", "estimation_draws", "labels_plan", "top_k_plan"]

Verdict = TypeVar("Verdict")

Replies: TypeAlias = Sequence[Scores | None]
"""What draws answered, in issue order; None: it failed, or its reply was empty."""

ReplyPlan: TypeAlias = Generator[Draws, Replies, Verdict]

TOLD_AT_ONCE = 64
"""Replies; more would only wait in memory."""


def estimation_draws(smoothing: Smoothing) -> int:
    """How many fresh draws the proofs of this module take: n under method "fixed", else max_queries."""
    return smoothing.n if smoothing.certify_method == "fixed" else smoothing.max_queries


def labels_plan(smoothing: Smoothing, asked: PerLabel) -> ReplyPlan[LabelsCertificate]:
    """n0 draws choose the claims (stats.per_label), fresh ones test them all at once; none where there is no
    claim.

    alpha is shared out over the claims evenly. Where confidences are bounded too, these have half of each share.
    """
    n = estimation_draws(smoothing)
    selection = yield Draws(SELECTION, smoothing.n0)
    alpha = smoothing.alpha if asked.confidence_radius is None else smoothing.alpha / 2
    chosen = choose_labels(
        selection, threshold=asked.threshold, most=asked.most, n=n, alpha=alpha, watched=asked.watched
    )
    tally = _Tally(chosen, asked)
    left = n if chosen else 0
    while left:
        tally.add((yield Draws(ESTIMATION, left, at_least=TOLD_AT_ONCE)))
        left = n - tally.n
    each = alpha / max(1, len(chosen))
    return LabelsCertificate(
        labels=tuple(tally.proof(claim, sigma=smoothing.sigma, alpha=each) for claim in chosen),
        sigma=smoothing.sigma,
        alpha=smoothing.alpha,
        alpha_each=each,
        selection=len(selection),
        estimation=tally.n,
        failed=tally.failed + sum(scores is None for scores in selection),
    )


def top_k_plan(smoothing: Smoothing, k: int, label: Label | None = None) -> Plan[TopKCertificate]:
    """n0 draws choose the label (or `label` is given) and the others to bound, fresh ones bound them all.

    Abstains without fresh draws where no selection draw voted. Raises ConfigError for k out of range.
    """
    check_k(k)
    selection = yield Draws(SELECTION, smoothing.n0)
    label = selection.top() if label is None else label
    estimation = Votes()
    if label is not None:
        estimation = yield Draws(ESTIMATION, estimation_draws(smoothing))
    return certify_top_k(estimation, label, k, sigma=smoothing.sigma, alpha=smoothing.alpha, selection=selection)


def check_watched(asked: PerLabel, classes: Sequence[Label]) -> None:
    """Raises ConfigError for a watched label that a closed label map can never give.

    classes: all that it can give; () where any label passes. A misspelt label would be proven absent.
    """
    for label in asked.watched if classes else ():
        if label not in classes:
            raise ConfigError(f"watched: {label!r} is no class of the label map{nearest(label, classes)}")


class _Tally:
    """What the estimation draws say about the chosen labels; confidences are kept only where they are bounded."""

    def __init__(self, chosen: Sequence[Chosen], asked: PerLabel) -> None:
        self._asked = asked
        self._present = dict.fromkeys((claim.label for claim in chosen), 0)
        self._confidences: dict[Label, list[float]] = {label: [] for label in self._present}
        self.n = self.failed = 0

    def add(self, replies: Replies) -> None:
        answered = [scores for scores in replies if scores is not None]
        self.n += len(replies)
        self.failed += len(replies) - len(answered)
        for label, scores in ((label, scores) for scores in answered for label in self._present):
            confidence = scores.get(label, 0.0)
            self._present[label] += confidence >= self._asked.threshold
            if self._asked.confidence_radius is not None:
                self._confidences[label].append(confidence)

    def proof(self, claim: Chosen, *, sigma: float, alpha: float) -> LabelCertificate:
        """alpha: of the presence, and once more of the confidence's interval."""
        present = self._present[claim.label]
        votes = Votes({PRESENT: present, ABSENT: self.n - self.failed - present}, self.failed)
        proof = certify_presence(claim, votes, threshold=self._asked.threshold, sigma=sigma, alpha=alpha)
        radius = self._asked.confidence_radius
        if radius is None:
            return proof
        confidences = self._confidences[claim.label]
        interval = median_bounds(confidences, self.failed, radius=radius, sigma=sigma, alpha=alpha)
        return replace(proof, confidence=interval)
