"""Secrets at rest: what of a key is written down, so that who reads the store alone learns no secret.

A token is kept as HMAC-SHA256 under a key that is derived from the master key, with the token's public id as its
salt. No slow hash: a secret is 256 random bits, so there is no dictionary to slow down, and 50 ms of scrypt for
each request, or for each guess of a stranger, would be the gateway's own denial of service. What the keyed hash
adds is that a stolen store alone does not even allow to check a guess.

A SigV4 secret has to be known to check a signature with it: it is kept encrypted, AES-256-GCM under another
derived key, bound to its key's id so that rows cannot be swapped.

Keys are derived by HKDF-SHA256 (RFC 5869), salted by the store.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from smoothing_proxy.errors import ConfigError, LedgerError, MissingCredentialError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

__all__ = [
    "MASTER_BYTES",
    "Vault",
    "is_key_id",
    "key_of_token",
    "master_key",
    "new_key_id",
    "new_secret",
    "referred_master_key",
]

MASTER_BYTES = 32
"""A master key has at least so many bytes."""

SALT_BYTES = 16
_NONCE = 12
_PREFIX = "SPAK"
_ID_LENGTH = 20

RandomBytes = Callable[[int], bytes]


def _letters(raw: bytes) -> str:
    return base64.b32encode(raw).decode().rstrip("=")


def new_key_id(random: RandomBytes) -> str:
    """A key's public id: 20 letters and digits, which every vendor's SDK takes for an access key id."""
    return _PREFIX + _letters(random(10))


def new_secret(random: RandomBytes) -> str:
    """256 random bits as 52 letters and digits, which need no quoting in any header, query or shell."""
    return _letters(random(32))


def key_of_token(token: str) -> tuple[str, str] | None:
    """(key id, secret) of ID_SECRET as a client presents it; None for anything that was never made here."""
    key_id, underscore, secret = token.partition("_")
    return (key_id, secret) if underscore and is_key_id(key_id) else None


def is_key_id(text: str) -> bool:
    """Whether it has the form of a key's public id; what a stranger presents may be anything."""
    return len(text) == _ID_LENGTH and text.isascii() and text.isalnum()


class Vault:
    """master: at least 32 secret bytes. salt: the store's own, 16 bytes. random: the system's, or a test's.

    Raises ConfigError for a master key that is too short.
    """

    def __init__(self, master: bytes, salt: bytes, random: RandomBytes) -> None:
        if len(master) < MASTER_BYTES:
            raise ConfigError(f"the master key has {len(master)} bytes, expected at least {MASTER_BYTES}")
        self._root = hmac.digest(salt, master, "sha256")
        self._random = random
        self.proof = self._derived(b"proof of the master key")
        """By which a store tells the right master key; it helps nobody to find it."""

    def hash(self, key_id: str, secret: str) -> bytes:
        """32 bytes by which `secret` can be checked and not be found."""
        message = f"{key_id}:{secret}".encode(errors="replace")
        return hmac.digest(self._derived(b"hash of tokens"), message, "sha256")

    def seal(self, key_id: str, secret: str) -> bytes:
        """The secret, encrypted for this key alone."""
        nonce = self._random(_NONCE)
        return nonce + self._cipher().encrypt(nonce, secret.encode(), key_id.encode())

    def unseal(self, key_id: str, sealed: bytes) -> str:
        """The secret of `seal`. Raises LedgerError when it was damaged or is another key's."""
        from cryptography.exceptions import InvalidTag

        try:
            return self._cipher().decrypt(sealed[:_NONCE], sealed[_NONCE:], key_id.encode()).decode()
        except InvalidTag:
            raise LedgerError(f"the secret of key {key_id} is damaged: rotate the key") from None

    def _cipher(self) -> AESGCM:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        return AESGCM(self._derived(b"cipher of signing secrets"))

    def _derived(self, purpose: bytes) -> bytes:
        return hmac.digest(self._root, purpose + b"\x01", hashlib.sha256)


def referred_master_key(reference: str, environ: Mapping[str, str]) -> bytes:
    """The master key at `env:NAME` or `file:PATH`, as `master_key` reads it.

    Raises ConfigError for another form, MissingCredentialError when there is nothing at that place.
    """
    kind, _, place = reference.partition(":")
    if kind == "env" and place:
        text = environ.get(place, "").strip()
        if not text:
            raise MissingCredentialError(f"master key: the environment variable {place} is not set")
        return master_key(text, source=f"the environment variable {place}")
    if kind == "file" and place:
        try:
            return master_key(Path(place).read_text(encoding="ascii").strip(), source=place)
        except OSError as error:
            raise MissingCredentialError(f"master key: {place}: {error.strerror or error}") from error
        except UnicodeDecodeError:
            raise ConfigError(f"master key: {place}: expected text, 32 bytes or more in base64") from None
    raise ConfigError("master key: expected env:NAME or file:PATH, never the key itself")


def master_key(text: str, *, source: str) -> bytes:
    """The bytes of a master key as text: base64 of 32 bytes or more (`openssl rand -base64 32`).

    Raises ConfigError, which names the source and never the text.
    """
    try:
        key = base64.b64decode(text.strip(), altchars=b"-_" if {"-", "_"} & set(text) else None, validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) < MASTER_BYTES:
        raise ConfigError(
            f"master key: {source}: expected {MASTER_BYTES} bytes or more in base64 (`openssl rand -base64 32`)"
        )
    return key
