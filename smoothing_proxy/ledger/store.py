"""One run's memory in one SQLite file: its question, its pictures, its draws and its verdicts."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from sqlalchemy import URL, Connection, bindparam, create_engine, event, insert, update
from sqlalchemy.exc import SQLAlchemyError

from smoothing_proxy.errors import LedgerError
from smoothing_proxy.ledger.account import Account
from smoothing_proxy.ledger.journal import DrawJournal, reopen
from smoothing_proxy.ledger.reader import RUN, LedgerReader
from smoothing_proxy.ledger.records import PictureRecord, certificate_to_json
from smoothing_proxy.ledger.schema import migrate, pictures, runs, verdicts
from smoothing_proxy.ledger.writer import Rows, Writer
from smoothing_proxy.types import Certificate, Label

__all__ = ["Ledger"]

_DESCRIBE = (
    update(pictures)
    .where(pictures.c.run_id == RUN, pictures.c.id == bindparam("picture"))
    .values(
        sha256=bindparam("hash"),
        height=bindparam("high"),
        width=bindparam("wide"),
        entropy=bindparam("bits"),
        reference=bindparam("correct"),
        error=bindparam("fault"),
    )
)


class Ledger(LedgerReader):
    """A run's ledger, held by one process at a time. Close it, or use it as a context manager.

    path: of the SQLite file; it is made where there is none. durable: each commit reaches the disk, so that even
    a power cut forgets no paid draw; False leaves the last moments to the operating system, which is enough when
    queries cost nothing.
    limit_queries: the most that the run may ever spend, over all its processes; None for any number.
    draws: the Journal for a sampler. account: what it has spent and may spend.

    Raises SchemaError when a newer version of this package wrote it, and LedgerError when it cannot be opened or
    another process holds it.
    """

    def __init__(self, path: Path, *, durable: bool = True, limit_queries: int | None = None) -> None:
        self._lock = _locked(path)
        engine = create_engine(URL.create("sqlite", database=str(path)), connect_args={"timeout": 30.0})
        event.listen(engine, "connect", _pragmas("FULL" if durable else "NORMAL"))
        super().__init__(engine)
        try:
            with engine.begin() as connection:
                migrate(connection, where=str(path))
                again = reopen(connection, RUN)
        except BaseException as error:
            engine.dispose()
            self._lock.release()
            if isinstance(error, SQLAlchemyError):
                raise LedgerError(f"{path}: cannot open the ledger: {getattr(error, 'orig', error)}") from error
            raise
        self._writer = Writer(engine, where=str(path))
        cost = self.totals.cost()
        self.account = Account(cost.queries + cost.unknown, limit_queries)
        self.draws = DrawJournal(self._writer, RUN, again, self.account)

    def close(self) -> None:
        """Finish writing, close the file and let go of it. Calling it twice is fine."""
        self._writer.close()
        super().close()
        self._lock.release()

    def begin(self, manifest: Mapping[str, Any], software: Mapping[str, str]) -> None:
        """Write down the run's question before anything is asked."""
        run = {
            "id": RUN,
            "manifest": json.dumps(manifest, sort_keys=True),
            "software": json.dumps(software, sort_keys=True),
            "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        self._write(lambda connection: connection.execute(insert(runs), [run]))

    def add_pictures(self, names: Sequence[str]) -> None:
        """Further pictures for the same question, after the ones that are there."""
        first = len(self.pictures())
        rows = [{"run_id": RUN, "id": first + number, "name": name} for number, name in enumerate(names)]
        if rows:
            self._write(lambda connection: connection.execute(insert(pictures), rows))

    def describe(self, record: PictureRecord) -> None:
        """Keep what decoding a picture told: its identity, size and entropy, or why it could not be certified."""
        height, width = record.size or (None, None)
        row = {
            "picture": record.id,
            "hash": record.sha256,
            "high": height,
            "wide": width,
            "bits": record.entropy,
            "correct": record.reference,
            "fault": record.error,
        }
        self._write(Rows(_DESCRIBE, [row]))

    def refer(self, reference: Mapping[str, Label]) -> None:
        """The labels that count as correct, by picture name."""
        statement = (
            update(pictures)
            .where(pictures.c.run_id == RUN, pictures.c.name == bindparam("picture"))
            .values(reference=bindparam("correct"))
        )
        rows = [{"picture": name, "correct": label} for name, label in reference.items()]
        if rows:
            self._write(lambda connection: connection.execute(statement, rows))

    def decide(self, picture: int, certificate: Certificate) -> None:
        """Keep a picture's verdict."""
        row = {
            "run_id": RUN,
            "picture_id": picture,
            "label": certificate.label,
            "radius": certificate.radius,
            "input_radius": certificate.input_radius,
            "certificate": certificate_to_json(certificate),
            "decided_at": time.time(),
        }
        self._write(lambda connection: connection.execute(insert(verdicts), [row]))

    def _write(self, write: Callable[[Connection], object]) -> None:
        self._writer.submit(write).result()


def _locked(path: Path) -> FileLock:
    lock = FileLock(f"{path}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise LedgerError(f"{path}: another process is working on this run") from None
    except OSError as error:
        raise LedgerError(f"{path}: cannot open the ledger: {error}") from error
    return lock


def _pragmas(synchronous: str) -> Callable[..., None]:
    def on_connect(connection: Any, _: object) -> None:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(f"PRAGMA synchronous = {synchronous}")
        except BaseException:
            connection.close()  # the pool forgets a connection whose set-up failed
            raise

    return on_connect
