"""Rows of the ledger as nouns, and nouns as the JSON that its rows hold."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from smoothing_proxy.types import Certificate, Cost, Label, Reply, ScoredLabel, Votes

__all__ = [
    "PictureRecord",
    "certificate_from_json",
    "certificate_to_json",
    "reply_from_json",
    "reply_to_json",
]

_compact = json.JSONEncoder(separators=(",", ":")).encode  # json.dumps would make one for each reply


@dataclass(frozen=True, slots=True)
class PictureRecord:
    """One file of a run. name: relative to the folder. error: why it could not be read, where it could not.

    sha256: of the canonical pixels. size: (height, width). reference: the label that counts as correct.
    All but id and name are None until it was decoded.
    """

    id: int
    name: str
    sha256: str | None = None
    size: tuple[int, int] | None = None
    entropy: bytes | None = None
    reference: Label | None = None
    error: str | None = None


def reply_to_json(reply: Reply) -> str:
    """A reply as compact JSON, in the classifier's own order: [[name, confidence, id], ...].

    Where a label has parents or aliases, they are its fourth and fifth entry.
    """
    return _compact([_label(label) for label in reply.labels])


def reply_from_json(text: str, model_version: str = "") -> Reply:
    """The reply that `reply_to_json` wrote."""
    return Reply(tuple(_read(*entry) for entry in json.loads(text)), model_version)


def certificate_to_json(certificate: Certificate) -> str:
    """A certificate as JSON; `certificate_from_json` gives back an equal one."""
    return json.dumps(asdict(certificate), sort_keys=True)


def certificate_from_json(text: str) -> Certificate:
    """The certificate that `certificate_to_json` wrote."""
    fields: dict[str, Any] = json.loads(text)
    return Certificate(
        **{
            **fields,
            "votes": Votes(**fields["votes"]),
            "selection": Votes(**fields["selection"]),
            "cost": Cost(**fields["cost"]),
            "working_size": _size(fields["working_size"]),
            "input_size": _size(fields["input_size"]),
        }
    )


def _label(label: ScoredLabel) -> list[Any]:
    entry: list[Any] = [label.name, label.confidence, label.id]
    return [*entry, label.parents, label.aliases] if label.parents or label.aliases else entry


def _read(
    name: str, confidence: float, id_: str, parents: Iterable[str] = (), aliases: Iterable[str] = ()
) -> ScoredLabel:
    return ScoredLabel(name, confidence, id_, tuple(parents), tuple(aliases))


def _size(value: list[int] | None) -> tuple[int, int] | None:
    return None if value is None else (value[0], value[1])
