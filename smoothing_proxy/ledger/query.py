"""Reading rows, with errors that a ledger's user can understand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Engine, Row, Select
from sqlalchemy.exc import SQLAlchemyError

from smoothing_proxy.errors import LedgerError

__all__ = ["rows_of"]


def rows_of(engine: Engine, query: Select[Any]) -> Sequence[Row[Any]]:
    """All rows of a query. Raises LedgerError when the file cannot be read or is damaged."""
    try:
        with engine.connect() as connection:
            return connection.execute(query).all()
    except SQLAlchemyError as error:
        raise LedgerError(f"{engine.url.database}: cannot read: {getattr(error, 'orig', error)}") from error
