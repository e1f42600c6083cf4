"""The pictures of requests with the entropy of their noise, and verdicts that answer later requests too.

Every function takes the Connection of a transaction that its caller owns.
"""

from __future__ import annotations

from sqlalchemy import Connection, delete, select

from smoothing_proxy.errors import LedgerError
from smoothing_proxy.ledger.gateway.database import upsert, writable
from smoothing_proxy.ledger.gateway.journal import recalled, replies
from smoothing_proxy.ledger.gateway.nouns import RequestPicture
from smoothing_proxy.ledger.gateway.schema import pictures, verdicts

__all__ = ["about", "cached", "keep", "purge", "verdict"]


def keep(connection: Connection, request_id: str, number: int, sha256: str, entropy: bytes) -> RequestPicture:
    """The picture as an earlier attempt has left it, or with this entropy.

    Raises LedgerError when the earlier attempt had another picture under this number.
    """
    first = upsert(connection, pictures).values(
        request_id=request_id, number=number, sha256=sha256, entropy=entropy
    )
    connection.execute(first.on_conflict_do_nothing(index_elements=["request_id", "number"]))
    query = select(pictures).where(pictures.c.request_id == request_id, pictures.c.number == number)
    row = connection.execute(query).one()
    if row.sha256 != sha256:
        raise LedgerError(f"request {request_id}: its picture {number} is not the one that it was before")
    known = recalled(connection, request_id, number)
    return RequestPicture(
        bytes(row.entropy), known, replies(connection, request_id, number) if known.votes else {}
    )


def cached(
    connection: Connection, key_id: str | None, picture_sha256: str, settings_sha256: str, now: float
) -> str | None:
    """The latest verdict on this picture under these settings that has not expired; key_id None: of any key."""
    of_key = [] if key_id is None else [verdicts.c.key_id == key_id]
    query = select(verdicts.c.verdict).where(
        verdicts.c.picture_sha256 == picture_sha256,
        verdicts.c.settings_sha256 == settings_sha256,
        verdicts.c.expires_at > now,
        *of_key,
    )
    return connection.execute(query.order_by(verdicts.c.made_at.desc()).limit(1)).scalar()


def verdict(connection: Connection, verdict_id: str, key_id: str | None) -> str | None:
    """A verdict on one picture by its id, if it was made for this key; None: for any."""
    of_key = [] if key_id is None else [verdicts.c.key_id == key_id]
    query = select(verdicts.c.verdict).where(verdicts.c.id == writable(verdict_id), *of_key)
    return connection.execute(query).scalar()


def about(connection: Connection, picture_sha256: str, key_id: str, most: int) -> list[str]:
    """The verdicts on one picture that were made for this key, the newest ones first."""
    query = select(verdicts.c.verdict).where(
        verdicts.c.picture_sha256 == picture_sha256, verdicts.c.key_id == key_id
    )
    return list(connection.execute(query.order_by(verdicts.c.made_at.desc()).limit(most)).scalars())


def purge(connection: Connection, now: float, made_before: float) -> None:
    """Forget verdicts that were made before, unless they still answer later requests."""
    connection.execute(delete(verdicts).where(verdicts.c.made_at < made_before, verdicts.c.expires_at <= now))
