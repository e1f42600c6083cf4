"""The gateway store's tables, and the numbered migrations that lead to them.

`migrations` is append-only: the store records the number of the last one that it has seen, an older store is
brought up to date when it is opened, and one from a newer version is refused.

Money is counted in queries and in whole billionths of a dollar ("nano"), so that sums are exact.
"""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    func,
    insert,
    inspect,
    select,
    text,
)

from smoothing_proxy.errors import SchemaError

__all__ = [
    "days",
    "draws",
    "keys",
    "master",
    "migrate",
    "passes",
    "pictures",
    "replicas",
    "requests",
    "reservations",
    "verdicts",
]

metadata = MetaData()

schema_version = Table("gateway_schema", metadata, Column("number", Integer, primary_key=True))

# One row. salt: of what is derived from the master key. proof: by which a wrong master key is told. It is also
# the row that is locked where the gateway's own budget is read to be spent.
master = Table(
    "gateway_master",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("salt", LargeBinary(16), nullable=False),
    Column("proof", LargeBinary(32), nullable=False),
)

# hash: of a token's secret. sealed: a SigV4 secret, encrypted. Exactly one of them.
keys = Table(
    "gateway_keys",
    metadata,
    Column("id", String(20), primary_key=True),
    Column("name", Text, nullable=False),
    Column("vendor", String(20), nullable=False),
    Column("scheme", String(10), nullable=False),
    Column("hash", LargeBinary(32)),
    Column("sealed", LargeBinary),
    Column("calls_limit", BigInteger),
    Column("usd_limit", Double),
    Column("period", String(5), nullable=False),
    Column("requests_per_minute", Integer),
    Column("parallel", Integer),
    Column("certify", Boolean, nullable=False),
    Column("target_radius", Double),
    Column("passthrough", Boolean),
    Column("disabled", Boolean, nullable=False),
    Column("created_at", Double, nullable=False),
)

# What closed reservations came to, and what open ones hold, by the day (of UTC) on which they were opened.
# A month and all time are sums of days; these rows are never purged.
days = Table(
    "gateway_days",
    metadata,
    Column("key_id", String(20), primary_key=True),
    Column("day", String(10), primary_key=True),
    Column("calls", BigInteger, nullable=False),
    Column("unknown", BigInteger, nullable=False),
    Column("nano", BigInteger, nullable=False),
    Column("held", BigInteger, nullable=False),
    Column("held_nano", BigInteger, nullable=False),
    Index("gateway_days_by_day", "day"),
)

# nano: the price of a query. queries: that may be spent. used: sends charged so far, in flight ones included.
# calls: answered ones of these. plain: charged without a draw.
reservations = Table(
    "gateway_reservations",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("key_id", String(20), nullable=False),
    Column("day", String(10), nullable=False),
    Column("replica", String(64), nullable=False),
    Column("nano", BigInteger, nullable=False),
    Column("queries", BigInteger, nullable=False),
    Column("used", BigInteger, nullable=False),
    Column("calls", BigInteger, nullable=False),
    Column("plain", BigInteger, nullable=False),
    Column("open", Boolean, nullable=False),
    Column("closed_at", Double),
)
Index("gateway_reservations_open", reservations.c.open, reservations.c.key_id, reservations.c.day)
Index("gateway_reservations_closed", reservations.c.closed_at)

