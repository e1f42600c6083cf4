"""Hooks that remember all they are told, and a vendor that answers from a script."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import anyio

from smoothing_proxy.errors import BackendError
from smoothing_proxy.transport.courier import Courier
from smoothing_proxy.transport.settings import TransportSettings
from tests.transport.virtual_clock import VirtualClock

__all__ = ["Books", "ScriptedVendor", "courier_of"]

Reply = str | BackendError | Callable[[], BackendError]


class Books:
    """A ledger in memory. events: (what, items), in order. unknown: by item, sends charged though unanswered."""

    def __init__(self) -> None:
        self.events: list[tuple[str, tuple[int, ...]]] = []
        self.answers: dict[int, str | BackendError] = {}
        self.settled_at: dict[int, float] = {}
        self.unknown: Counter[int] = Counter()
        self.stop = False
        self.faults: dict[str, Exception] = {}

    def stopped(self) -> bool:
        return self.stop

    async def sending(self, items: Sequence[int]) -> None:
        self._note("sending", items)

    async def returned(self, items: Sequence[int], error: BackendError) -> None:
        self._note("returned", items)
        self._charge(items, error)

    async def settled(self, items: Sequence[int], answers: Sequence[str | BackendError]) -> None:
        self._note("settled", items)
        for item, answer in zip(items, answers, strict=True):
            assert item not in self.answers
            self.answers[item] = answer
            self.settled_at[item] = VirtualClock().now()
            self._charge([item], answer)

    async def withdrawn(self, items: Sequence[int]) -> None:
        self._note("withdrawn", items)

    def count(self, what: str) -> Counter[int]:
        return Counter(item for event, items in self.events if event == what for item in items)

    def _note(self, what: str, items: Sequence[int]) -> None:
        if what in self.faults:
            raise self.faults[what]
        self.events.append((what, tuple(items)))

    def _charge(self, items: Sequence[int], answer: str | BackendError) -> None:
        if isinstance(answer, BackendError) and answer.maybe_billed:
            self.unknown.update(items)


class ScriptedVendor:
    """Each item has its own script of replies; the last one is repeated. takes_s: how long a request lasts.

    sent: (when, items) of every request. most: the most requests that were under way at once.
    """

    def __init__(self, scripts: dict[int, Sequence[Any]] | Sequence[Any], takes_s: float = 0.1) -> None:
        self._scripts = scripts
        self._takes_s = takes_s
        self._turns: Counter[int] = Counter()
        self.sent: list[tuple[float, tuple[int, ...]]] = []
        self.under_way = self.most = 0

    async def send(self, items: Sequence[int]) -> list[str | BackendError]:
        self.sent.append((VirtualClock().now(), tuple(items)))
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            await anyio.sleep(self._takes_s)
        finally:
            self.under_way -= 1
        return [self._reply(item) for item in items]

    def _reply(self, item: int) -> str | BackendError:
        script = self._scripts[item] if isinstance(self._scripts, dict) else self._scripts
        reply = script[min(self._turns[item], len(script) - 1)]
        self._turns[item] += 1
        made = reply() if callable(reply) else reply
        if isinstance(made, Exception) and not isinstance(made, BackendError):
            raise made
        return made  # type: ignore[no-any-return]


def courier_of(*, in_flight: int = 4, seed: int = 1, **settings: Any) -> Courier:
    """A courier on the virtual clock, fast unless told otherwise."""
    return Courier(
        TransportSettings(**{"requests_per_s": 10_000.0} | settings),
        in_flight=in_flight,
        backend="acme",
        clock=VirtualClock(),
        rng=random.Random(seed),
    )
