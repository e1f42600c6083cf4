"""A run's observer that looks away."""

from __future__ import annotations

from collections.abc import Sequence

from smoothing_proxy.errors import BackendError
from smoothing_proxy.ledger.records import PictureRecord
from smoothing_proxy.smoothing.observe import Outcome
from smoothing_proxy.types import Certificate, Cost

__all__ = ["Silent"]


class Silent:
    """Says and keeps nothing."""

    def begun(self, pictures: int, draws: int, decided: Sequence[Certificate], settled: int, cost: Cost) -> None:
        """Nothing."""

    def settled(self, picture: int, outcomes: Sequence[Outcome]) -> None:
        """Nothing."""

    def withdrawn(self, picture: int, draws: Sequence[int], error: BackendError) -> None:
        """Nothing."""

    def decided(self, record: PictureRecord, certificate: Certificate) -> None:
        """Nothing."""

    def left_out(self, record: PictureRecord) -> None:
        """Nothing."""
