"""Keys of customers: made, shown once, checked, changed.

Every function takes the Connection of a transaction that its caller owns.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from smoothing_proxy.errors import ConfigError, LedgerError, nearest
from smoothing_proxy.ledger.gateway.nouns import SCHEMES, KeyTerms, VirtualKey
from smoothing_proxy.ledger.gateway.schema import keys
from smoothing_proxy.ledger.gateway.vault import Vault, is_key_id, key_of_token

__all__ = [
    "add",
    "all_keys",
    "change",
    "check",
    "columns_of",
    "enabled",
    "find",
    "give_secret",
    "secret_of",
    "shown",
    "wanted",
]

_NOBODY = bytes(32)

NAME_LENGTH = 200


def add(connection: Connection, key: VirtualKey, kept: dict[str, bytes | None]) -> None:
    """Write down a new key. kept: of `give_secret`. Raises ConfigError for a name that another key has."""
    if connection.execute(select(keys.c.id).where(keys.c.name == key.name)).first() is not None:
        raise ConfigError(f"there is a key named {key.name!r} already; disable it, or choose another name")
    connection.execute(insert(keys), [{**asdict(key), **kept}])


def wanted(name: str, vendor: str) -> None:
    """Raises ConfigError unless a key may be named so and speak so."""
    if not 0 < len(name) <= NAME_LENGTH or not name.isprintable():
        raise ConfigError(f"name: expected 1 to {NAME_LENGTH} printable characters")
    if vendor not in SCHEMES:
        raise ConfigError(f"vendor: unknown: {vendor!r}{nearest(vendor, SCHEMES)}")


def give_secret(vault: Vault, key_id: str, scheme: str, secret: str) -> dict[str, bytes | None]:
    """The columns that keep a key's secret in its scheme's way."""
    if scheme == "sigv4":
        return {"sealed": vault.seal(key_id, secret), "hash": None}
    return {"sealed": None, "hash": vault.hash(key_id, secret)}


def shown(key: VirtualKey, secret: str) -> str:
    """What the customer gets: for SigV4 the secret access key beside the key's id, else the whole token."""
    return secret if key.scheme == "sigv4" else f"{key.id}_{secret}"


def find(connection: Connection, key_id: str) -> VirtualKey:
    """The key, disabled or not. Raises LedgerError when there is none."""
    row = _row(connection, key_id)
    if row is None:
        raise LedgerError(f"key {key_id}: there is none of this id")
    return _key(row)


def enabled(connection: Connection, vendor: str, key_id: str) -> VirtualKey | None:
    """The key, if it may speak this vendor's format now."""
    row = _row(connection, key_id)
    return None if row is None or row.disabled or row.vendor != vendor else _key(row)


def check(connection: Connection, vault: Vault, vendor: str, token: str) -> VirtualKey | None:
    """The key whose whole token this is. The time it takes does not tell how much of the token is right."""
    parts = key_of_token(token)
    key_id, secret = parts or ("", "")
    row = _row(connection, key_id) if parts else None
    kept = _NOBODY if row is None or row.hash is None else row.hash
    right = hmac.compare_digest(vault.hash(key_id, secret), kept)
    if row is None or not right or row.disabled or row.vendor != vendor:
        return None
    return _key(row)


def secret_of(connection: Connection, vault: Vault, key_id: str) -> str:
    """The secret to check a signature with. Raises LedgerError for a key of another scheme."""
    row = _row(connection, key_id)
    if row is None or row.sealed is None:
        raise LedgerError(f"key {key_id}: no signing secret is kept for it")
    return vault.unseal(key_id, row.sealed)


def all_keys(connection: Connection) -> list[VirtualKey]:
    """Every key, oldest first."""
    return [_key(row) for row in connection.execute(select(keys).order_by(keys.c.created_at, keys.c.id))]


def change(connection: Connection, key_id: str, values: Mapping[str, object]) -> VirtualKey:
    """Change columns of a key. Raises LedgerError when there is no such key."""
    find(connection, key_id)
    connection.execute(update(keys).where(keys.c.id == key_id).values(**values))
    return find(connection, key_id)


def columns_of(terms: KeyTerms) -> dict[str, Any]:
    """A key's terms as its columns."""
    return {name: getattr(terms, name) for name in KeyTerms.__dataclass_fields__}


def _row(connection: Connection, key_id: str) -> Row[Any] | None:
    if not is_key_id(key_id):
        return None
    return connection.execute(select(keys).where(keys.c.id == key_id)).first()


_FIELDS = tuple(VirtualKey.__dataclass_fields__)


def _key(row: Row[Any]) -> VirtualKey:
    return VirtualKey(**{name: getattr(row, name) for name in _FIELDS})
