"""The part of the gateway's store that knows who may ask."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from smoothing_proxy.ledger.gateway import keys
from smoothing_proxy.ledger.gateway.database import Database
from smoothing_proxy.ledger.gateway.nouns import SCHEMES, KeyTerms, VirtualKey
from smoothing_proxy.ledger.gateway.vault import Vault, new_key_id, new_secret

__all__ = ["KeyRing"]


class KeyRing:
    """Keys in a database. Nothing about them is kept in memory, so that every replica sees a change at once."""

    def __init__(
        self,
        database: Database,
        vault: Vault,
        clock: Callable[[], float],
        random: Callable[[int], bytes],
    ) -> None:
        self._database = database
        self._vault = vault
        self._clock = clock
        self._random = random

    async def create_key(self, name: str, vendor: str, terms: KeyTerms | None = None) -> tuple[VirtualKey, str]:
        """A new key, and what its holder gets; nobody can see that again.

        name: unique, for people. vendor: one of nouns.SCHEMES. Raises ConfigError for one that cannot be.
        """
        keys.wanted(name, vendor)
        key = VirtualKey(
            **keys.columns_of(terms or KeyTerms()),
            id=new_key_id(self._random),
            name=name,
            vendor=vendor,
            scheme=SCHEMES[vendor],
            disabled=False,
            created_at=self._clock(),
        )
        secret = new_secret(self._random)
        kept = keys.give_secret(self._vault, key.id, key.scheme, secret)
        await self._database.write(lambda connection: keys.add(connection, key, kept))
        return key, keys.shown(key, secret)

    async def key(self, vendor: str, presented_id: str) -> VirtualKey | None:
        """The key with this public id, which proves nothing yet; None where it is unknown, disabled or another
        vendor's."""
        return await self._database.read(lambda connection: keys.enabled(connection, vendor, presented_id))

    async def secret_of(self, key: VirtualKey) -> str:
        """The secret access key of a SigV4 key. Raises LedgerError for a key of another scheme."""
        return await self._database.read(lambda connection: keys.secret_of(connection, self._vault, key.id))

    async def check_token(self, vendor: str, token: str) -> VirtualKey | None:
        """The key that this token proves; None where it is wrong, disabled or another vendor's."""
        return await self._database.read(lambda connection: keys.check(connection, self._vault, vendor, token))

    async def keys(self) -> list[VirtualKey]:
        """Every key, disabled ones too, oldest first."""
        return await self._database.read(keys.all_keys)

    async def key_by_id(self, key_id: str) -> VirtualKey:
        """The key, disabled or not. Raises LedgerError when there is none."""
        return await self._database.read(lambda connection: keys.find(connection, key_id))

    async def update_key(self, key_id: str, terms: KeyTerms) -> VirtualKey:
        """Other terms, from the next request on. Raises LedgerError when there is no such key."""
        return await self._change(key_id, keys.columns_of(terms))

    async def disable_key(self, key_id: str, *, disabled: bool = True) -> VirtualKey:
        """The next request with it is refused, on every replica; or let in again."""
        return await self._change(key_id, {"disabled": disabled})

    async def rotate_key(self, key_id: str) -> tuple[VirtualKey, str]:
        """A new secret for the key, shown once; the old one is refused from now on. What was spent stays."""
        key, secret = await self.key_by_id(key_id), new_secret(self._random)
        key = await self._change(key_id, keys.give_secret(self._vault, key.id, key.scheme, secret))
        return key, keys.shown(key, secret)

    async def _change(self, key_id: str, values: Mapping[str, object]) -> VirtualKey:
        return await self._database.write(lambda connection: keys.change(connection, key_id, values))
