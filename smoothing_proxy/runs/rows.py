"""One line per picture, for CSV and JSON."""

from __future__ import annotations

from typing import Any

from smoothing_proxy.ledger.records import PictureRecord
from smoothing_proxy.types import Certificate

__all__ = ["COLUMNS", "certificate_row", "is_correct"]

COLUMNS = (
    "file",
    "label",
    "reference",
    "correct",
    "radius",
    "working_size",
    "input_radius",
    "input_size",
    "p_lower",
    "p_upper",
    "sequential",
    "family_radius",
    "votes",
    "n",
    "failed",
    "runner_up",
    "runner_up_votes",
    "sigma",
    "alpha",
    "queries",
    "unknown",
    "usd",
    "error",
)


def certificate_row(
    record: PictureRecord, certificate: Certificate | None, family_radius: float | None = None
) -> dict[str, Any]:
    """The columns of one picture; `certificate` None is a picture without a verdict, most columns None.

    family_radius: within which the label holds together with those of the whole folder. sequential: a test decided
    when to stop, so that its votes are of no fixed number of draws: Clopper-Pearson says nothing about them.
    """
    row: dict[str, Any] = dict.fromkeys(COLUMNS)
    row.update(file=record.name, reference=record.reference, error=record.error)
    if certificate is None:
        return row
    others = [item for item in certificate.votes.ranked() if item[0] != certificate.label]
    row.update(
        label=certificate.label,
        correct=is_correct(record, certificate),
        radius=certificate.radius,
        working_size=_size(certificate.working_size),
        input_radius=certificate.input_radius,
        input_size=_size(certificate.input_size),
        p_lower=certificate.p_lower,
        p_upper=certificate.p_upper,
        sequential=certificate.sequential,
        family_radius=family_radius,
        votes=certificate.votes.of(certificate.label),
        n=certificate.votes.n,
        failed=certificate.votes.failed,
        runner_up=others[0][0] if others else None,
        runner_up_votes=others[0][1] if others else 0,
        sigma=certificate.sigma,
        alpha=certificate.alpha,
        queries=certificate.cost.queries,
        unknown=certificate.cost.unknown,
        usd=certificate.cost.usd,
    )
    return row


def is_correct(record: PictureRecord, certificate: Certificate) -> bool:
    """Whether the certificate names the reference label; an abstention never does."""
    return certificate.label is not None and certificate.label == record.reference


def _size(size: tuple[int, int] | None) -> str | None:
    return None if size is None else f"{size[0]}x{size[1]}"
