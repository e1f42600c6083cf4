"""A verdict as a document: what is kept, replayed, and read at /v1/verdicts/{id}."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Literal
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field

from smoothing_proxy.gateway.label_proofs import LabelProofs
from smoothing_proxy.stats.rounding import rounded_down
from smoothing_proxy.types import Reply, ScoredLabel

__all__ = ["LabelStanding", "Verdict", "proof_headers"]

UNIT = Field(ge=0, le=1, allow_inf_nan=False)

RADIUS = Field(default=0.0, ge=0, allow_inf_nan=False)


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")  # a newer replica may have kept more of it


class LabelStanding(_Document):
    """A label that more than half of the copies' replies carry, or that was voted.

    confidence: the median over the copies. copies: whose replies carry it. votes: of draws for this very name.
    """

    name: str
    confidence: float = UNIT
    copies: int = Field(ge=0)
    votes: int = Field(default=0, ge=0)
    id: str = ""
    parents: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()

    @property
    def scored(self) -> ScoredLabel:
        """As a reply carries it."""
        return ScoredLabel(self.name, self.confidence, self.id, self.parents, self.aliases)


class Verdict(_Document):
    """One picture's answer and its proof.

    kind: PREDICT or CERTIFY of Cohen et al. label: None abstains. hardened: False where the labels are what the
    classifier says of the picture itself, since the votes carried none.
    radius, input_radius: l2, [0, 1] pixel scale, at working_size and at input_size ((height, width) in px); 0.0
    where nothing is certified. p_lower: of CERTIFY, p_value: of PREDICT. alpha: the error's probability.
    copies: draws that the verdict looked at. votes: of them, failed ones apart.
    per_label: what is proven about each label, where that was asked.
    queries, unknown: that it cost, and that may have been billed besides. usd: for both.
    """

    id: str
    kind: Literal["predict", "certify"]
    label: str | None
    hardened: bool = True
    radius: float = RADIUS
    input_radius: float = RADIUS
    p_lower: float | None = None
    p_value: float | None = None
    alpha: float = UNIT
    sigma: float = Field(gt=0)
    copies: int = Field(ge=0)
    votes: dict[str, int]
    failed: int = Field(ge=0)
    labels: tuple[LabelStanding, ...] = ()
    per_label: LabelProofs | None = None
    working_size: tuple[int, int]
    input_size: tuple[int, int]
    model_version: str = ""
    queries: int = Field(ge=0)
    unknown: int = Field(default=0, ge=0)
    usd: float = Field(default=0.0, ge=0)
    picture_sha256: str = ""
    created_at: str = ""

    @cached_property
    def text(self) -> str:
        """As JSON, written once for all who keep it and tell it."""
        return self.model_dump_json()

    @property
    def reply(self) -> Reply:
        """What a vendor's format carries of it."""
        return Reply(tuple(label.scored for label in self.labels), self.model_version, self.id)


def proof_headers(verdicts: Sequence[Verdict | None]) -> Mapping[str, str]:
    """x-smoothing-* headers; of several pictures the values stand in order, with commas between them.

    A label is percent-encoded where it is not plain text. None is a picture that has no verdict: its values are
    empty. No picture at all has no headers.
    """
    if not any(verdicts):
        return {}
    columns = {
        name: ", ".join("" if verdict is None else value(verdict) for verdict in verdicts)
        for name, value in _HEADERS.items()
    }
    return {f"x-smoothing-{name}": text for name, text in columns.items()}


def _abstained(verdict: Verdict) -> str:
    return "unhardened" if not verdict.hardened else str(verdict.label is None).lower()


_HEADERS: Mapping[str, Callable[[Verdict], str]] = {
    "label": lambda verdict: quote(verdict.label or "", safe=" -_.:;()/'"),
    "radius": lambda verdict: rounded_down(verdict.radius, 6),
    "input-radius": lambda verdict: rounded_down(verdict.input_radius, 6),
    "alpha": lambda verdict: f"{verdict.alpha:g}",
    "queries": lambda verdict: str(verdict.queries),
    "abstain": _abstained,
    "verdict-id": lambda verdict: verdict.id,
}
