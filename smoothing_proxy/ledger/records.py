"""Rows of the ledger as nouns, and nouns as the JSON that its rows hold."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from smoothing_proxy.types import Certificate, Cost, Label, Reply, Votes

__all__ = [
    "PictureRecord",
    "certificate_from_json",
    "certificate_to_json",
    "reply_to_json",
]


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
    """A reply as compact JSON: [[name, confidence, id], ...] in the classifier's own order."""
    return json.dumps([[x.name, x.confidence, x.id] for x in reply.labels], separators=(",", ":"))


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


def _size(value: list[int] | None) -> tuple[int, int] | None:
    return None if value is None else (value[0], value[1])
