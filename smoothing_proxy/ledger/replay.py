"""Every verdict again from the ledger, without a call."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from smoothing_proxy.errors import LedgerError
from smoothing_proxy.images.geometry import WorkingSize, input_radius, resize_map
from smoothing_proxy.ledger.records import PictureRecord
from smoothing_proxy.ledger.store import Ledger
from smoothing_proxy.smoothing.drive import Recording, replay
from smoothing_proxy.smoothing.plan import certify_plan
from smoothing_proxy.smoothing.settings import Smoothing
from smoothing_proxy.types import Certificate

__all__ = ["recorded_smoothing", "replay_certificates"]


def recorded_smoothing(ledger: Ledger) -> Smoothing:
    """The settings that the ledger's draws answer. Raises LedgerError in a ledger where no run was begun."""
    manifest = ledger.manifest()
    if manifest is None:
        raise LedgerError("the ledger holds no run")
    return Smoothing(**manifest["smoothing"])


def replay_certificates(
    ledger: Ledger, *, alpha: float | None = None
) -> Iterator[tuple[PictureRecord, Certificate | None]]:
    """Each picture's certificate, computed again from its recorded draws; None where draws are still missing.

    alpha: another level than the run's. Each level's certificates hold on their own; to choose the level after
    seeing them is not covered by any one of them.
    """
    smoothing = recorded_smoothing(ledger)
    if alpha is not None:
        smoothing = replace(smoothing, alpha=alpha)
    working_size = WorkingSize.parse(smoothing.working_size)
    for record in ledger.pictures():
        recalled = ledger.draws.recall(record.id)
        numbers = range(smoothing.n0 + smoothing.n)
        if record.size is None or any(number not in recalled.votes for number in numbers):
            yield record, None
            continue
        recording = Recording([recalled.votes[number] for number in numbers])
        certificate = replay(certify_plan(smoothing), recording)
        resize = resize_map(*record.size, working_size)
        yield (
            record,
            replace(
                certificate,
                input_radius=input_radius(certificate.radius, resize),
                working_size=resize.working_size,
                input_size=record.size,
                cost=recalled.cost,
            ),
        )
