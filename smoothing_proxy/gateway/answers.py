"""What was sampled, as a verdict; and the answers of a whole request as a document that can be told again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from typing import Any

from smoothing_proxy.backends.labels import LabelMap
from smoothing_proxy.errors import BackendError
from smoothing_proxy.gateway.engine import Sampled
from smoothing_proxy.gateway.hardening import as_they_are, canonical_reply, hardened_labels
from smoothing_proxy.gateway.inquiries import Wish
from smoothing_proxy.gateway.jobs import Answered
from smoothing_proxy.gateway.label_proofs import LabelProofs
from smoothing_proxy.gateway.label_proving import prove_labels, split_of
from smoothing_proxy.gateway.verdicts import LabelStanding, Verdict
from smoothing_proxy.smoothing.picture import Picture
from smoothing_proxy.types import Certificate, Cost, Label, Prediction, Reply, ScoredLabel, Votes
from smoothing_proxy.wire.base import Fault, RequestFault

__all__ = ["answers_in", "document_of", "verdict_of"]


def verdict_of(
    sampled: Sampled,
    picture: Picture,
    cost: Cost,
    *,
    labels: LabelMap,
    canonical: bool,
    wish: Wish,
    stamp: tuple[str, str, str],
) -> Verdict:
    """stamp: the verdict's id, the picture's sha256, and the date. canonical: labels as the label map names them.

    Takes some processor time where each label is asked about.

    Raises BackendError where every single copy failed: that says nothing about the picture.
    """
    if all(reply is None for reply in sampled.replies or (sampled.clean,)):
        raise sampled.errors[0] if sampled.errors else BackendError("every copy of the picture failed")
    given = sampled.verdict
    votes = given.votes + given.selection if isinstance(given, Certificate) else given.votes
    standings, hardened = _labels(sampled, votes, labels if canonical else None, labels)
    identity, picture_sha256, created_at = stamp
    return Verdict(
        id=identity,
        label=given.label,
        hardened=hardened,
        **_proof(given, picture),
        alpha=given.alpha,
        sigma=wish.smoothing.sigma,
        copies=given.queries,
        votes=dict(votes.counts),
        failed=votes.failed,
        labels=standings,
        per_label=_per_label(sampled, picture, standings, labels, wish),
        model_version=_version(sampled),
        queries=cost.queries,
        unknown=cost.unknown,
        usd=cost.usd,
        picture_sha256=picture_sha256,
        created_at=created_at,
    )


def _proof(given: Certificate | Prediction, picture: Picture) -> dict[str, Any]:
    sizes = {"working_size": picture.working_size, "input_size": picture.resize.input_size}
    if isinstance(given, Prediction):
        return {"kind": "predict", "p_value": given.p_value, **sizes}
    radii = {"radius": given.radius, "input_radius": given.input_radius or 0.0}
    return {"kind": "certify", "p_lower": given.p_lower, **radii, **sizes}


def _labels(
    sampled: Sampled, votes: Votes, speak: LabelMap | None, labels: LabelMap
) -> tuple[tuple[LabelStanding, ...], bool]:
    """The labels of the answer, and whether they are hardened. speak: the map whose words are used, if any."""
    said = partial(canonical_reply, labels=speak) if speak else _itself
    label = sampled.verdict.label
    if label is None:
        return ((), True) if sampled.clean is None else (as_they_are(said(sampled.clean), votes), False)
    replies = [None if reply is None else said(reply) for reply in sampled.replies]
    return hardened_labels(replies, label, votes, _names if speak else labels.classes_of), True


def _per_label(
    sampled: Sampled, picture: Picture, standings: Sequence[LabelStanding], labels: LabelMap, wish: Wish
) -> LabelProofs | None:
    if wish.per_label is None:
        return None
    answered = [name for standing in standings for name in labels.classes_of(standing.scored)]
    split = split_of(wish.kind, wish.smoothing)
    return prove_labels(sampled.replies, answered, split, wish.per_label, wish.smoothing, labels, picture.resize)


def _itself(reply: Reply) -> Reply:
    return reply


def _names(label: ScoredLabel) -> tuple[Label, ...]:
    return (label.name,)


def _version(sampled: Sampled) -> str:
    versions = (reply.model_version for reply in (*sampled.replies, sampled.clean) if reply is not None)
    return next((version for version in versions if version), "")


def document_of(answers: Sequence[Answered]) -> str:
    """The answers as JSON."""
    return f"[{', '.join(map(_written, answers))}]"


def _written(answer: Answered) -> str:
    if isinstance(answer, Verdict):
        return f'{{"verdict": {answer.text}}}'
    return json.dumps({"fault": answer.fault.value, "message": answer.message})


def answers_in(document: str) -> list[Answered]:
    """The answers that `document_of` wrote, here or in a newer replica, whose new fields are left out."""
    return [
        Verdict.model_validate(item["verdict"])
        if "verdict" in item
        else RequestFault(Fault(item["fault"]), item["message"])
        for item in json.loads(document)
    ]
