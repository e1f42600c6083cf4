"""One database, two kinds: a SQLite file for one machine, PostgreSQL for several replicas.

In SQLite there is one writer anyway, so that every transaction of this process goes through one queue and shares
its commits. In PostgreSQL only draws do; what locks the rows of keys has a connection and a transaction of its
own, so that it holds no lock for longer than it needs.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import anyio
import anyio.to_thread
from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import (
    ArgumentError,
    DataError,
    DBAPIError,
    IntegrityError,
    NotSupportedError,
    OperationalError,
    ProgrammingError,
    SQLAlchemyError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.sql.schema import Table

from smoothing_proxy.errors import ConfigError, LedgerError, SmoothingProxyError
from smoothing_proxy.ledger.gateway.doorstep import Doorstep
from smoothing_proxy.ledger.gateway.nouns import OutageError
from smoothing_proxy.ledger.writer import Writer

__all__ = ["Database", "UndoError", "upsert", "upsert_of", "writable"]

T = TypeVar("T")

CONNECTIONS = 8
"""To PostgreSQL, from one replica, besides the one that writes draws."""

_TRY_AGAIN = ("40001", "40P01")
"""SQLSTATEs of transactions that PostgreSQL rolled back so that others could go on: serialization, deadlock."""

_TRIES = 5

_WAL_PAUSE_S = 0.02


class UndoError(Exception):
    """Raised by work after it has written: all of it is undone, and the caller gets a LedgerError."""


class Database:
    """address: a path, or a URL that begins with postgresql:// or sqlite://. timeout_s: see StoreSettings.

    Every method may raise LedgerError, and OutageError of these where the database is away.
    Raises ConfigError for another address or a missing driver.
    """

    def __init__(self, address: str | Path, timeout_s: float = 10.0) -> None:
        url = _url(address)
        self.where = _where(url)
        self.engine = _engine(url, self.where, timeout_s)
        self._embedded = url.get_backend_name() == "sqlite"
        self._writer: Writer | None = None
        self._threads: anyio.CapacityLimiter | None = None

    def close(self) -> None:
        """Finish what is being written, and let go of the database. Calling it twice is fine."""
        if self._writer is not None:
            self._writer.close()
        self.engine.dispose()

    async def read(self, work: Callable[[Connection], T]) -> T:
        """What `work` reads, in one transaction."""
        return await self._in_thread(partial(self._read, work))

    async def write(self, work: Callable[[Connection], T], *, patience_s: float | None = None) -> T:
        """Do `work` in one transaction, and return once it is safe.

        Errors of this package come out as they are: work raises them only where it has written nothing yet that
        matters. Anything else undoes all of it and comes out as LedgerError. work may be done twice, the first
        time in vain. patience_s: for a statement that may take longer than most.
        """
        if self._embedded:
            return await self.append(work)
        return await self._in_thread(partial(self.transaction, work, patience_s))

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
            try:
                await asyncio.wrap_future(self._writer.submit(run))
            except LedgerError as error:
                if _is_outage(error.__cause__):
                    raise OutageError(str(error)) from error.__cause__
                raise
        if refused:
            raise refused[0]
        return done[0]

    def transaction(self, work: Callable[[Connection], T], patience_s: float | None = None) -> T:
        """Do `work` in one transaction, in this thread; see `write`."""
        for left in reversed(range(_TRIES)):
            try:
                with self.engine.begin() as connection, self._patient(connection, patience_s):
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

    @contextlib.contextmanager
    def _patient(self, connection: Connection, patience_s: float | None) -> Iterator[None]:
        """SQLite answers when it is done; PostgreSQL may be silent for so long."""
        driver: Any = connection.connection.driver_connection
        if self._embedded or patience_s is None:
            yield
            return
        usual, driver.patience_s = driver.patience_s, patience_s
        try:
            yield
        finally:
            driver.patience_s = usual

    def _fault(self, what: str, error: Exception) -> LedgerError:
        kind = OutageError if _is_outage(error) else LedgerError
        return kind(f"{self.where}: cannot {what}: {getattr(error, 'orig', None) or error}")

    async def _in_thread(self, work: Callable[[], T]) -> T:
        if self._threads is None:
            self._threads = anyio.CapacityLimiter(CONNECTIONS)
        return await anyio.to_thread.run_sync(work, limiter=self._threads)


def _is_outage(error: BaseException | None) -> bool:
    """Whether another try may go well: the database is away, locked, full or shutting down."""
    if isinstance(error, IntegrityError | DataError | ProgrammingError | NotSupportedError):
        return False
    return isinstance(error, DBAPIError | PoolTimeoutError)


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


def _engine(url: URL, where: str, timeout_s: float) -> Engine:
    """hide_parameters: the errors of a driver quote statements, never a picture's entropy or a reply."""
    if url.get_backend_name() == "sqlite":
        _make_private(Path(url.database or ""))
        engine = create_engine(url, connect_args={"timeout": timeout_s}, hide_parameters=True)
        event.listen(engine, "connect", partial(_set_up_sqlite, timeout_s))
        event.listen(engine, "begin", partial(_begin_sqlite, Doorstep()))
        return engine
    try:
        from smoothing_proxy.ledger.gateway.postgres import make_engine
    except ModuleNotFoundError:
        raise ConfigError(
            f"{where}: the driver for PostgreSQL is not installed: pip install 'smoothing-proxy[postgres]'"
        ) from None
    return make_engine(url, connections=CONNECTIONS + 1, timeout_s=timeout_s)


def _make_private(path: Path) -> None:
    """A new file is its owner's alone: it holds the entropy of pictures that are being certified."""
    with contextlib.suppress(OSError):  # said when it is opened
        path.touch(mode=0o600, exist_ok=True)


def _set_up_sqlite(timeout_s: float, connection: Any, _: object) -> None:
    try:
        connection.isolation_level = (
            None  # transactions begin where `_begin_sqlite` says, not where Python guesses
        )
        _write_ahead(connection, timeout_s)
        connection.execute("PRAGMA synchronous = FULL")
    except BaseException:
        connection.close()  # the pool forgets a connection whose set-up failed
        raise


def _write_ahead(connection: Any, timeout_s: float) -> None:
    """Of several who turn a new file to WAL at once SQLite refuses all but one, and does not wait as for locks."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
        time.sleep(_WAL_PAUSE_S)


def _begin_sqlite(doorstep: Doorstep, connection: Connection) -> None:
    """A transaction that reads first and writes then must be the only one from its beginning on."""
    if connection.get_execution_options().get("reading", False):
        connection.exec_driver_sql("BEGIN")
        return
    if doorstep.is_vain:
        raise OperationalError(None, None, sqlite3.OperationalError("database is locked"))
    try:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    except OperationalError:
        doorstep.leave()
        raise
