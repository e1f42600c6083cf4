"""What all draws of a run amount to: their cost, their failures, who answered them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Engine, func, select

from smoothing_proxy.ledger.query import rows_of
from smoothing_proxy.ledger.schema import draws
from smoothing_proxy.smoothing.observe import CLEAN
from smoothing_proxy.types import Cost, Label

__all__ = ["CanaryRecord", "DrawTotals"]


@dataclass(frozen=True, slots=True)
class CanaryRecord:
    """One answered canary. vote: what the label map made of it. scores: confidence in [0, 1] by label."""

    vote: Label | None
    model_version: str
    scores: Mapping[str, float]


class DrawTotals:
    """Totals over one run of a ledger, computed when they are asked for."""

    def __init__(self, engine: Engine, run: int) -> None:
        self._engine = engine
        self._of_run = draws.c.run_id == run

    def cost(self) -> Cost:
        """What all draws of the run have cost so far, in queries; one that is in flight may have been billed."""
        settled = func.count().filter(draws.c.status == "settled")
        in_flight = func.count().filter(draws.c.status == "sent")
        unknown = func.coalesce(func.sum(draws.c.unknown), 0) + in_flight
        query = select(settled.label("queries"), unknown.label("unknown")).where(self._of_run)
        totals = rows_of(self._engine, query)[0]
        return Cost(queries=totals.queries, unknown=totals.unknown)

    def failures(self) -> dict[str, int]:
        """Why draws failed for good, with how many did, most first."""
        query = (
            select(draws.c.error, func.count().label("how_many"))
            .where(self._of_run, draws.c.status == "failed")
            .group_by(draws.c.error)
            .order_by(func.count().desc(), draws.c.error)
        )
        return {row.error: row.how_many for row in rows_of(self._engine, query)}

    def settled(self) -> int:
        """How many draws need not be asked again: answered, or failed for good."""
        query = select(func.count()).where(self._of_run, draws.c.status.in_(["settled", "failed"]))
        return int(rows_of(self._engine, query)[0][0])

    def settled_by_picture(self) -> dict[int, int]:
        """The same for each picture, its canaries left out."""
        query = (
            select(draws.c.picture_id, func.count().label("how_many"))
            .where(self._of_run, draws.c.status.in_(["settled", "failed"]), draws.c.number >= CLEAN)
            .group_by(draws.c.picture_id)
        )
        return {row.picture_id: row.how_many for row in rows_of(self._engine, query)}

    def clean_pictures(self) -> int:
        """How many pictures the classifier was asked about as they are."""
        query = select(func.count()).where(self._of_run, draws.c.number == CLEAN)
        return int(rows_of(self._engine, query)[0][0])

    def model_versions(self) -> list[str]:
        """Every model version that answered, in alphabetical order."""
        query = select(draws.c.model_version).where(self._of_run).distinct()
        return sorted(row.model_version for row in rows_of(self._engine, query) if row.model_version)

    def canaries(self) -> list[CanaryRecord]:
        """The answered canaries, in the order in which they were asked."""
        query = (
            select(draws.c.label, draws.c.model_version, draws.c.reply)
            .where(self._of_run, draws.c.number < CLEAN, draws.c.status == "settled")
            .order_by(draws.c.number.desc())
        )
        rows = rows_of(self._engine, query)
        return [CanaryRecord(row.label, row.model_version or "", _scores(row.reply)) for row in rows]

    def next_canary(self, picture: int) -> int:
        """The number of the next canary draw of this picture."""
        lowest = select(func.min(draws.c.number)).where(self._of_run, draws.c.picture_id == picture)
        return int(min(rows_of(self._engine, lowest)[0][0] or 0, CLEAN)) - 1

    def pictures_begun(self) -> set[int]:
        """The pictures of which at least one noisy draw was sent."""
        query = select(draws.c.picture_id).where(self._of_run, draws.c.number > CLEAN).distinct()
        return {row[0] for row in rows_of(self._engine, query)}


def _scores(reply: str) -> dict[str, float]:
    """Of a reply as records.reply_to_json wrote it."""
    return {name: confidence for name, confidence, *_ in json.loads(reply)}
