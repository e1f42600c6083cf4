"""The books of many requests under one sampler: each picture has a page, with its request's journal and meter."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from smoothing_proxy.errors import BackendError
from smoothing_proxy.smoothing.observe import Journal, Outcome
from smoothing_proxy.types import Cost

__all__ = ["JournalOfPages", "Meter", "Page", "Pages", "WatcherOfPages"]


@dataclass
class Meter:
    """What a request has cost so far, known even when it fails; in queries alone. settled: draws that are over."""

    cost: Cost = field(default_factory=Cost)
    settled: int = 0


@dataclass
class Page:
    """One picture under way. number: in its request. outcomes: of its settled draws. meters: all that count it."""

    number: int
    journal: Journal
    meters: tuple[Meter, ...]
    outcomes: dict[int, Outcome] = field(default_factory=dict)

    def charge(self, cost: Cost) -> None:
        """Add to each meter."""
        for meter in self.meters:
            meter.cost += cost


class Pages:
    """The pictures under way, by their id in the sampler."""

    def __init__(self) -> None:
        self._pages: dict[int, Page] = {}

    def __getitem__(self, picture: int) -> Page:
        return self._pages[picture]

    @contextmanager
    def open(self, picture: int, number: int, journal: Journal, *meters: Meter) -> Iterator[Page]:
        """The picture's page, for as long as the context lasts."""
        self._pages[picture] = Page(number, journal, meters)
        try:
            yield self._pages[picture]
        finally:
            del self._pages[picture]


class JournalOfPages:
    """Implements Journal: leads each picture's draws to the journal of its request."""

    def __init__(self, pages: Pages) -> None:
        self._pages = pages

    async def sent(self, picture: int, draws: Sequence[int]) -> None:
        """See Journal."""
        page = self._pages[picture]
        await page.journal.sent(page.number, draws)

    async def settled(self, picture: int, outcomes: Sequence[Outcome]) -> None:
        """See Journal."""
        page = self._pages[picture]
        await page.journal.settled(page.number, outcomes)

    async def withdrawn(self, picture: int, draws: Sequence[int], *, maybe_billed: bool = False) -> None:
        """See Journal."""
        page = self._pages[picture]
        await page.journal.withdrawn(page.number, draws, maybe_billed=maybe_billed)


class WatcherOfPages:
    """Implements Observer: keeps each picture's replies, and counts what it costs."""

    def __init__(self, pages: Pages) -> None:
        self._pages = pages

    def settled(self, picture: int, outcomes: Sequence[Outcome]) -> None:
        """See Observer."""
        page = self._pages[picture]
        page.outcomes |= {outcome.draw: outcome for outcome in outcomes}
        for meter in page.meters:
            meter.settled += len(outcomes)
        for outcome in outcomes:
            page.charge(outcome.cost)

    def withdrawn(self, picture: int, draws: Sequence[int], error: BackendError) -> None:
        """See Observer."""
        if error.maybe_billed:
            self._pages[picture].charge(Cost(unknown=len(draws)))
