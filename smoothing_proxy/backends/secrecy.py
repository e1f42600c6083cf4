"""Credentials that a server sends back, hidden before anybody reads, keeps or repeats its answer.

A server that echoes the request's headers (a proxy's error page, a debugging mode) would have them written into
the ledger with the answer, and into messages.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping
from typing import final
from urllib.parse import quote

from smoothing_proxy.errors import BackendError, MalformedReplyError

__all__ = ["Veil", "credentials_in"]

_SHORTEST = 8
"""Characters. What is shorter is no credential, and hiding it would garble labels."""

_HEADERS = frozenset(
    {
        "api-key",
        "authorization",
        "cookie",
        "ocp-apim-subscription-key",
        "proxy-authorization",
        "x-amz-security-token",
        "x-api-key",
        "x-goog-api-key",
    }
)


def credentials_in(headers: Mapping[str, str]) -> list[str]:
    """The credentials that stand in the usual headers: as they are, and without the scheme before them."""
    values = [value for name, value in headers.items() if name.lower() in _HEADERS]
    return [*values, *(value.partition(" ")[2] for value in values)]


@final
class Veil:
    """Hides secrets, in the ways in which they are written in JSON, HTML and addresses too.

    Stars take their place, as many as they have characters: what states its own length still has it.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        stripped = {secret.strip() for secret in secrets}
        written = {form for secret in stripped if len(secret) >= _SHORTEST for form in _forms(secret)}
        self._hidden = [form.encode(errors="surrogateescape") for form in sorted(written, key=len, reverse=True)]

    def bytes(self, data: bytes) -> bytes:
        """`data` without them."""
        for secret in self._hidden:
            if secret in data:
                data = data.replace(secret, b"*" * len(secret))
        return data

    def text(self, text: str) -> str:
        """`text` without them."""
        return self.bytes(text.encode(errors="surrogateescape")).decode(errors="surrogateescape")

    def error(self, error: BackendError) -> BackendError:
        """The same error, its message and what it keeps of the answer without them."""
        error.args = tuple(self.text(word) if isinstance(word, str) else word for word in error.args)
        if isinstance(error, MalformedReplyError):
            error.reply = self.bytes(error.reply)
        return error


def _forms(secret: str) -> set[str]:
    return {secret, secret.replace("/", "\\/"), quote(secret, safe=""), html.escape(secret)}
