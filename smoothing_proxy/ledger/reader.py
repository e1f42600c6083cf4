"""What a ledger says, for those who only look: replay, reports, other programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

from sqlalchemy import URL, Engine, Row, Select, create_engine, select
from sqlalchemy.exc import SQLAlchemyError

from smoothing_proxy.errors import LedgerError
from smoothing_proxy.ledger.query import rows_of
from smoothing_proxy.ledger.records import PictureRecord, certificate_from_json
from smoothing_proxy.ledger.schema import check_schema, draws, pictures, runs, verdicts
from smoothing_proxy.ledger.totals import DrawTotals
from smoothing_proxy.smoothing.observe import CLEAN, Recalled
from smoothing_proxy.types import Certificate, Cost, Label

__all__ = ["RUN", "LedgerReader"]

RUN = 1
"""The only run of an embedded ledger."""


class LedgerReader:
    """One run's ledger, unchanged by looking. Close it, or use it as a context manager.

    Raises SchemaError when another version of this package wrote it, LedgerError when it cannot be read.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._closed = False
        self.totals = DrawTotals(engine, RUN)

    @classmethod
    def open(cls, path: Path) -> LedgerReader:
        """The ledger in the SQLite file at `path`, also while a run is writing it."""
        database = f"file:{quote(str(path))}"
        engine = create_engine(URL.create("sqlite", database=database, query={"mode": "ro", "uri": "true"}))
        try:
            with engine.connect() as connection:
                check_schema(connection, where=str(path))
        except BaseException as error:
            engine.dispose()
            if isinstance(error, SQLAlchemyError):
                raise LedgerError(f"{path}: cannot open the ledger: {getattr(error, 'orig', error)}") from error
            raise
        return LedgerReader(engine)

    def close(self) -> None:
        """Close the file. Calling it twice is fine."""
        self._closed = True
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def manifest(self) -> dict[str, Any] | None:
        """What the run's question is made of, or None in a fresh ledger."""
        rows = self._rows(select(runs.c.manifest).where(runs.c.id == RUN))
        return dict(json.loads(rows[0].manifest)) if rows else None

    def software(self) -> dict[str, str]:
        """The versions that the run was started with; empty in a fresh ledger."""
        rows = self._rows(select(runs.c.software).where(runs.c.id == RUN))
        return dict(json.loads(rows[0].software)) if rows else {}

    def pictures(self) -> list[PictureRecord]:
        """Every picture of the run, in order."""
        query = select(pictures).where(pictures.c.run_id == RUN).order_by(pictures.c.id)
        return [_picture(row) for row in self._rows(query)]

    def picture(self, number: int) -> PictureRecord:
        """One picture of the run."""
        query = select(pictures).where(pictures.c.run_id == RUN, pictures.c.id == number)
        return _picture(self._rows(query)[0])

    def recall(self, picture: int) -> Recalled:
        """What is settled of a picture's draws, and what all of its draws have cost so far, in queries.

        model_versions: of its certificate's draws alone. Canaries are nobody's.
        """
        columns = (draws.c.number, draws.c.status, draws.c.label, draws.c.unknown, draws.c.model_version)
        query = select(*columns).where(
            draws.c.run_id == RUN, draws.c.picture_id == picture, draws.c.number >= CLEAN
        )
        votes: dict[int, Label | None] = {}
        versions: set[str] = set()
        cost = Cost()
        for row in self._rows(query):
            cost += Cost(queries=int(row.status == "settled"), unknown=row.unknown)
            if row.status in ("settled", "failed"):
                votes[row.number] = row.label
                versions |= {row.model_version or ""} if row.number > CLEAN else set()
        return Recalled(votes, cost, frozenset(versions - {""}))

    def versions_told(self, picture: int, draws_told: int) -> frozenset[str]:
        """The model versions that answered the first so many draws of a picture, as far as they were stated."""
        query = select(draws.c.model_version).where(
            draws.c.run_id == RUN,
            draws.c.picture_id == picture,
            draws.c.number.between(0, draws_told - 1),
        )
        return frozenset(row.model_version for row in self._rows(query) if row.model_version)

    def verdicts(self) -> dict[int, Certificate]:
        """The verdicts that were reached, by picture."""
        query = select(verdicts.c.picture_id, verdicts.c.certificate).where(verdicts.c.run_id == RUN)
        return {row.picture_id: certificate_from_json(row.certificate) for row in self._rows(query)}

    def _rows(self, query: Select[Any]) -> Sequence[Row[Any]]:
        if self._closed:
            raise LedgerError(f"{self._engine.url.database}: the ledger was closed")
        return rows_of(self._engine, query)


def _picture(row: Row[Any]) -> PictureRecord:
    size = None if row.height is None else (row.height, row.width)
    return PictureRecord(row.id, row.name, row.sha256, size, row.entropy, row.reference, row.error)
