"""Stopping without losing what is under way."""

from __future__ import annotations

from smoothing_proxy.errors import (
    AuthenticationError,
    BackendDownError,
    ConfigError,
    DenoiserError,
    LedgerError,
    QuotaExceededError,
)

__all__ = ["FATAL", "Halt", "Interrupted"]

FATAL = (
    AuthenticationError,
    BackendDownError,
    ConfigError,
    DenoiserError,
    LedgerError,
    QuotaExceededError,
)
"""What stops every picture, since it says nothing about any one of them."""


class Interrupted(Exception):  # noqa: N818 (being asked to stop is no error)
    """The user asked to stop; what was in flight has been settled and kept."""


class Halt:
    """Why no further draw may be issued; shared by all pictures of a run. Draws in flight still settle."""

    def __init__(self) -> None:
        self._reason: Exception | None = None

    def request(self, reason: Exception) -> None:
        """Issue nothing more. The first reason is kept."""
        self._reason = self._reason or reason

    @property
    def reason(self) -> Exception | None:
        """Why, if somebody asked to stop."""
        return self._reason

    @property
    def requested(self) -> bool:
        """Whether somebody asked to stop."""
        return self._reason is not None

    def check(self) -> None:
        """Raises the reason, if there is one."""
        if self._reason is not None:
            raise self._reason
