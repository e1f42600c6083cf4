"""Google Cloud Vision's label detection through google-cloud-vision, by gRPC.

Google's client would retry UNAVAILABLE for ten minutes, and gRPC's channel may retry on its own. Both are off, so
that a request is sent once.
"""

from __future__ import annotations

import asyncio
import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias, final

import google.auth
import grpc  # type: ignore[import-untyped, unused-ignore]
from google.api_core.exceptions import GoogleAPICallError
from google.auth.exceptions import GoogleAuthError
from google.cloud.vision_v1 import ImageAnnotatorAsyncClient
from google.cloud.vision_v1.services.image_annotator.transports import ImageAnnotatorGrpcAsyncIOTransport
from google.oauth2 import service_account

from smoothing_proxy.backends.base import Forwarded
from smoothing_proxy.backends.prices import price_of
from smoothing_proxy.backends.secrecy import Veil
from smoothing_proxy.errors import (
    BackendError,
    BackendTimeoutError,
    BackendUnavailableError,
    ConfigError,
    MissingCredentialError,
    RequestRejectedError,
)
from smoothing_proxy.images.codec import EncodedImage, Encoding
from smoothing_proxy.types import Reply
from smoothing_proxy.wire.base import HttpReply, HttpRequest
from smoothing_proxy.wire.google_grpc import Code, details_in, error_of
from smoothing_proxy.wire.google_proto import LIMITS, annotate_request, cut, grpc_bytes, replies_of

__all__ = ["GoogleVision"]

NAME = "google-vision"
ENDPOINT = "vision.googleapis.com:443"
SCOPES = ("https://www.googleapis.com/auth/cloud-vision",)

_ANNOTATE = "/google.cloud.vision.v1.ImageAnnotator/BatchAnnotateImages"

_OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.enable_retries", 0),
    ("grpc.service_config_disable_resolution", 1),  # it could turn retries on again
    ("grpc.max_reconnect_backoff_ms", 10_000),  # a run that waits for the network should notice its return
    ("grpc.use_local_subchannel_pool", 1),
)
_NOT_CONNECTED = (grpc.ChannelConnectivity.IDLE, grpc.ChannelConnectivity.CONNECTING)
_LOOPBACK = re.compile(r"(localhost|127\.\d+\.\d+\.\d+|\[::1\]):\d+")
_TARGET = re.compile(r"([\w.-]+|\[[0-9A-Fa-f:.]+\])(:\d{1,5})?")

Answers: TypeAlias = Sequence[Reply | BackendError]


