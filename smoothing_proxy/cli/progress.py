"""The progress of a run on the terminal: pictures, queries, spend, time left."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from smoothing_proxy.errors import BackendError, RateLimitedError
from smoothing_proxy.ledger.records import PictureRecord
from smoothing_proxy.smoothing.observe import Outcome
from smoothing_proxy.types import Certificate, Cost

__all__ = ["RunProgress"]


class RunProgress:
    """A RunObserver that draws on standard error; price_usd: dollars for one query."""

    def __init__(self, price_usd: float) -> None:
        self._price_usd = price_usd
        self._pictures = self._ended = self._proven = 0
        self._cost = Cost()
        self._per_picture = 0
        self._told: set[type[BackendError]] = set()
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self._task = self._progress.add_task("", total=None)

    def begun(self, pictures: int, draws: int, decided: Sequence[Certificate], settled: int, cost: Cost) -> None:
        """See RunObserver.begun."""
        self._pictures, self._ended, self._cost = pictures, len(decided), cost
        self._proven = sum(certificate.label is not None for certificate in decided)
        # A sequential proof may end long before its last draw; what it saves is done as well.
        self._per_picture = draws // max(1, pictures)
        saved = sum(max(0, self._per_picture - certificate.queries) for certificate in decided)
        self._progress.update(self._task, total=draws, completed=settled + saved)
        if settled:
            self.say(
                f"resuming: {len(decided)} of {pictures} pictures and {settled:,} of {draws:,} draws are done"
            )
        self._refresh()

    def settled(self, picture: int, outcomes: Sequence[Outcome]) -> None:
        """See Observer.settled."""
        self._cost = sum((outcome.cost for outcome in outcomes), self._cost)
        self._progress.update(self._task, advance=len(outcomes))
        self._refresh()

    def withdrawn(self, picture: int, draws: Sequence[int], error: BackendError) -> None:
        """See Observer.withdrawn. The first failure of each kind is said, since a run that waits looks idle."""
        if not isinstance(error, RateLimitedError) and type(error) not in self._told:
            self._told.add(type(error))
            self.say(f"sent again: {error}")
        if error.maybe_billed:
            self._cost += Cost(unknown=len(draws))
            self._refresh()

    def decided(self, record: PictureRecord, certificate: Certificate) -> None:
        """See RunObserver.decided."""
        self._ended += 1
        self._progress.update(self._task, advance=max(0, self._per_picture - certificate.queries))
        self._proven += certificate.label is not None
        self._refresh()

    def left_out(self, record: PictureRecord) -> None:
        """See RunObserver.left_out."""
        self._ended += 1
        self.say(f"left out: {record.error}")
        self._refresh()

    def say(self, text: str) -> None:
        """A line above the bar."""
        self._progress.console.print(text, highlight=False, markup=False)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def _refresh(self) -> None:
        cost = self._cost.at(self._price_usd)
        self._progress.update(
            self._task,
            description=f"{self._ended}/{self._pictures} pictures, {self._proven} proven, "
            f"{cost.queries:,} queries, ${cost.usd:,.2f}",
        )
