"""The ledger's tables, and the numbered migrations that lead to them.

`migrations` is append-only: a ledger records the number of the last one it has seen, an older ledger is brought up
to date when it is opened, and one from a newer version is refused.
"""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import (
    Column,
    Connection,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    func,
    insert,
    inspect,
    select,
)

from smoothing_proxy.errors import SchemaError

__all__ = ["check_schema", "draws", "migrate", "pictures", "runs", "verdicts"]

metadata = MetaData()

schema_version = Table("schema_version", metadata, Column("number", Integer, primary_key=True))

# manifest: JSON, what the run's question is made of. software: JSON, versions at the start. created_at: ISO 8601.
runs = Table(
    "runs",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("manifest", Text, nullable=False),
    Column("software", Text, nullable=False),
    Column("created_at", String(32), nullable=False),
)

# One row per file. sha256, sizes and entropy are known once it was decoded. reference: the label that counts as
# correct. error: why it could not be certified.
pictures = Table(
    "pictures",
    metadata,
    Column("run_id", Integer, primary_key=True),
    Column("id", Integer, primary_key=True),
    Column("name", Text, nullable=False),
    Column("sha256", String(64)),
    Column("height", Integer),
    Column("width", Integer),
    Column("entropy", LargeBinary(16)),
    Column("reference", Text),
    Column("error", Text),
)

# One row per draw, written before it is sent. number: -1 asks about the clean picture. status: sent | settled |
# failed | withdrawn. sends: how often it was sent. unknown: sends whose outcome never came (charged).
# label: the vote, NULL for nothing. reply: JSON.
draws = Table(
    "draws",
    metadata,
    Column("run_id", Integer, primary_key=True),
    Column("picture_id", Integer, primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("status", String(10), nullable=False),
    Column("sends", Integer, nullable=False),
    Column("unknown", Integer, nullable=False),
    Column("label", Text),
    Column("reply", Text),
    Column("model_version", Text),
    Column("error", Text),
    Column("sent_at", Float, nullable=False),
    Column("settled_at", Float),
)
Index("draws_by_status", draws.c.run_id, draws.c.status)

# certificate: JSON, whole; the other columns are for those who query with SQL.
verdicts = Table(
    "verdicts",
    metadata,
    Column("run_id", Integer, primary_key=True),
    Column("picture_id", Integer, primary_key=True),
    Column("label", Text),
    Column("radius", Float, nullable=False),
    Column("input_radius", Float),
    Column("certificate", Text, nullable=False),
    Column("decided_at", Float, nullable=False),
)


def _create(connection: Connection) -> None:
    metadata.create_all(connection)


migrations: list[Callable[[Connection], None]] = [_create]


def migrate(connection: Connection, *, where: str) -> None:
    """Bring the ledger up to date. Raises SchemaError when a newer version of this package has written it."""
    for number in range(_schema(connection, where) + 1, len(migrations) + 1):
        migrations[number - 1](connection)
        connection.execute(insert(schema_version).values(number=number))


def check_schema(connection: Connection, *, where: str) -> None:
    """Raises SchemaError unless the ledger is exactly what this version reads."""
    if _schema(connection, where) < len(migrations):
        raise SchemaError(f"{where}: no ledger, or one of an older version; `run` brings that up to date")


def _schema(connection: Connection, where: str) -> int:
    """The number of the last migration that the ledger has seen."""
    known = 0
    if inspect(connection).has_table(schema_version.name):
        known = connection.execute(select(func.max(schema_version.c.number))).scalar() or 0
    if known > len(migrations):
        raise SchemaError(
            f"{where}: written by a newer version of smoothing-proxy (schema {known}, this version knows up to "
            f"{len(migrations)}); upgrade smoothing-proxy, or use another --out"
        )
    return known
