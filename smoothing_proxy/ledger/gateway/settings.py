"""The store of a gateway in its configuration file.

    [store]
    address = "gateway.db"                 # or postgresql://USER@HOST/DATABASE
    master_key_env = "GATEWAY_MASTER_KEY"  # base64 of 32 bytes: openssl rand -base64 32
    usd_limit = 100.0                      # the gateway's own budget, above those of its keys
    period = "day"

An address with a password belongs into a variable: address_env = "GATEWAY_STORE".
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import model_validator

from smoothing_proxy.errors import MissingCredentialError
from smoothing_proxy.ledger.gateway.nouns import Budget, Period, StoreSettings
from smoothing_proxy.ledger.gateway.vault import referred_master_key
from smoothing_proxy.settings_file import Settings

__all__ = ["MASTER_KEY_ENV", "StoreTable"]

MASTER_KEY_ENV = "SMOOTHING_PROXY_MASTER_KEY"
"""Where the master key is looked for when nothing else is said."""

_DEFAULTS = StoreSettings()


class StoreTable(Settings):
    """address, address_env: a path or a postgresql:// URL, or the variable that holds it; exactly one of them.

    master_key_env, master_key_file: where the master key is; at most one of them.
    calls_limit, usd_limit, period: see nouns.Budget. The others: see nouns.StoreSettings.
    """

    address: str = ""
    address_env: str = ""
    master_key_env: str = ""
    master_key_file: str = ""
    calls_limit: int | None = None
    usd_limit: float | None = None
    period: Period = _DEFAULTS.overall.period
    lease_s: float = _DEFAULTS.lease_s
    replay_s: float = _DEFAULTS.replay_s
    cache_s: float = _DEFAULTS.cache_s
    cache_shared: bool = _DEFAULTS.cache_shared
    keep_s: float = _DEFAULTS.keep_s
    timeout_s: float = _DEFAULTS.timeout_s

    @model_validator(mode="after")
    def _can_be(self) -> StoreTable:
        if bool(self.address) == bool(self.address_env):
            raise ValueError("address, address_env: expected exactly one of them")
        if self.master_key_env and self.master_key_file:
            raise ValueError("master_key_env, master_key_file: expected one of them")
        self.settings()
        return self

    def settings(self) -> StoreSettings:
        """What the replicas have in common. Raises ConfigError for a number out of its range."""
        return StoreSettings(
            overall=Budget(self.calls_limit, self.usd_limit, self.period),
            lease_s=self.lease_s,
            replay_s=self.replay_s,
            cache_s=self.cache_s,
            cache_shared=self.cache_shared,
            keep_s=self.keep_s,
            timeout_s=self.timeout_s,
        )

    def address_in(self, environ: Mapping[str, str]) -> str:
        """The address. Raises MissingCredentialError when its variable is not set."""
        found = self.address or environ.get(self.address_env, "").strip()
        if not found:
            raise MissingCredentialError(f"store: the environment variable {self.address_env} is not set")
        return found

    def master_key_in(self, environ: Mapping[str, str]) -> bytes:
        """The master key. Raises ConfigError or MissingCredentialError, without its value."""
        if self.master_key_file:
            return referred_master_key(f"file:{self.master_key_file}", environ)
        return referred_master_key(f"env:{self.master_key_env or MASTER_KEY_ENV}", environ)
