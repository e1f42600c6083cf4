"""Azure AI Vision's tags over HTTP, with a key or a token of Entra ID."""

from __future__ import annotations

import asyncio
import importlib
import os
import re
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any, Protocol, final, get_args

from smoothing_proxy.backends.base import Forwarded
from smoothing_proxy.backends.before_sending import check_copy, encoding_within, secret_of
from smoothing_proxy.backends.http import HttpApi, http_url, retry_after_s
from smoothing_proxy.backends.prices import price_of
from smoothing_proxy.errors import (
    AuthenticationError,
    BackendError,
    BackendUnavailableError,
    ConfigError,
    nearest,
)
from smoothing_proxy.images.codec import EncodedImage
from smoothing_proxy.types import Reply
from smoothing_proxy.wire.azure import LIMITS, Version, error_of, headers_for, reply_of, tag_url
from smoothing_proxy.wire.base import HttpRequest

__all__ = ["AzureVision", "TokenCredential"]

NAME = "azure-vision"

SCOPE = "https://cognitiveservices.azure.com/.default"

_NO_ANSWER = frozenset({"ServiceRequestError", "ServiceResponseError"})
"""Of azure-core, which need not be installed."""

RENEWED_S = 300.0
"""A token is renewed so long before it expires."""


class TokenCredential(Protocol):
    """An asynchronous credential as azure-identity makes them (`azure.identity.aio`)."""

    async def get_token(self, *scopes: str) -> Any:
        """Something with `token` and `expires_on`, in seconds since 1970."""
        ...

    async def close(self) -> None:
        """Release its connections."""
        ...


def _utc() -> datetime:
    return datetime.now(UTC)


@final
class AzureVision:
    """Implements Backend. One copy is one call, sent once: whoever owns the retries sends it again.

    **Image Analysis retires on 25 September 2028**: both versions stop then.

    endpoint: as in "https://NAME.cognitiveservices.azure.com"; left out, it is read from the environment variable
        named `endpoint_env`. key_env: the variable that holds the key.
    entra: sign in with Entra ID instead of a key, by azure-identity's usual chain (to be installed); the endpoint
        then has to be the resource's own name. credential: one of your own for it, in Python.
    version: "4.0" (Image Analysis, pictures below 20 MB) or "3.2" (Computer Vision, below 4 MB).
    model_version: "latest", or a date that pins it.
    concurrency: calls in flight at once.
    encoding: "png", "jpeg" or "jpeg:80". Sides have to be "greater than 50" px: shorter ones become 51.
    price_usd_per_1000, price_as_of: yours, where it is not the list price.
    verify: a file of certificates to trust for the endpoint, "" for the usual ones.
    environ, now: the environment and the clock, for tests.

    Raises ConfigError for a setting that cannot work and MissingCredentialError where the key is not set, both
    before anything is sent.
    """

    batch_size = 1
    remote = True
    vendor = "azure"

    def __init__(
        self,
        *,
        endpoint: str = "",
        endpoint_env: str = "AZURE_VISION_ENDPOINT",
        key_env: str = "AZURE_VISION_KEY",
        entra: bool = False,
        credential: TokenCredential | None = None,
        version: Version = "4.0",
        model_version: str = "latest",
        concurrency: int = 16,
        connect_timeout_s: float = 5.0,
        read_timeout_s: float = 30.0,
        encoding: str = "png",
        price_usd_per_1000: float | None = None,
        price_as_of: str = "",
        verify: str = "",
        environ: Mapping[str, str] | None = None,
        now: Callable[[], datetime] = _utc,
    ) -> None:
        environ = os.environ if environ is None else environ
        if version not in get_args(Version):
            raise ConfigError(
                f"{NAME}: version: {version!r} is not known{nearest(str(version), get_args(Version))}"
            )
        if not re.fullmatch(r"latest|\d{4}-\d{2}-\d{2}(-preview)?", model_version):
            raise ConfigError(
                f"{NAME}: model_version is {model_version!r}; expected 'latest' or a date: 2023-10-01"
            )
        self.name = NAME
        self.concurrency = concurrency
        self.encoding = encoding_within(encoding, LIMITS[version], source=f"{NAME}: encoding")
        price = price_of(NAME, price_usd_per_1000, price_as_of)
        self.price_usd, self.price_as_of = price.usd, price.as_of
        address = _endpoint(endpoint, endpoint_env, environ)
        self.fingerprint: Mapping[str, str] = {
            "name": NAME,
            "endpoint": address,
            "version": version,
            "model_version": model_version,
        }
        self._api = HttpApi(
            NAME,
            concurrency=concurrency,
            connect_timeout_s=connect_timeout_s,
            read_timeout_s=read_timeout_s,
            verify=verify,
        )
        self.address = address
        self._url = tag_url(address, version, model_version=model_version)
        self._version: Version = version
        self._now = now
        if entra or credential is not None:
            self._token: _Token | None = _Token(credential or _usual_credential(), now)
            self._headers: Mapping[str, str] = {}
        else:
            self._token = None
            self._headers = headers_for(key=secret_of(environ, key_env, source=f"{NAME}: key_env"))

    async def classify(self, copies: Sequence[EncodedImage]) -> Sequence[Reply | BackendError]:
        """The tags of one copy. Raises BackendError, for a picture that is refused too."""
        (copy,) = copies
        check_copy(copy, LIMITS[self._version], backend=NAME)
        reply = await self._api.send("POST", self._url, headers=await self._signed(), content=copy.data)
        if reply.status != 200:
            raise error_of(reply, backend=NAME, retry_after=retry_after_s(reply.headers, self._now()))
        return [reply_of(reply, self._version, backend=NAME)]

    async def forward(self, request: HttpRequest) -> Forwarded:
        """See Forwards: any of the vision service's operations, below this endpoint."""
        headers = {**await self._signed(), **request.headers}
        url = self.address + request.target
        reply = await self._api.send("POST", url, headers=headers, content=request.body)
        if reply.status < 300:
            return Forwarded(reply)
        error = error_of(reply, backend=NAME, retry_after=retry_after_s(reply.headers, self._now()))
        if isinstance(error, AuthenticationError) and reply.status != 404:
            raise error
        return Forwarded(reply, error)

    async def _signed(self) -> Mapping[str, str]:
        return headers_for(token=await self._token.text()) if self._token else self._headers

    async def aclose(self) -> None:
        """Close the connections."""
        async with AsyncExitStack() as closing:
            closing.push_async_callback(self._api.aclose)
            if self._token is not None:
                closing.push_async_callback(self._token.aclose)


