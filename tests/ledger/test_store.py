"""The ledger remembers every draw, whatever happens to the process that made it."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import anyio
import pytest

from smoothing_proxy.errors import (
    BackendError,
    BackendTimeoutError,
    LedgerError,
    MalformedReplyError,
    RequestRejectedError,
    SchemaError,
)
from smoothing_proxy.ledger.reader import LedgerReader
from smoothing_proxy.ledger.records import PictureRecord
from smoothing_proxy.ledger.schema import migrations
from smoothing_proxy.ledger.store import Ledger
from smoothing_proxy.smoothing.observe import Outcome
from smoothing_proxy.types import Certificate, Cost, Reply, ScoredLabel, Votes

pytestmark = pytest.mark.anyio

CAT = Reply((ScoredLabel("cat", 0.75, "n1"), ScoredLabel("dog", 0.25)), model_version="3.0")
CERTIFICATE = Certificate(
    label="cat",
    radius=0.3,
    p_lower=0.9,
    sigma=0.25,
    alpha=0.001,
    votes=Votes({"cat": 99}, failed=1),
    selection=Votes({"cat": 10}),
    input_radius=0.4,
    working_size=(224, 224),
    input_size=(375, 500),
    cost=Cost(110, 1, 0.111),
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


def answered(draw: int) -> Outcome:
    return Outcome(draw, "cat", reply=CAT)


def failed(draw: int, error: BackendError) -> Outcome:
    return Outcome(draw, None, error=error)


def row(path: Path, draw: int) -> dict[str, object]:
    connection = sqlite3.connect(path)
    connection.row_factory = sqlite3.Row
    found = dict(connection.execute("SELECT * FROM draws WHERE number = ?", [draw]).fetchone())
    connection.close()
    return found


async def test_a_draw_is_on_disk_before_sent_returns(path: Path) -> None:
    with Ledger(path) as ledger:
        await ledger.draws.sent(7, [0, 1])
        assert row(path, 1)["status"] == "sent"
        await ledger.draws.settled(7, [answered(1)])
        settled = row(path, 1)
    assert (settled["status"], settled["label"], settled["model_version"]) == ("settled", "cat", "3.0")
    assert settled["reply"] == '[["cat",0.75,"n1"],["dog",0.25,""]]'


async def test_settled_and_failed_draws_are_recalled_and_costed(path: Path) -> None:
    with Ledger(path) as ledger:
        await ledger.draws.sent(0, [0, 1, 2])
        await ledger.draws.settled(
            0, [answered(0), failed(1, RequestRejectedError("too large")), failed(2, BackendTimeoutError("60 s"))]
        )
    with Ledger(path) as ledger:
        recalled = ledger.recall(0)
        assert dict(recalled.votes) == {0: "cat", 1: None, 2: None}
        assert recalled.cost == ledger.totals.cost() == Cost(queries=1, unknown=1)
        assert ledger.totals.failures() == {
            "BackendTimeoutError: 60 s": 1,
            "RequestRejectedError: too large": 1,
        }


async def test_a_draw_in_flight_at_a_crash_is_unknown_and_is_sent_once_more(path: Path) -> None:
    with Ledger(path) as ledger:
        await ledger.draws.sent(0, [0, 1])
        await ledger.draws.settled(0, [answered(0)])
    with Ledger(path) as ledger:
        assert dict(ledger.recall(0).votes) == {0: "cat"}
        assert ledger.totals.cost() == Cost(queries=1, unknown=1)
        await ledger.draws.sent(0, [1])
        await ledger.draws.settled(0, [answered(1)])
    again = row(path, 1)
    assert (again["status"], again["sends"], again["unknown"]) == ("settled", 2, 1)
    with Ledger(path) as ledger:
        assert ledger.totals.cost() == Cost(queries=2, unknown=1)


async def test_a_withdrawn_draw_costs_nothing_and_is_sent_again(path: Path) -> None:
    with Ledger(path) as ledger:
        await ledger.draws.sent(0, [0])
        await ledger.draws.withdrawn(0, [0])
        await ledger.draws.sent(0, [0])
        await ledger.draws.withdrawn(0, [0])
    with Ledger(path) as ledger:
        assert ledger.recall(0).votes == {}
        assert ledger.totals.cost() == Cost()
        await ledger.draws.sent(0, [0])
        await ledger.draws.settled(0, [answered(0)])
        assert ledger.totals.cost() == Cost(queries=1)


async def test_writes_of_many_pictures_at_once_are_all_kept(path: Path) -> None:
    async def ask(ledger: Ledger, picture: int) -> None:
        for draw in range(20):
            await ledger.draws.sent(picture, [draw])
            await ledger.draws.settled(picture, [answered(draw)])

    with Ledger(path, durable=False) as ledger:
        async with anyio.create_task_group() as tasks:
            for picture in range(30):
                tasks.start_soon(ask, ledger, picture)
    with Ledger(path) as ledger:
        assert ledger.totals.cost() == Cost(queries=600)


async def test_a_cancelled_writer_is_still_written(path: Path) -> None:
    with Ledger(path) as ledger:
        await ledger.draws.sent(0, [0])
        with anyio.CancelScope() as scope:
            scope.cancel()
            await ledger.draws.settled(0, [answered(0)])
    with Ledger(path) as ledger:
        assert dict(ledger.recall(0).votes) == {0: "cat"}


def test_pictures_and_verdicts_come_back_as_they_were(path: Path) -> None:
    record = PictureRecord(1, "b/dog.png", "ab" * 32, (375, 500), bytes(16), "dog", None)
    with Ledger(path) as ledger:
        ledger.begin({"smoothing": {"sigma": 0.25}}, {"numpy": "2"})
        ledger.add_pictures(["a.png"])
        ledger.add_pictures(["b/dog.png"])
        ledger.describe(record)
        ledger.decide(1, CERTIFICATE)
    with Ledger(path) as ledger:
        assert ledger.manifest() == {"smoothing": {"sigma": 0.25}}
        assert ledger.software() == {"numpy": "2"}
        assert ledger.pictures() == [PictureRecord(0, "a.png"), record]
        assert ledger.verdicts() == {1: CERTIFICATE}


def test_a_fresh_ledger_holds_no_run(path: Path) -> None:
    with Ledger(path) as ledger:
        assert ledger.manifest() is None
        assert ledger.software() == {}
        assert ledger.pictures() == []


def test_only_one_process_works_on_a_run(path: Path) -> None:
    with Ledger(path):
        found: list[str] = []

        def second() -> None:
            with pytest.raises(LedgerError) as caught:
                Ledger(path)
            found.append(str(caught.value))

        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    assert "another process is working on this run" in found[0]


def test_a_ledger_of_a_newer_version_is_refused_and_untouched(path: Path) -> None:
    Ledger(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("INSERT INTO schema_version VALUES (?)", [len(migrations) + 1])
    connection.close()
    with pytest.raises(SchemaError, match="written by a newer version of smoothing-proxy"):
        Ledger(path)


@pytest.mark.parametrize("content", [b"this is no database, whatever its name says" * 100])
def test_a_file_that_is_no_ledger_is_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(LedgerError, match="cannot open the ledger: file is not a database"):
        Ledger(path)


async def test_a_full_disk_is_said_and_what_was_kept_stays(path: Path) -> None:
    with Ledger(path) as ledger:
        await ledger.draws.sent(0, [0])
        await ledger.draws.settled(0, [answered(0)])
        with ledger._engine.begin() as connection:
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        _limit_pages(ledger, pages)
        with pytest.raises(LedgerError, match="cannot write: database or disk is full"):
            await ledger.draws.sent(0, range(1, 20_000))
    with Ledger(path) as ledger:
        assert ledger.totals.cost() == Cost(queries=1)
        assert dict(ledger.recall(0).votes) == {0: "cat"}


def _limit_pages(ledger: Ledger, pages: int) -> None:
    """SQLite says "database or disk is full" at this size, exactly as on a full disk."""
    from sqlalchemy import event

    ledger._engine.dispose()
    event.listen(ledger._engine, "connect", lambda raw, _: raw.execute(f"PRAGMA max_page_count = {pages}"))


async def test_one_write_that_cannot_be_made_takes_no_other_down_with_it(path: Path) -> None:
    with Ledger(path) as ledger:
        async with anyio.create_task_group() as tasks:

            async def again() -> None:
                with pytest.raises(LedgerError, match="UNIQUE constraint failed"):
                    await ledger.draws.sent(0, [0])

            await ledger.draws.sent(0, [0])
            tasks.start_soon(again)
            for draw in range(1, 20):
                tasks.start_soon(ledger.draws.sent, 0, [draw])
    with Ledger(path) as ledger:
        assert ledger.totals.cost() == Cost(unknown=20)


async def test_text_that_no_database_takes_is_kept_in_another_form(path: Path) -> None:
    strange = Reply((ScoredLabel("\ud800", 0.5),), model_version="v\udfff")
    with Ledger(path) as ledger:
        await ledger.draws.sent(0, [0, 1])
        error = MalformedReplyError("lone surrogate \ud800", reply=b"\xff{")
        await ledger.draws.settled(0, [Outcome(0, None, reply=strange, error=error), failed(1, error)])
    assert row(path, 0)["model_version"] == "v\\udfff"
    assert row(path, 1)["reply"] == "\\xff{"


def test_a_closed_ledger_says_so(path: Path) -> None:
    ledger = Ledger(path)
    ledger.close()
    ledger.close()
    with pytest.raises(LedgerError, match="the ledger was closed"):
        ledger.add_pictures(["a.png"])


def test_a_path_is_a_path_and_no_address(tmp_path: Path) -> None:
    odd = tmp_path / "q?x=1#%20"
    odd.mkdir()
    with Ledger(odd / "ledger.db") as ledger:
        ledger.add_pictures(["a.png"])
    assert (odd / "ledger.db").is_file()
    with LedgerReader.open(odd / "ledger.db") as reader:
        assert [record.name for record in reader.pictures()] == ["a.png"]


async def test_a_reader_looks_while_a_run_writes_and_changes_nothing(path: Path) -> None:
    with Ledger(path) as ledger:
        await ledger.draws.sent(0, [0])
        with LedgerReader.open(path) as reader:
            assert reader.totals.cost() == Cost(unknown=1), "what is in flight may have been billed"
        await ledger.draws.settled(0, [answered(0)])
        assert ledger.totals.cost() == Cost(queries=1), "looking did not make the draw in flight unknown"


def test_a_ledger_that_lost_a_table_is_said(path: Path) -> None:
    with Ledger(path) as ledger:
        with sqlite3.connect(path) as connection:
            connection.execute("DROP TABLE pictures")
        connection.close()
        with pytest.raises(LedgerError, match="cannot read: no such table: pictures"):
            ledger.pictures()
