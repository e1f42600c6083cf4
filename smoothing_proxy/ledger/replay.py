"""Every verdict again from the ledger, without a call."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import count, takewhile

from smoothing_proxy.errors import LedgerError
from smoothing_proxy.images.geometry import WorkingSize, resize_map
from smoothing_proxy.ledger.reader import LedgerReader
from smoothing_proxy.ledger.records import PictureRecord
from smoothing_proxy.smoothing.drive import Recording, replay
from smoothing_proxy.smoothing.observe import Recalled
from smoothing_proxy.smoothing.picture import place
from smoothing_proxy.smoothing.plan import certify_plan
from smoothing_proxy.smoothing.settings import Smoothing
from smoothing_proxy.types import Certificate

__all__ = ["recorded_smoothing", "replay_certificates"]


def recorded_smoothing(ledger: LedgerReader) -> Smoothing:
    """The settings that the ledger's draws answer. Raises LedgerError in a ledger where no run was begun."""
    manifest = ledger.manifest()
    if manifest is None:
        raise LedgerError("the ledger holds no run")
    return Smoothing(**manifest["smoothing"])


def replay_certificates(
    ledger: LedgerReader, *, alpha: float | None = None
) -> Iterator[tuple[PictureRecord, Certificate | None]]:
    """Each picture's certificate, computed again from its recorded draws; None where draws are still missing.

    alpha: another level than the run's. Each level's certificates hold on their own; to choose the level after
    seeing them is not covered by any one of them.
    """
    smoothing = recorded_smoothing(ledger)
    price_usd = (ledger.manifest() or {})["price_usd"]
    if alpha is not None:
        smoothing = replace(smoothing, alpha=alpha)
    working_size = WorkingSize.parse(smoothing.working_size)
    for record in ledger.pictures():
        recalled = ledger.recall(record.id)
        certificate = _certificate(smoothing, recalled)
        if record.size is None or certificate is None:
            yield record, None
        else:
            placed = place(certificate, resize_map(*record.size, working_size))
            yield record, replace(placed, cost=recalled.cost.at(price_usd))


def _certificate(smoothing: Smoothing, recalled: Recalled) -> Certificate | None:
    """From the draws 0, 1, ... as far as they are settled; None where the plan asks for more."""
    prefix = takewhile(recalled.votes.__contains__, count())
    try:
        return replay(certify_plan(smoothing), Recording([recalled.votes[number] for number in prefix]))
    except LedgerError:
        return None
