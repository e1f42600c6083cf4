"""One run's memory in one SQLite file: its question, its pictures, its draws and its verdicts."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from filelock import FileLock, Timeout
from sqlalchemy import Connection, Row, Select, create_engine, event, insert, select, update
from sqlalchemy.exc import SQLAlchemyError

from smoothing_proxy.errors import LedgerError
from smoothing_proxy.ledger.journal import DrawJournal, reopen
from smoothing_proxy.ledger.records import PictureRecord, certificate_from_json, certificate_to_json
from smoothing_proxy.ledger.schema import migrate, pictures, runs, verdicts
from smoothing_proxy.ledger.writer import Writer
from smoothing_proxy.types import Certificate

__all__ = ["Ledger"]

RUN = 1
"""The only run of an embedded ledger."""


class Ledger:
    """A run's ledger, held by one process at a time. Close it, or use it as a context manager.

    path: of the SQLite file; it is made where there is none. durable: each commit reaches the disk, so that even
    a power cut forgets no paid draw; False leaves the last moments to the operating system, which is enough when
    queries cost nothing.

    Raises SchemaError when a newer version of this package wrote it, and LedgerError when it cannot be opened or
    another process holds it.
    """

    def __init__(self, path: Path, *, durable: bool = True) -> None:
        self._lock = FileLock(f"{path}.lock")
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise LedgerError(f"{path}: another process is working on this run") from None
        except OSError as error:
            raise LedgerError(f"{path}: cannot open the ledger: {error}") from error
        self._engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": 30.0})
        event.listen(self._engine, "connect", _pragmas("FULL" if durable else "NORMAL"))
        try:
            self._open(path)
        except BaseException:
            self._engine.dispose()
            self._lock.release()
            raise

    def _open(self, path: Path) -> None:
        try:
            with self._engine.begin() as connection:
                migrate(connection, where=str(path))
                reopen(connection, RUN)
            self._writer = Writer(self._engine, where=str(path))
            self.draws = DrawJournal(self._engine, self._writer, RUN)
        except SQLAlchemyError as error:
            raise LedgerError(f"{path}: cannot open the ledger: {getattr(error, 'orig', error)}") from error

    def close(self) -> None:
        """Finish writing, close the file and let go of it. Calling it twice is fine."""
        self._writer.close()
        self._engine.dispose()
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def manifest(self) -> dict[str, Any] | None:
        """What the run's question is made of, or None in a fresh ledger."""
        rows = self._read(select(runs.c.manifest).where(runs.c.id == RUN))
        return dict(json.loads(rows[0].manifest)) if rows else None

    def software(self) -> dict[str, str]:
        """The versions that the run was started with; empty in a fresh ledger."""
        rows = self._read(select(runs.c.software).where(runs.c.id == RUN))
        return dict(json.loads(rows[0].software)) if rows else {}

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

    def pictures(self) -> list[PictureRecord]:
        """Every picture of the run, in order."""
        query = select(pictures).where(pictures.c.run_id == RUN).order_by(pictures.c.id)
        return [_picture(row) for row in self._read(query)]

    def describe(self, record: PictureRecord) -> None:
        """Keep what decoding a picture told: its identity, size and entropy, or why it could not be read."""
        height, width = record.size or (None, None)
        statement = (
            update(pictures)
            .where(pictures.c.run_id == RUN, pictures.c.id == record.id)
            .values(
                sha256=record.sha256,
                height=height,
                width=width,
                entropy=record.entropy,
                reference=record.reference,
                error=record.error,
            )
        )
        self._write(lambda connection: connection.execute(statement))

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

    def verdicts(self) -> dict[int, Certificate]:
        """The verdicts that were reached, by picture."""
        query = select(verdicts.c.picture_id, verdicts.c.certificate).where(verdicts.c.run_id == RUN)
        return {row.picture_id: certificate_from_json(row.certificate) for row in self._read(query)}

    def _read(self, query: Select[Any]) -> Sequence[Row[Any]]:
        with self._engine.connect() as connection:
            return connection.execute(query).all()

    def _write(self, write: Callable[[Connection], object]) -> None:
        self._writer.submit(write).result()


def _pragmas(synchronous: str) -> Callable[..., None]:
    def on_connect(connection: Any, _: object) -> None:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {synchronous}")

    return on_connect


def _picture(row: Row[Any]) -> PictureRecord:
    size = None if row.height is None else (row.height, row.width)
    return PictureRecord(row.id, row.name, row.sha256, size, row.entropy, row.reference, row.error)
