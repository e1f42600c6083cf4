"""Canary draws: the same clean picture asked about at a run's start, middle and end, to see the classifier drift.

A vendor may change its model at any time and need not say so. Within one certificate a stated change of version
voids it; canaries show the changes that nobody states.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from smoothing_proxy.ledger.account import CANARY
from smoothing_proxy.ledger.store import Ledger
from smoothing_proxy.ledger.totals import CanaryRecord
from smoothing_proxy.smoothing.halt import Halt
from smoothing_proxy.smoothing.observe import Recalled
from smoothing_proxy.smoothing.picture import Picture
from smoothing_proxy.smoothing.sampler import Sampler

__all__ = ["CANARIES", "Canary", "drift"]

CANARIES = 3
"""Queries that the canaries of one uninterrupted run cost."""


@dataclass(frozen=True)
class Canary:
    """picture: opened for the purpose; its further draws below CLEAN are canaries, each numbered once."""

    ledger: Ledger
    sampler: Sampler
    picture: Picture

    def promise(self) -> None:
        """Keep a query for each canary, where there is one: a run on a small budget may drift as well."""
        for _ in range(CANARIES):
            self.ledger.account.promise(CANARY, 1)

    async def ask(self, halt: Halt) -> None:
        """One more canary, where a query was kept for it."""
        if self.ledger.account.promised(CANARY) < 1 or halt.requested:
            return
        number = self.ledger.totals.next_canary(self.picture.id)
        await self.sampler.clean(self.picture, Recalled(), halt, number=number)


def drift(canaries: Sequence[CanaryRecord]) -> Mapping[str, Any]:
    """What the canaries say, as JSON values. changed: whether label or stated model version differ among them.

    confidence_change: the largest change of any label's confidence between the first canary and a later one.
    """
    votes = {canary.vote for canary in canaries}
    versions = {canary.model_version for canary in canaries}
    return {
        "canaries": len(canaries),
        "changed": len(votes) > 1 or len(versions) > 1,
        "votes": sorted(str(label) for label in votes),
        "model_versions": sorted(versions),
        "confidence_change": max((_change(canaries[0], later) for later in canaries[1:]), default=0.0),
    }


def _change(first: CanaryRecord, later: CanaryRecord) -> float:
    labels = first.scores.keys() | later.scores.keys()
    return max((abs(first.scores.get(x, 0.0) - later.scores.get(x, 0.0)) for x in labels), default=0.0)