@final
class GoogleVision:
    """Implements Backend. One request carries up to `batch` copies and is sent once.

    api_key_env: name of the environment variable that holds an API key. credentials_file: of a service account
    (JSON). With neither, Google's Application Default Credentials are looked for by the first request.
    endpoint: another "host:port" than Google's own, such as "eu-vision.googleapis.com:443". insecure: without TLS,
    for a server on this machine. verify: a file of certificates to trust for the endpoint, "" for the usual ones.
    max_labels: how many labels a reply carries at most, the best first.
    batch: 1 to 16 copies. Where their bytes exceed what one request may hold, several are sent at once; a copy is
    billed the same in either.
    concurrency: requests in flight at once. connect_timeout_s, read_timeout_s: for the connection, then for each
    answer. encoding: "png", "jpeg" or "jpeg:80".
    price_usd_per_1000, price_as_of: yours, where it is not the list price.

    Raises ConfigError for a setting that cannot work, and MissingCredentialError where the variable is not set.
    """

    def __init__(
        self,
        *,
        api_key_env: str = "",
        credentials_file: str | Path | None = None,
        endpoint: str = "",
        insecure: bool = False,
        verify: str | Path = "",
        max_labels: int = 10,
        batch: int = 16,
        concurrency: int = 8,
        connect_timeout_s: float = 5.0,
        read_timeout_s: float = 30.0,
        encoding: str = "png",
        price_usd_per_1000: float | None = None,
        price_as_of: str = "",
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        _check_from_one(max_labels=max_labels, batch=batch, concurrency=concurrency)
        _check_seconds(connect_timeout_s=connect_timeout_s, read_timeout_s=read_timeout_s)
        if batch > LIMITS.batch:
            raise ConfigError(f"{NAME}: batch is {batch}; a request takes at most {LIMITS.batch} pictures")
        self.name = NAME
        self.vendor = "google"
        self.batch_size = batch
        self.remote = True
        self.concurrency = concurrency
        self.encoding = _encoding(encoding)
        price = price_of(NAME, price_usd_per_1000, price_as_of)
        self.price_usd, self.price_as_of = price.usd, price.as_of
        self._endpoint = _endpoint(endpoint, insecure=insecure)
        self.address = f"{'http' if insecure else 'https'}://{self._endpoint}"
        self._credentials = _credentials(credentials_file, api_key_env, insecure=insecure)
        self._metadata = _key_metadata(api_key_env, environ)
        self._veil = Veil(value for _, value in self._metadata)
        self._insecure = insecure
        self._roots = _read(verify, "verify") if verify else None
        self._max_labels = max_labels
        self._connect_timeout_s = connect_timeout_s
        self._read_timeout_s = read_timeout_s
        self._client: ImageAnnotatorAsyncClient | None = None
        self._channel: Any = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._opening = asyncio.Lock()
        self._closed = False
        where = {"endpoint": self._endpoint} if endpoint else {}
        self.fingerprint: Mapping[str, str] = {"name": NAME, "max_labels": str(max_labels), **where}

    def __repr__(self) -> str:
        return f"GoogleVision(endpoint={self._endpoint!r})"

    async def classify(self, copies: Sequence[EncodedImage]) -> Answers:
        """The labels of the copies, or the failures in their places.

        Raises BackendError when there was one request and it failed, and MissingCredentialError. Of several
        requests, what one was answered stands beside another's error, since it was paid for.
        """
        outcomes: list[Reply | BackendError | None] = [_unsendable(copy) for copy in copies]
        left = [i for i, outcome in enumerate(outcomes) if outcome is None]
        parts = [left[part] for part in cut([grpc_bytes(len(copies[i].data)) for i in left], most=self.batch_size)]
        answered = await asyncio.gather(*(self._ask([copies[i].data for i in part]) for part in parts))
        failures = [answers for answers in answered if isinstance(answers, BackendError)]
        if failures and len(parts) == 1:
            raise failures[0]
        for part, answers in zip(parts, answered, strict=True):
            places = [answers] * len(part) if isinstance(answers, BackendError) else answers
            for i, answer in zip(part, places, strict=True):
                outcomes[i] = answer
        return [outcome for outcome in outcomes if outcome is not None]

    async def forward(self, request: HttpRequest) -> Forwarded:
        """See Forwards: a serialised BatchAnnotateImagesRequest, for whatever features."""
        await self._connected()
        try:
            call = self._channel.unary_unary(_ANNOTATE)
            body = await call(request.body, timeout=self._read_timeout_s, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            failure = self._veil.error(_rpc_failure(error))
        except grpc.aio.UsageError:
            failure = _closed_error()
        else:
            return Forwarded(HttpReply(200, {}, bytes(body)))
        raise failure  # outside of the handler: gRPC's errors hold the call

    async def aclose(self) -> None:
        """Close the connection; requests under way are given up and may be billed."""
        self._closed = True
        channel, self._channel, self._client = self._channel, None, None
        if channel is not None and self._loop is asyncio.get_running_loop():
            await channel.close()

    async def _ask(self, images: Sequence[bytes]) -> Answers | BackendError:
        """One request. Errors are returned: raised ones would keep the pictures in their tracebacks."""
        try:
            client = await self._connected()
            response = await client.batch_annotate_images(
                annotate_request(images, max_results=self._max_labels),
                retry=None,
                timeout=self._read_timeout_s,
                metadata=self._metadata,
            )
            answers = replies_of(response, len(images), backend=NAME)
            return [self._veil.error(x) if isinstance(x, BackendError) else x for x in answers]
        except BackendError as error:
            return self._veil.error(error.with_traceback(None))
        except GoogleAPICallError as error:
            return self._veil.error(_failure(error))
        except grpc.aio.UsageError:  # the channel was closed before the request was sent
            return _closed_error()
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not self._closed or (task is not None and task.cancelling()):
                raise
            return BackendTimeoutError(
                f"{NAME} was closed during a request (it may have been billed)", backend=NAME
            )

    async def _connected(self) -> ImageAnnotatorAsyncClient:
        """The client with its connection up, or found to be impossible: then its next request fails at once.

        A deadline in gRPC covers the connection too. This wait keeps "nothing was sent" apart from "no answer".
        """
        client, channel = await self._opened()
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                while (state := channel.get_state(try_to_connect=True)) in _NOT_CONNECTED:
                    await channel.wait_for_state_change(state)
        except TimeoutError:
            raise BackendUnavailableError(
                f"{NAME}: no connection to {self._endpoint} within {self._connect_timeout_s} s; check the network",
                backend=NAME,
            ) from None
        return client

    async def _opened(self) -> tuple[ImageAnnotatorAsyncClient, Any]:
        if self._loop is not (loop := asyncio.get_running_loop()):
            # A channel belongs to the event loop that it was made in, and is lost with it.
            self._loop, self._client, self._opening = loop, None, asyncio.Lock()
        async with self._opening:
            if self._closed:
                raise _closed_error()
            if self._client is None:
                self._channel = await self._new_channel()
                transport = ImageAnnotatorGrpcAsyncIOTransport(channel=self._channel, host=self._endpoint)
                self._client = ImageAnnotatorAsyncClient(transport=transport)
            return self._client, self._channel

    async def _new_channel(self) -> Any:
        if self._insecure:
            return grpc.aio.insecure_channel(self._endpoint, options=_OPTIONS)
        tls = grpc.ssl_channel_credentials(root_certificates=self._roots)
        if self._metadata:
            return grpc.aio.secure_channel(self._endpoint, tls, options=_OPTIONS)
        credentials = self._credentials or await asyncio.to_thread(_default_credentials)
        return ImageAnnotatorGrpcAsyncIOTransport.create_channel(
            self._endpoint, credentials=credentials, ssl_credentials=tls, options=_OPTIONS
        )


def _failure(error: GoogleAPICallError) -> BackendError:
    call = error.response
    if not isinstance(call, grpc.RpcError):
        return error_of(Code.UNKNOWN, str(error), answered=False, backend=NAME)
    return _rpc_failure(call)


def _rpc_failure(call: Any) -> BackendError:
    details = details_in(tuple(call.trailing_metadata() or ()))
    return error_of(
        call.code().value[0], call.details() or "", details or (), answered=details is not None, backend=NAME
    )


def _closed_error() -> BackendError:
    return BackendError(f"{NAME} was closed", backend=NAME, attempts=0)


def _unsendable(copy: EncodedImage) -> RequestRejectedError | None:
    """What Google is known to refuse, before anything is sent."""
    if copy.format not in LIMITS.formats:
        what = f'a copy in the format {copy.format!r}; set `encoding = "png"` or "jpeg:95"'
    elif len(copy.data) > LIMITS.image_bytes:
        what = f'a copy of {len(copy.data)} bytes; Google takes {LIMITS.image_bytes}; try `encoding = "jpeg:95"`'
    else:
        return None
    return RequestRejectedError(f"{NAME}: {what}", backend=NAME, attempts=0)


def _encoding(text: str) -> Encoding:
    encoding = Encoding.parse(text, max_bytes=LIMITS.image_bytes)
    if encoding.format not in LIMITS.formats:
        raise ConfigError(f"{NAME}: encoding is {text!r}; expected 'png', 'jpeg' or 'jpeg:95'")
    return encoding


def _endpoint(endpoint: str, *, insecure: bool) -> str:
    if endpoint and not _TARGET.fullmatch(endpoint):
        raise ConfigError(f"{NAME}: endpoint: expected 'host:port', without http:// and without a path")
    if insecure and not _LOOPBACK.fullmatch(endpoint):
        raise ConfigError(
            f"{NAME}: insecure: only for an endpoint on this machine, like '127.0.0.1:50051'; elsewhere the key "
            "and the pictures would travel in clear"
        )
    return endpoint or ENDPOINT


def _key_metadata(variable: str, environ: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    if not variable:
        return ()
    key = environ.get(variable, "").strip()
    if not key:
        raise MissingCredentialError(f"{NAME}: api_key_env: the environment variable {variable} is not set")
    if not (key.isascii() and key.isprintable()):
        raise ConfigError(f"{NAME}: api_key_env: the environment variable {variable} holds no API key")
    return (("x-goog-api-key", key),)


def _credentials(file: str | Path | None, api_key_env: str, *, insecure: bool) -> Any:
    if file is None:
        return None
    if api_key_env or insecure:
        other = "api_key_env" if api_key_env else "insecure"
        raise ConfigError(f"{NAME}: credentials_file and {other} exclude each other")
    _read(file, "credentials_file")
    try:
        found: Any = service_account.Credentials.from_service_account_file(str(file), scopes=SCOPES)  # type: ignore[no-untyped-call, unused-ignore]
        return found.with_always_use_jwt_access(True)  # signed here: nobody is asked for a token
    except (ValueError, GoogleAuthError) as error:
        raise ConfigError(
            f"{NAME}: credentials_file: {file}: not the JSON key of a service account ({type(error).__name__})"
        ) from None


def _default_credentials() -> Any:
    try:
        credentials, _ = google.auth.default(scopes=SCOPES)  # type: ignore[no-untyped-call, unused-ignore]
    except GoogleAuthError as error:
        raise MissingCredentialError(
            f"{NAME}: no credentials; set api_key_env or credentials_file, or GOOGLE_APPLICATION_CREDENTIALS, or "
            f"run `gcloud auth application-default login` ({type(error).__name__})"
        ) from None
    return credentials


def _read(path: str | Path, key: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"{NAME}: {key}: {path}: {error.strerror or error}") from None


def _check_from_one(**numbers: int) -> None:
    for key, number in numbers.items():
        if number < 1:
            raise ConfigError(f"{NAME}: {key} is {number}; expected 1 or more")


def _check_seconds(**seconds: float) -> None:
    for key, value in seconds.items():
        if not (math.isfinite(value) and value > 0):
            raise ConfigError(f"{NAME}: {key} is {value}; expected seconds, more than 0")
