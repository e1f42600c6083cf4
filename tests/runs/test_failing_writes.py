"""A ledger that cannot write for a moment: what may have been billed is never taken for free."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import anyio
import pytest

from smoothing_proxy.errors import BackendError, BackendTimeoutError, BackendUnavailableError, LedgerError
from smoothing_proxy.images.codec import EncodedImage
from smoothing_proxy.ledger.store import Ledger
from smoothing_proxy.smoothing.books import Books, Copy
from smoothing_proxy.smoothing.observe import Outcome
from smoothing_proxy.transport.courier import Courier
from smoothing_proxy.transport.settings import TransportSettings
from smoothing_proxy.types import Cost, Reply, ScoredLabel

HASTY = TransportSettings(requests_per_s=10_000, backoff_base_s=0.001, backoff_max_s=0.001)
CAT = Reply((ScoredLabel("cat", 0.9),))
COPY = EncodedImage(b"", "raw", 1, 1)
Answers = Sequence[Reply | BackendError]


class Stream:
    """Takes every note."""

    stopped = False

    def take_note(self, outcomes: Sequence[Outcome]) -> None:
        """Nothing."""

    def take_back(self, draws: Sequence[int], error: BackendError) -> None:
        """Nothing."""


def outcome(draw: int, answer: Reply | BackendError) -> Outcome:
    if isinstance(answer, BackendError):
        return Outcome(draw, None, error=answer)
    return Outcome(draw, "cat", reply=answer)


@contextmanager
def full_for(path: Path, when: str) -> Iterator[None]:
    """The database refuses every such change of a draw, for as long as the context lasts."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(
            f"CREATE TRIGGER full BEFORE UPDATE ON draws WHEN {when} BEGIN SELECT RAISE(ABORT, 'disk full'); END"
        )
        yield
        connection.execute("DROP TRIGGER full")


def lost_answer() -> Answers:
    raise BackendTimeoutError("reset after the body was read")


def broken_backend() -> Answers:
    raise RuntimeError("a bug after the request had left")


MORE_UNKNOWN, NOW_SETTLED, NOW_FREE = (
    "NEW.unknown > OLD.unknown",
    "NEW.status = 'settled'",
    "NEW.status = 'withdrawn' AND NEW.unknown = OLD.unknown",
)


@pytest.mark.parametrize(
    ("refused", "reply", "unknown"),
    [
        (MORE_UNKNOWN, lost_answer, 2),
        (MORE_UNKNOWN, broken_backend, 2),
        (MORE_UNKNOWN, lambda: [CAT, BackendTimeoutError("no answer")], 1),
        (NOW_SETTLED, lambda: [CAT, BackendTimeoutError("no answer")], 2),
        (NOW_SETTLED, lambda: [CAT, CAT], 2),
        (NOW_FREE, lambda: [BackendUnavailableError("not taken")] * 2, 2),
    ],
)
def test_a_send_whose_end_could_not_be_written_down_is_charged(
    refused: str, reply: object, unknown: int, tmp_path: Path
) -> None:
    path = tmp_path / "ledger.db"

    async def send(_: Sequence[Copy]) -> Answers:
        return reply()  # type: ignore[operator, no-any-return]

    async def deliver(books: Books) -> None:
        with pytest.raises((LedgerError, RuntimeError)):
            await Courier(HASTY, in_flight=4, backend="acme").deliver([(0, COPY), (1, COPY)], send, books)

    with Ledger(path, durable=False) as ledger:
        with full_for(path, refused):
            anyio.run(deliver, Books(ledger.draws, outcome, 0, Stream()))
        cost = ledger.totals.cost()
        assert cost.unknown == unknown
        assert ledger.account.spent == cost.queries + cost.unknown
    with Ledger(path, durable=False) as again:
        assert again.totals.cost() == Cost(queries=cost.queries, unknown=unknown)
