"""What a request asks about each label, and what the settings make of it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Annotated, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, StrictBool, ValidationError

from smoothing_proxy.backends.labels import LabelMap
from smoothing_proxy.errors import ConfigError
from smoothing_proxy.gateway.engine import Kind
from smoothing_proxy.gateway.settings import PerLabelTable
from smoothing_proxy.smoothing.label_plans import check_watched
from smoothing_proxy.smoothing.settings import PerLabel, Smoothing
from smoothing_proxy.wire.base import Fault, RequestFault
from smoothing_proxy.wire.shapes import fault_in

__all__ = ["HEADER", "AskedLabels", "LabelsQuestion", "asked_labels", "labels_in", "per_label_of"]

HEADER = "x-smoothing-per-label"

_WORDS: Mapping[str, bool | None] = {"": None, "true": True, "1": True, "false": False, "0": False}


class LabelsQuestion(BaseModel):
    """labels: tested whatever the draws say, in the label map's words: one that is mostly not there is tested for
    "stays absent". threshold: the confidence from which on a label counts as present. confidence_radius: within
    which each median confidence is bounded. What is left out is as the gateway's settings have it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    labels: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=200)], ...],
        Field(max_length=50, description="Labels to test whatever the draws say."),
    ] = ()
    threshold: Annotated[
        float | None,
        Field(gt=0, le=1, allow_inf_nan=False, description="The confidence from which on a label is present."),
    ] = None
    confidence_radius: Annotated[
        float | None,
        Field(
            gt=0, le=100, allow_inf_nan=False, description="Bound each median confidence within this l2 radius."
        ),
    ] = None


AskedLabels: TypeAlias = LabelsQuestion | StrictBool | None
"""True asks with the gateway's own settings, False does not ask; None leaves it to the key and the gateway."""


def labels_in(headers: Mapping[str, str]) -> AskedLabels:
    """What the header asks: true, false, or the JSON of a LabelsQuestion. Raises RequestFault (BAD_REQUEST)."""
    text = headers.get(HEADER, "")
    with suppress(UnicodeError):
        text = text.encode("latin-1").decode("utf-8")  # which headers are read as, and what labels are written in
    return asked_labels(text, HEADER)


def asked_labels(text: str, where: str) -> AskedLabels:
    """The same from any text; `where` it stood, for errors."""
    word = text.strip()
    if word.lower() in _WORDS:
        return _WORDS[word.lower()]
    try:
        return LabelsQuestion.model_validate_json(word)
    except ValidationError as error:
        expected = "expected true, false or a JSON object"
        raise RequestFault(Fault.BAD_REQUEST, f"{where}: {expected}: {fault_in(error)}") from None


def per_label_of(
    asked: AskedLabels,
    table: PerLabelTable,
    kind: Kind,
    smoothing: Smoothing,
    labels: LabelMap,
    *,
    threshold: float | None = None,
) -> PerLabel | None:
    """What is to be proven about each label; None where nothing is asked, or nothing is drawn.

    asked: None is as the gateway's `always` says. threshold: that a vendor's request names (MinConfidence), on
    [0, 1]; 0 and None name none. Raises RequestFault (BAD_REQUEST) for what the label map cannot answer.
    """
    asked = table.always if asked is None else asked
    if asked is False or kind == "unhardened":
        return None
    question = LabelsQuestion() if asked is True else asked
    watched = (*table.watched, *question.labels)
    try:
        wanted = PerLabel(
            threshold=question.threshold or threshold or table.threshold,
            most=max(table.most, len(set(watched))),
            watched=watched,
            confidence_radius=question.confidence_radius or table.confidence_radius or _within(smoothing),
        )
        if labels.present is not None:
            raise ConfigError("this gateway's label map asks about one label alone")
        check_watched(wanted, labels.classes)
    except ConfigError as error:
        raise RequestFault(Fault.BAD_REQUEST, f"per-label proofs: {error}") from None
    return wanted


def _within(smoothing: Smoothing) -> float:
    """The radius for confidences where nobody names one: the largest target, else half of sigma."""
    return (smoothing.ladder or (0.0,))[-1] or smoothing.sigma / 2