class _Token:
    """A bearer token that is asked for once and again shortly before it expires."""

    def __init__(self, credential: TokenCredential, now: Callable[[], datetime]) -> None:
        self._credential = credential
        self._now = now
        self._asking = asyncio.Lock()
        self._text = ""
        self._renew_at = 0.0
        self._closed = False

    async def text(self) -> str:
        """The token. Raises AuthenticationError when none is to be had, BackendUnavailableError for the moment."""
        async with self._asking:
            if not self._text or self._now().timestamp() >= self._renew_at:
                await self._renew()
        return self._text

    async def aclose(self) -> None:
        """Close the credential, once."""
        if not self._closed:
            self._closed = True
            await self._credential.close()

    async def _renew(self) -> None:
        try:
            token = await self._credential.get_token(SCOPE)
        except Exception as error:  # noqa: BLE001 (every credential of the chain fails in its own way)
            failure = _token_failure(error)
        else:
            self._text, self._renew_at = token.token, token.expires_on - RENEWED_S
            return
        raise failure  # outside of the handler: the error may hold what was sent


def _token_failure(error: Exception) -> BackendError:
    """Nothing was sent to the vision service. Its words are not repeated: they may hold what was sent."""
    kind = type(error).__name__
    if _may_pass(error):
        return BackendUnavailableError(
            f"{NAME}: no token of Entra ID for the moment ({kind}); check the network", backend=NAME
        )
    return AuthenticationError(
        f"{NAME}: no token of Entra ID ({kind}); sign in (az login), or give this machine's identity the role "
        "Cognitive Services User",
        backend=NAME,
        attempts=0,
    )


def _may_pass(error: Exception) -> bool:
    """Whether it is the network or Entra itself that failed, and not the identity that was refused."""
    status = getattr(error, "status_code", None)
    if isinstance(status, int):
        return status in (408, 429) or status >= 500
    if isinstance(error, ConnectionError | TimeoutError | socket.gaierror):
        return True
    return not _NO_ANSWER.isdisjoint(kind.__name__ for kind in type(error).__mro__)


def _endpoint(endpoint: str, variable: str, environ: Mapping[str, str]) -> str:
    if endpoint:
        return http_url(endpoint, source=f"{NAME}: endpoint")
    found = environ.get(variable, "").strip()
    if not found:
        raise ConfigError(f"{NAME}: endpoint: missing, and the environment variable {variable} is not set")
    return http_url(found, source=f"{NAME}: {variable}")


def _usual_credential() -> TokenCredential:
    try:
        identity = importlib.import_module("azure.identity.aio")
    except ImportError:
        raise ConfigError(
            f"{NAME}: entra = true needs the package azure-identity; install it, or use a key"
        ) from None
    credential: TokenCredential = identity.DefaultAzureCredential()
    return credential