# identity: sha256 of what makes a request the same as another; NULL once a request may not be replayed or go on.
# state: running | finished | failed. verdict: JSON. ended_at: when it finished or failed.
requests = Table(
    "gateway_requests",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("key_id", String(20), nullable=False),
    Column("identity", String(64)),
    Column("body_sha256", String(64), nullable=False),
    Column("settings_sha256", String(64), nullable=False),
    Column("state", String(10), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("replica", String(64), nullable=False),
    Column("verdict", Text),
    Column("queries", BigInteger),
    Column("unknown", BigInteger),
    Column("usd", Double),
    Column("error", Text),
    Column("begun_at", Double, nullable=False),
    Column("ended_at", Double),
    UniqueConstraint("key_id", "identity", name="gateway_requests_once"),
)
Index("gateway_requests_ended", requests.c.ended_at)
Index("gateway_requests_running", requests.c.state, requests.c.replica)

# number: of the picture in its request. sha256: of its canonical pixels or its bytes, as the gateway likes.
pictures = Table(
    "gateway_pictures",
    metadata,
    Column("request_id", String(64), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("sha256", String(64), nullable=False),
    Column("entropy", LargeBinary(16), nullable=False),
)

# One row per draw, written before it is sent; the columns are those of a run's ledger.
draws = Table(
    "gateway_draws",
    metadata,
    Column("request_id", String(64), primary_key=True),
    Column("picture", Integer, primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("reservation_id", String(32), nullable=False),
    Column("status", String(10), nullable=False),
    Column("sends", Integer, nullable=False),
    Column("unknown", Integer, nullable=False),
    Column("label", Text),
    Column("reply", Text),
    Column("model_version", Text),
    Column("error", Text),
    Column("sent_at", Double, nullable=False),
    Column("settled_at", Double),
)
Index("gateway_draws_in_flight", draws.c.reservation_id, draws.c.status)

# One row per request that goes to the vendor as it came, written before it is sent, under the id of its
# reservation. units: that the vendor bills. state: sent | answered | refused (which costs nothing) | unknown.
passes = Table(
    "gateway_passes",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("key_id", String(20), nullable=False),
    Column("operation", String(200), nullable=False),
    Column("units", BigInteger, nullable=False),
    Column("state", String(10), nullable=False),
    Column("sent_at", Double, nullable=False, index=True),
    Column("ended_at", Double),
)
Index("gateway_passes_of_key", passes.c.key_id, passes.c.sent_at)

# On one picture under some settings. verdict: JSON. expires_at: until then it answers later requests too.
verdicts = Table(
    "gateway_verdicts",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("key_id", String(20), nullable=False),
    Column("picture_sha256", String(64), nullable=False),
    Column("settings_sha256", String(64), nullable=False),
    Column("verdict", Text, nullable=False),
    Column("made_at", Double, nullable=False, index=True),
    Column("expires_at", Double, nullable=False),
)
Index("gateway_verdicts_about", verdicts.c.picture_sha256, verdicts.c.settings_sha256, verdicts.c.expires_at)

replicas = Table(
    "gateway_replicas",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("seen_at", Double, nullable=False),
)


def _create(connection: Connection) -> None:
    metadata.create_all(connection)


def _passes(connection: Connection) -> None:
    """What is passed on, and for whom. A new store has it from its first migration."""
    metadata.create_all(connection)
    if "passthrough" not in {column["name"] for column in inspect(connection).get_columns(keys.name)}:
        connection.execute(text(f"ALTER TABLE {keys.name} ADD COLUMN passthrough BOOLEAN"))


migrations: list[Callable[[Connection], None]] = [_create, _passes]

_LOCK = 0x5350_4757  # any number that only this package takes


def migrate(connection: Connection, *, where: str) -> None:
    """Bring the store up to date, one replica at a time. Raises SchemaError when a newer version wrote it."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
    for number in range(_schema(connection, where) + 1, len(migrations) + 1):
        migrations[number - 1](connection)
        connection.execute(insert(schema_version).values(number=number))


def _schema(connection: Connection, where: str) -> int:
    """The number of the last migration that the store has seen."""
    known = 0
    if inspect(connection).has_table(schema_version.name):
        known = connection.execute(select(func.max(schema_version.c.number))).scalar() or 0
    if known > len(migrations):
        raise SchemaError(
            f"{where}: written by a newer version of smoothing-proxy (schema {known}, this version knows up to "
            f"{len(migrations)}); upgrade smoothing-proxy, or use another store"
        )
    return known
