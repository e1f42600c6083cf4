"""One database, two kinds: a SQLite file for one machine, PostgreSQL for several replicas.

In SQLite there is one writer anyway, so that every transaction of this process goes through one queue and shares
its commits. In PostgreSQL only draws do; what locks the rows of keys has a connection and a transaction of its
own, so that it holds no lock for longer than it needs.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import anyio
import anyio.to_thread
from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.sql.schema import Table

from smoothing_proxy.errors import ConfigError, LedgerError, SmoothingProxyError
from smoothing_proxy.ledger.writer import Writer

__all__ = ["Database", "UndoError", "upsert", "upsert_of", "writable"]

T = TypeVar("T")

CONNECTIONS = 8
"""To PostgreSQL, from one replica, besides the one that writes draws."""

_TRY_AGAIN = ("40001", "40P01")
"""SQLSTATEs of transactions that PostgreSQL rolled back so that others could go on: serialization, deadlock."""

_TRIES = 5


class UndoError(Exception):
    """Raised by work after it has written: all of it is undone, and the caller gets a LedgerError."""


class Database:
    """address: a path, or a URL that begins with postgresql:// or sqlite://.

    Raises ConfigError for another address or a missing driver.
    """

    def __init__(self, address: str | Path) -> None:
        url = _url(address)
        self.where = _where(url)
        self.engine = _engine(url, self.where)
        self._embedded = url.get_backend_name() == "sqlite"
        self._writer: Writer | None = None
        self._threads: anyio.CapacityLimiter | None = None

    def close(self) -> None:
        """Finish what is being written, and let go of the database. Calling it twice is fine."""
        if self._writer is not None:
            self._writer.close()
        self.engine.dispose()

    async def read(self, work: Callable[[Connection], T]) -> T:
        """What `work` reads, in one transaction. Raises LedgerError."""
        return await self._in_thread(partial(self._read, work))

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Do `work` in one transaction, and return once it is safe.

        Errors of this package come out as they are: work raises them only where it has written nothing yet that
        matters. Anything else undoes all of it and comes out as LedgerError. work may be done twice, the first
        time in vain.
        """
        if self._embedded:
            return await self.append(work)
        return await self._in_thread(partial(self.transaction, work))

    async def append(self, work: Callable[[Connection], T]) -> T:
        """As `write`, in one commit with whatever else is being appended; work may lock no row of others."""
        done: list[T] = []
        refused: list[SmoothingProxyError] = []

        def run(connection: Connection) -> None:
            done.clear()
            refused.clear()
            try:
                done.append(work(connection))
            except SmoothingProxyError as error:
                refused.append(error)

        if self._writer is None:
            self._writer = Writer(self.engine, where=self.where)
        # A cancelled caller learns what was committed before it is cancelled, as it does from a thread.
        with anyio.CancelScope(shield=True):
            await asyncio.wrap_future(self._writer.submit(run))
        if refused:
            raise refused[0]
        return done[0]

    def transaction(self, work: Callable[[Connection], T]) -> T:
        """Do `work` in one transaction, in this thread; see `write`."""
        for left in reversed(range(_TRIES)):
            try:
                with self.engine.begin() as connection:
                    return work(connection)
            except DBAPIError as error:
                if left and getattr(error.orig, "sqlstate", None) in _TRY_AGAIN:
                    continue
                raise self._fault("write", error) from error
            except (SQLAlchemyError, UndoError) as error:
                raise self._fault("write", error) from error
        raise AssertionError("the last try returns or raises")

    def _read(self, work: Callable[[Connection], T]) -> T:
        try:
            with self.engine.connect().execution_options(reading=True) as connection:
                return work(connection)
        except SQLAlchemyError as error:
            raise self._fault("read", error) from error

    def _fault(self, what: str, error: Exception) -> LedgerError:
        return LedgerError(f"{self.where}: cannot {what}: {getattr(error, 'orig', None) or error}")

    async def _in_thread(self, work: Callable[[], T]) -> T:
        if self._threads is None:
            self._threads = anyio.CapacityLimiter(CONNECTIONS)
        return await anyio.to_thread.run_sync(work, limiter=self._threads)


def writable(text: str) -> str:
    """Texts from elsewhere may hold lone surrogates and NUL; PostgreSQL's may not."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", "\\x00")


def upsert(connection: Connection, table: Table) -> Any:
    """`INSERT` of the database's own kind, which has on_conflict_do_nothing and on_conflict_do_update."""
    return upsert_of(connection.dialect.name, table)


def upsert_of(kind: str, table: Table) -> Any:
    """See upsert. kind: of database, as SQLAlchemy names it."""
    return postgresql.insert(table) if kind == "postgresql" else sqlite.insert(table)


def _url(address: str | Path) -> URL:
    if isinstance(address, Path) or "://" not in address:
        return URL.create("sqlite", database=str(address))
    try:
        url = make_url(address)
    except (ArgumentError, ValueError):
        raise ConfigError("store: expected a path, or postgresql://USER@HOST/DATABASE") from None
    kind = url.get_backend_name()
    if kind not in ("postgresql", "postgres", "sqlite"):
        raise ConfigError(f"store: expected a path or postgresql://..., got {kind}://...")
    if kind == "sqlite" and url.database in (None, "", ":memory:"):
        raise ConfigError("store: expected a file, since a database in memory is forgotten with its process")
    return url if kind == "sqlite" else url.set(drivername="postgresql+psycopg")


def _where(url: URL) -> str:
    """The address for messages, without anything that may be secret."""
    if url.get_backend_name() == "sqlite":
        return str(url.database)
    return f"postgresql://{url.host or ''}/{url.database or ''}"


def _engine(url: URL, where: str) -> Engine:
    """hide_parameters: the errors of a driver quote statements, never a picture's entropy or a reply."""
    if url.get_backend_name() == "sqlite":
        _make_private(Path(url.database or ""))
        engine = create_engine(url, connect_args={"timeout": 30.0}, hide_parameters=True)
        event.listen(engine, "connect", _set_up_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    try:
        return create_engine(
            url, pool_size=CONNECTIONS + 1, max_overflow=0, pool_pre_ping=True, hide_parameters=True
        )
    except ModuleNotFoundError:
        raise ConfigError(
            f"{where}: the driver for PostgreSQL is not installed: pip install 'smoothing-proxy[postgres]'"
        ) from None


def _make_private(path: Path) -> None:
    """A new file is its owner's alone: it holds the entropy of pictures that are being certified."""
    with contextlib.suppress(OSError):  # said when it is opened
        path.touch(mode=0o600, exist_ok=True)


def _set_up_sqlite(connection: Any, _: object) -> None:
    try:
        connection.isolation_level = (
            None  # transactions begin where `_begin_sqlite` says, not where Python guesses
        )
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
    except BaseException:
        connection.close()  # the pool forgets a connection whose set-up failed
        raise


def _begin_sqlite(connection: Connection) -> None:
    """A transaction that reads first and writes then must be the only one from its beginning on."""
    reading = connection.get_execution_options().get("reading", False)
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")
