"""Every test of the store runs on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ledger.gateway.postgres import NoPostgresError, Postgres, running_postgres
from tests.ledger.gateway.stores import HandClock


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL for all tests; without one on this machine they are skipped."""
    pytest.importorskip("psycopg", reason="no driver for PostgreSQL (smoothing-proxy[postgres])")
    try:
        with running_postgres() as server:
            yield server
    except NoPostgresError as error:
        pytest.skip(str(error))


@pytest.fixture(params=["sqlite", "postgresql"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where an empty store may be made."""
    if request.param == "sqlite":
        return str(tmp_path / "gateway.db")
    server: Postgres = request.getfixturevalue("postgres")
    return server.new_schema()


@pytest.fixture
def clock() -> HandClock:
    return HandClock()
