"""Per-label proofs from the draws that a verdict was made of, without a further query.

Selection draws choose which claims are tested, and are never evidence for them: a label that was picked because
it came often among some draws looks better by these very draws than it is. So the first draws of the plan are the
selection, as many as was settled before any of them, and only the draws after them are counted:

    CERTIFY "fixed" and "largest"   the plan's own n0 draws choose; its further draws, whose number these have
                                    decided at most, prove: Clopper-Pearson and order statistics (stats.per_label,
                                    stats.percentile), just as AsyncSmoothedClassifier.certify_labels does
    PREDICT "fixed"                 n0 draws, at most half of n, choose; the rest prove, likewise
    CERTIFY "target", PREDICT       CHOOSING draws choose; those up to where the plan stopped prove. It stopped at
                                    the votes, which are made of the same replies, so that only bounds that hold at
                                    any time will do (stats.so_far)

The plan's own statement is made of the same draws at an alpha of its own; the two add up where both are to hold.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median_low

from smoothing_proxy.backends.labels import LabelMap
from smoothing_proxy.gateway.engine import Kind, most_queries
from smoothing_proxy.gateway.label_proofs import ConfidenceProof, LabelProof, LabelProofs
from smoothing_proxy.images.geometry import ResizeMap, input_radius
from smoothing_proxy.smoothing.reply_stream import scores_of
from smoothing_proxy.smoothing.settings import PerLabel, Smoothing
from smoothing_proxy.stats.per_label import ABSENT, PRESENT, Chosen, Scores, certify_presence, choose_labels
from smoothing_proxy.stats.percentile import median_bounds
from smoothing_proxy.stats.so_far import certify_presence_so_far, median_bounds_so_far
from smoothing_proxy.types import ConfidenceInterval, Label, LabelCertificate, Reply, Votes

__all__ = ["CHOOSING", "DrawsSplit", "prove_labels", "split_of"]

CHOOSING = 8
"""Draws of a sequential plan that choose the claims: it may stop after a few, and those left have to prove."""


@dataclass(frozen=True, slots=True)
class DrawsSplit:
    """selection: draws that choose. most: further ones that the plan may take. sequential: the votes decide how
    many of these it takes; else all are taken, or as many as the selection has decided.
    """

    selection: int
    most: int
    sequential: bool


def split_of(kind: Kind, smoothing: Smoothing) -> DrawsSplit:
    """How a plan's draws are divided; settled by the settings alone, before any draw."""
    most = most_queries(kind, smoothing)
    if (smoothing.certify_method == "target") if kind == "certify" else (smoothing.method != "fixed"):
        selection = min(smoothing.n0, CHOOSING)
        return DrawsSplit(selection, max(0, most - selection), sequential=True)
    selection = smoothing.n0 if kind == "certify" else min(smoothing.n0, most // 2)
    return DrawsSplit(selection, most - selection, sequential=False)


def prove_labels(
    replies: Sequence[Reply | None],
    answered: Sequence[Label],
    split: DrawsSplit,
    asked: PerLabel,
    smoothing: Smoothing,
    labels: LabelMap,
    resize: ResizeMap,
) -> LabelProofs:
    """replies: of the draws that the plan looked at, in issue order; None for a failed one. answered: labels of
    the answer, in the label map's words, which are told of though nothing may be proven about them.

    alpha is shared out as smoothing.label_plans.labels_plan does.
    """
    scores = [scores_of(reply, labels) for reply in replies]
    selection, estimation = scores[: split.selection], scores[split.selection :]
    alpha = smoothing.alpha if asked.confidence_radius is None else smoothing.alpha / 2
    claims = choose_labels(
        selection,
        threshold=asked.threshold,
        most=asked.most,
        # What a sequential plan came to take depends on the draws that prove, and must not choose the claims.
        n=split.most if split.sequential else len(estimation),
        alpha=alpha,
        watched=asked.watched,
    )
    each = alpha / max(1, len(claims))
    bench = _Bench(estimation, asked, smoothing.sigma, each, resize, sequential=split.sequential)
    tested = {claim.label for claim in claims}
    others = [label for label in dict.fromkeys(answered) if label not in tested]
    return LabelProofs(
        threshold=asked.threshold,
        alpha=smoothing.alpha,
        alpha_each=each,
        tested=len(claims),
        selection=len(selection),
        estimation=len(estimation),
        failed=sum(one is None for one in scores),
        sequential=split.sequential,
        labels=tuple([bench.tested(claim) for claim in claims] + [bench.untested(label) for label in others]),
    )


class _Bench:
    """The estimation draws, and the bounds that hold for them. alpha: of each claim, and of each interval."""

    def __init__(
        self,
        estimation: Sequence[Scores | None],
        asked: PerLabel,
        sigma: float,
        alpha: float,
        resize: ResizeMap,
        *,
        sequential: bool,
    ) -> None:
        self._answered = [scores for scores in estimation if scores is not None]
        self._failed = len(estimation) - len(self._answered)
        self._asked = asked
        self._sigma = sigma
        self._alpha = alpha
        self._resize = resize
        self._certify = certify_presence_so_far if sequential else certify_presence
        self._bounds: Callable[..., ConfidenceInterval | None] = (
            median_bounds_so_far if sequential else median_bounds
        )

    def tested(self, claim: Chosen) -> LabelProof:
        """What the draws prove of it."""
        votes = self._votes(claim.label)
        proof = self._certificate(claim, votes)
        proven = proof.present is not None
        unanimous = self._certificate(claim, Votes({PRESENT if claim.present else ABSENT: votes.n}))
        return LabelProof(
            label=claim.label,
            present=proof.present,
            radius=proof.radius if proven else None,
            input_radius=input_radius(proof.radius, self._resize) if proven else None,
            p_lower=proof.p_lower,
            votes=dict(votes.counts),
            confidence=self._confidence(claim.label, bounded=True),
            unproven=None if proven else "too few draws" if unanimous.present is None else "too few votes",
        )

    def untested(self, label: Label) -> LabelProof:
        """What the draws have said, which proves nothing: the label was not chosen without them."""
        votes = dict(self._votes(label).counts)
        confidence = self._confidence(label, bounded=False)
        return LabelProof(label=label, votes=votes, confidence=confidence, unproven="not tested")

    def _votes(self, label: Label) -> Votes:
        present = sum(scores.get(label, 0.0) >= self._asked.threshold for scores in self._answered)
        return Votes({PRESENT: present, ABSENT: len(self._answered) - present}, self._failed)

    def _certificate(self, claim: Chosen, votes: Votes) -> LabelCertificate:
        return self._certify(claim, votes, threshold=self._asked.threshold, sigma=self._sigma, alpha=self._alpha)

    def _confidence(self, label: Label, *, bounded: bool) -> ConfidenceProof | None:
        radius = self._asked.confidence_radius
        if radius is None or not self._answered:
            return None
        seen = [scores.get(label, 0.0) for scores in self._answered]
        plain = ConfidenceProof(
            median=median_low(seen), radius=radius, input_radius=input_radius(radius, self._resize)
        )
        interval = (
            self._bounds(seen, self._failed, radius=radius, sigma=self._sigma, alpha=self._alpha)
            if bounded
            else None
        )
        if interval is None:
            return plain
        return plain.model_copy(
            update={"low": interval.low, "high": None if math.isinf(interval.high) else interval.high}
        )
