"""What is done with keys, by command line and over HTTP alike: found, changed, and what they spent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from smoothing_proxy.errors import ConfigError, nearest
from smoothing_proxy.ledger.gateway.nouns import KeyTerms, Period, Spend, VirtualKey

if TYPE_CHECKING:
    from smoothing_proxy.ledger.gateway.store import GatewayStore

__all__ = ["UnknownKeyError", "find_key", "spend_of", "terms_with"]


class UnknownKeyError(ConfigError):
    """There is no key of this id or name."""


async def find_key(store: GatewayStore, key: str) -> VirtualKey:
    """The key with this id or, where no key has such an id, this name. Raises UnknownKeyError."""
    found = await store.keys()
    for one in (*(one for one in found if one.id == key), *(one for one in found if one.name == key)):
        return one
    raise UnknownKeyError(f"there is no key {key!r}{nearest(key, [one.name for one in found])}")


def terms_with(changes: Mapping[str, Any], before: KeyTerms | None = None) -> KeyTerms:
    """The terms with these changes, None taking a limit away. before: None for a new key.

    Raises ConfigError for terms that cannot be.
    """
    old = {name: getattr(before, name) for name in KeyTerms.__dataclass_fields__} if before else {}
    return KeyTerms(**{**old, **changes})


async def spend_of(
    store: GatewayStore, key: str | None = None, period: Period | None = None
) -> list[tuple[VirtualKey, Period, Spend]]:
    """What this key, or every key, has spent in the current period, by default its own; for all keys a month.

    Raises UnknownKeyError.
    """
    found = [await find_key(store, key)] if key else await store.keys()
    spans: list[Period] = [period or (one.period if key else "month") for one in found]
    return [(one, span, await store.spend(one.id, span)) for one, span in zip(found, spans, strict=True)]
