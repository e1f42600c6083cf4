"""Many writes in one transaction: none takes another down, and whoever waits hears of his own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import (
    Column,
    Connection,
    Engine,
    Integer,
    MetaData,
    Table,
    create_engine,
    event,
    insert,
    select,
    update,
)

from smoothing_proxy.errors import LedgerError
from smoothing_proxy.ledger.writer import Rows, Writer

numbers = Table("numbers", MetaData(), Column("id", Integer, primary_key=True), Column("value", Integer))
INSERT = insert(numbers)
DOUBLE = update(numbers).values(value=numbers.c.value * 2)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    made = create_engine(f"sqlite:///{tmp_path / 'numbers.db'}")
    numbers.metadata.create_all(made)
    yield made
    made.dispose()


@pytest.fixture
def writer(engine: Engine) -> Iterator[Writer]:
    made = Writer(engine, where="numbers.db")
    yield made
    made.close()


def row(number: int) -> Rows:
    return Rows(INSERT, [{"id": number, "value": number}])


def stored(engine: Engine) -> dict[int, int]:
    with engine.connect() as connection:
        rows = connection.execute(select(numbers).order_by(numbers.c.id))
        return {row.id: row.value for row in rows}


def held(writer: Writer) -> threading.Event:
    """The writer waits with what is asked from now on, until the event is set."""
    begun, go_on = threading.Event(), threading.Event()

    def wait(_: Connection) -> None:
        begun.set()
        go_on.wait(10)

    writer.submit(wait)
    assert begun.wait(10)
    return go_on


def test_rows_of_one_statement_are_one_statement(engine: Engine, writer: Writer) -> None:
    begun: list[tuple[str, int]] = []

    @event.listens_for(engine, "before_cursor_execute")
    def _(*about: Any) -> None:
        begun.append((about[2].split()[0], len(about[3]) if about[5] else 1))

    go_on = held(writer)
    futures = [writer.submit(row(number)) for number in range(5)]
    futures += [writer.submit(lambda connection: connection.execute(DOUBLE)), writer.submit(row(5))]
    go_on.set()
    for future in futures:
        future.result(10)
    assert begun == [("INSERT", 5), ("UPDATE", 1), ("INSERT", 1)]
    assert stored(engine) == {0: 0, 1: 2, 2: 4, 3: 6, 4: 8, 5: 5}


@pytest.mark.anyio
async def test_a_write_that_cannot_be_made_fails_alone(engine: Engine, writer: Writer) -> None:
    go_on = held(writer)
    writes = [row(1), row(2), row(1), row(3)]
    tasks = [asyncio.create_task(writer.write(write)) for write in writes]
    await asyncio.sleep(0)
    go_on.set()
    async with asyncio.timeout(10):
        ends = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(end) for end in ends] == [type(None), type(None), LedgerError, type(None)]
    assert "numbers.db: cannot write" in str(ends[2])
    assert stored(engine) == {1: 1, 2: 2, 3: 3}


@pytest.mark.anyio
async def test_who_stops_waiting_is_written_all_the_same(engine: Engine, writer: Writer) -> None:
    go_on = held(writer)
    tasks = [asyncio.create_task(writer.write(row(number))) for number in range(3)]
    await asyncio.sleep(0)
    tasks[1].cancel()
    go_on.set()
    async with asyncio.timeout(10):
        ends = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(end) for end in ends] == [type(None), asyncio.CancelledError, type(None)]
    assert sorted(stored(engine)) == [0, 1, 2]


def test_who_stops_waiting_does_not_end_the_writer_where_another_write_fails(
    engine: Engine, writer: Writer
) -> None:
    go_on = held(writer)
    left, refused = writer.submit(row(1)), [writer.submit(row(2)), writer.submit(row(2))]
    assert left.cancel()
    go_on.set()
    with pytest.raises(LedgerError, match="cannot write"):
        refused[1].result(10)
    writer.submit(row(3)).result(10)
    assert sorted(stored(engine)) == [1, 2, 3]


def test_a_loop_that_is_gone_disturbs_nobody(engine: Engine, writer: Writer) -> None:
    go_on = held(writer)

    async def leave() -> None:
        task = asyncio.create_task(writer.write(row(1)))
        await asyncio.sleep(0)
        task.cancel()

    asyncio.run(leave())
    other = writer.submit(row(2))
    go_on.set()
    other.result(10)
    writer.submit(row(3)).result(10)
    assert sorted(stored(engine)) == [1, 2, 3]


@pytest.mark.anyio
async def test_a_closed_writer_takes_nothing(writer: Writer) -> None:
    writer.close()
    with pytest.raises(LedgerError, match="was closed"):
        await writer.write(row(1))
    with pytest.raises(LedgerError, match="was closed"):
        writer.submit(row(1))


@pytest.mark.anyio
async def test_what_tasks_ask_for_in_one_turn_of_their_loop_is_one_transaction(
    engine: Engine, writer: Writer
) -> None:
    commits: list[Connection] = []
    event.listen(engine, "commit", commits.append)
    woken = asyncio.Event()

    async def answered() -> None:
        woken.set()
        await writer.write(row(1))

    async def sends() -> None:
        await woken.wait()
        await writer.write(row(2))

    async with asyncio.timeout(10):
        waiting = asyncio.create_task(sends())
        await asyncio.sleep(0)
        await asyncio.gather(waiting, answered())
    assert len(commits) == 1
    assert sorted(stored(engine)) == [1, 2]


@pytest.mark.anyio
async def test_what_was_asked_for_in_the_turn_that_closes_the_writer_is_written(
    engine: Engine, writer: Writer
) -> None:
    task = asyncio.create_task(writer.write(row(1)))
    await asyncio.sleep(0)
    writer.close()
    async with asyncio.timeout(10):
        await task
    assert sorted(stored(engine)) == [1]
