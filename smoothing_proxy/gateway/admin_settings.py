"""Who may change keys over HTTP, in the gateway's configuration file.

    [admin]
    key_env = "GATEWAY_ADMIN_KEY"    # openssl rand -hex 32

The key itself stays in the environment.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from smoothing_proxy.errors import ConfigError
from smoothing_proxy.settings_file import Settings

__all__ = ["SHORTEST_KEY", "AdminTable"]

SHORTEST_KEY = 32
"""Characters: it opens every account, and nothing slows down who guesses."""


class AdminTable(Settings):
    """key_env: the variable that holds the admin key. Without this table /v1/admin is no address."""

    key_env: str = Field(min_length=1)

    def key(self, environ: Mapping[str, str]) -> str:
        """Raises ConfigError, which names the variable, for what is no key of at least 32 ASCII characters."""
        key = environ.get(self.key_env, "").strip()
        if len(key) < SHORTEST_KEY or not key.isascii() or not key.isprintable() or " " in key:
            raise ConfigError(
                f"admin: the environment variable {self.key_env} has to hold a key of at least {SHORTEST_KEY} "
                "ASCII characters without spaces, such as `openssl rand -hex 32` makes"
            )
        return key
