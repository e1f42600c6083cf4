"""Amazon Rekognition's DetectLabels through boto3, with boto3's own chain of credentials."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, final
from urllib.parse import urlsplit

import anyio
import anyio.to_thread
import boto3
from botocore import exceptions as boto
from botocore.config import Config

from smoothing_proxy.backends.prices import price_of
from smoothing_proxy.errors import (
    AuthenticationError,
    BackendError,
    BackendTimeoutError,
    BackendUnavailableError,
    ConfigError,
    ImageError,
    MalformedReplyError,
    MissingCredentialError,
    RequestRejectedError,
    nearest,
)
from smoothing_proxy.images.codec import EncodedImage, Encoding, decode, encode
from smoothing_proxy.types import Reply
from smoothing_proxy.wire.aws import LIMITS, detect_labels, error_of, reply_of, retry_after_of

__all__ = ["AwsRekognition"]

NAME = "aws-rekognition"

_CREDENTIALS = (
    "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile (`profile` or AWS_PROFILE), and this machine's role"
)
_UNREACHED = (boto.ConnectionError,)  # nothing was sent: no route, no TLS, no proxy
_BROKEN_OFF = (boto.HTTPClientError, boto.IncompleteReadError)
_NO_CREDENTIALS = (
    boto.NoCredentialsError,
    boto.PartialCredentialsError,
    boto.CredentialRetrievalError,
    boto.TokenRetrievalError,
    boto.MetadataRetrievalError,
    boto.SSOError,
    getattr(boto, "LoginError", boto.SSOError),  # newer than the oldest boto3 that will do
    boto.RefreshWithMFAUnsupportedError,
)


@final
class AwsRekognition:
    """Implements Backend. One copy is one call, sent once: whoever owns the retries sends it again.

    region: as in "eu-west-1"; profile: of the files in ~/.aws. None takes what the environment says.
    endpoint: another address than the region's own; AWS_ENDPOINT_URL_REKOGNITION is obeyed too.
    max_labels: how many labels a reply carries at most, the best first.
    concurrency: calls in flight at once, each in a thread.
    encoding: "png", "jpeg" or "jpeg:80"; sides below 80 px are enlarged to it.
    price_usd_per_1000, price_as_of: yours, where it is not the list price.
    verify: a file of certificates to trust for the endpoint, "" for the usual ones.

    Raises ConfigError for a setting that cannot work, and MissingCredentialError where the chain finds nothing,
    both before anything is sent to Rekognition.
    """

    batch_size = 1
    remote = True

    def __init__(
        self,
        *,
        region: str | None = None,
        profile: str | None = None,
        endpoint: str = "",
        max_labels: int = 100,
        concurrency: int = 16,
        connect_timeout_s: float = 5.0,
        read_timeout_s: float = 30.0,
        encoding: str = "png",
        price_usd_per_1000: float | None = None,
        price_as_of: str = "",
        verify: str = "",
    ) -> None:
        for key, value in {"max_labels": max_labels, "concurrency": concurrency}.items():
            if value < 1:
                raise ConfigError(f"{NAME}: {key} is {value}; expected 1 or more")
        for key, seconds in {"connect_timeout_s": connect_timeout_s, "read_timeout_s": read_timeout_s}.items():
            if not (math.isfinite(seconds) and seconds > 0):
                raise ConfigError(f"{NAME}: {key} is {seconds}; expected seconds, more than 0")
        self.name = NAME
        self.concurrency = concurrency
        self.encoding = _encoding(encoding)
        price = price_of(NAME, price_usd_per_1000, price_as_of)
        self.price_usd, self.price_as_of = price.usd, price.as_of
        self._max_labels = max_labels
        self._client = _client(
            _session(region, profile),
            endpoint_url=endpoint or None,
            verify=_existing(verify) or None,
            config=Config(
                retries={"total_max_attempts": 1, "mode": "standard"},
                max_pool_connections=concurrency,
                connect_timeout=connect_timeout_s,
                read_timeout=read_timeout_s,
                parameter_validation=False,  # the one shape that is sent is made in wire.aws
                user_agent="smoothing-proxy",  # boto3's own is put together anew for each request
            ),
        )
        self._client.meta.events.register("before-parse.rekognition.DetectLabels", self._keep)
        self.fingerprint: Mapping[str, str] = _fingerprint(self._client.meta, max_labels)
        self._received = threading.local()
        self._threads = anyio.CapacityLimiter(concurrency)
        self._closed = False

    async def classify(self, copies: Sequence[EncodedImage]) -> Sequence[Reply | BackendError]:
        """The labels of one copy. Raises BackendError, for a picture that is refused too."""
        if self._closed:
            raise BackendError(f"{NAME} was closed", backend=NAME)
        (copy,) = copies
        return [await anyio.to_thread.run_sync(self._ask, copy, limiter=self._threads)]

    async def aclose(self) -> None:
        """Close the connections that are idle; calls under way are answered."""
        if not self._closed:
            self._closed = True
            self._client.close()

    def _ask(self, copy: EncodedImage) -> Reply:
        _check(copy)
        self._received.reply = None
        try:
            reply = self._reply(
                self._client.detect_labels(**detect_labels(copy.data, max_labels=self._max_labels))
            )
        except Exception as error:  # noqa: BLE001 (boto3's parser fails in ways of its own on a malformed error)
            failure = self._failure(error)
        else:
            return reply
        raise failure  # outside of the handler: boto3's exceptions hold the request, and with it the picture

    def _keep(self, response_dict: dict[str, Any], **_: object) -> None:
        """Keep what arrived, and take the labels out of boto3's hands: it needs longer for them than all the rest
        of the reply, passes over what is malformed, and forgets the body that the ledger wants to see.
        """
        self._received.reply = dict(response_dict)
        if response_dict["status_code"] == 200:
            response_dict["body"] = b"{}"

    def _reply(self, parsed: Mapping[str, Any]) -> Reply:
        body = json.loads(self._received.reply["body"])
        if not isinstance(body, dict):
            raise MalformedReplyError("AWS Rekognition DetectLabels: the reply is not a JSON object")
        return reply_of({**body, "ResponseMetadata": parsed.get("ResponseMetadata")})

    def _failure(self, error: Exception) -> Exception:
        reply: Mapping[str, Any] | None = self._received.reply
        if isinstance(error, boto.ClientError):
            stated = error.response.get("Error", {})
            headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            code, message = str(stated.get("Code", "")), str(stated.get("Message", ""))
            return error_of(code, message, status, retry_after_of(headers), NAME)
        if isinstance(error, boto.BotoCoreError):
            return _sdk_failure(error)
        if isinstance(error, RuntimeError) and "credentials" in str(error):  # botocore's, of renewed ones
            return AuthenticationError(f"{NAME}: {error}", backend=NAME)
        return error if reply is None else _unreadable(reply, error)


def _unreadable(reply: Mapping[str, Any], error: Exception) -> BackendError:
    """A reply that is cut short, an error whose body says nothing, or labels in another format."""
    body, status = bytes(reply["body"] or b""), int(reply["status_code"])
    headers = {str(name).lower(): str(value) for name, value in reply["headers"].items()}
    if status >= 300:
        return error_of(str(status), "", status, retry_after_of(headers), NAME)
    stated = headers.get("content-length", "")
    if stated.isdecimal() and int(stated) > len(body):
        return BackendTimeoutError(
            f"{NAME}: the connection broke in the middle of the reply; it has been billed, most likely",
            backend=NAME,
        )
    what = str(error) if isinstance(error, MalformedReplyError) else f"{NAME}: the reply is no JSON: {error}"
    return MalformedReplyError(what, backend=NAME, reply=body)


def _sdk_failure(error: Exception) -> BackendError:
    """An exception of botocore's own, where no reply came."""
    text = f"{NAME}: {str(error)[:500]}"
    if isinstance(error, _NO_CREDENTIALS):
        return AuthenticationError(f"{text}; looked for {_CREDENTIALS}", backend=NAME)
    if isinstance(error, boto.ProxyConnectionError):
        return BackendUnavailableError(f"{text}; check HTTPS_PROXY and NO_PROXY", backend=NAME)
    if isinstance(error, boto.SSLError):
        advice = "check `verify` (or AWS_CA_BUNDLE), this machine's clock, and a proxy that reads along"
        return BackendUnavailableError(f"{text}; {advice}", backend=NAME)
    if isinstance(error, _UNREACHED):
        return BackendUnavailableError(f"{text}; check the network, the region and the endpoint", backend=NAME)
    if isinstance(error, _BROKEN_OFF):
        return BackendTimeoutError(f"{text}; it may have been billed", backend=NAME)
    return BackendUnavailableError(text, backend=NAME, maybe_billed=True)


def _check(copy: EncodedImage) -> None:
    """Raises RequestRejectedError for what Rekognition is known to refuse, before anything is sent."""
    if copy.format not in LIMITS.formats:
        _reject(f'a copy in the format {copy.format!r}; set `encoding = "png"` or "jpeg:95"')
    longest, shortest = max(copy.height, copy.width), min(copy.height, copy.width)
    if longest > LIMITS.max_side_px or shortest < LIMITS.min_side_px:
        size, sides = f"{copy.height}x{copy.width}", f"{LIMITS.min_side_px} to {LIMITS.max_side_px}"
        _reject(f"a copy of {size} px; Rekognition takes {sides} px a side")
    if len(copy.data) > LIMITS.image_bytes:
        fitting = _fitting(copy)
        advice = f'`encoding = "{fitting}"` would fit' if fitting else "use a smaller picture"
        _reject(f"a copy of {len(copy.data)} bytes; Rekognition takes {LIMITS.image_bytes}; {advice}")


def _reject(what: str) -> None:
    raise RequestRejectedError(f"{NAME}: {what}", backend=NAME, attempts=0)


def _fitting(copy: EncodedImage) -> str:
    """The best encoding that brings this copy under the limit, or ""."""
    try:
        pixels = decode(copy)
    except ImageError:
        return ""
    encodings = ("jpeg:95", "jpeg:90", "jpeg:80", "jpeg:60")
    fits = (text for text in encodings if len(encode(pixels, Encoding.parse(text)).data) <= LIMITS.image_bytes)
    return next(fits, "")


def _encoding(text: str) -> Encoding:
    encoding = Encoding.parse(text, min_side_px=LIMITS.min_side_px)
    if encoding.format not in LIMITS.formats:
        raise ConfigError(f"{NAME}: encoding is {text!r}; expected 'png', 'jpeg' or 'jpeg:95'")
    return encoding


def _existing(path: str) -> str:
    if path and not Path(path).is_file():
        raise ConfigError(f"{NAME}: verify: {path}: no such file")
    return path


def _session(region: str | None, profile: str | None) -> Any:
    try:
        session = boto3.Session(region_name=region, profile_name=profile)
    except boto.BotoCoreError as error:
        raise ConfigError(f"{NAME}: {error}") from None
    if not session.region_name:
        raise ConfigError(f"{NAME}: region: missing; set it, or AWS_DEFAULT_REGION, to one like 'eu-west-1'")
    try:
        credentials = session.get_credentials()
        if credentials is not None:
            credentials.get_frozen_credentials()
    except (boto.BotoCoreError, boto.ClientError) as error:
        raise MissingCredentialError(f"{NAME}: {error}; looked for {_CREDENTIALS}") from None
    if credentials is None:
        raise MissingCredentialError(f"{NAME}: no credentials; looked for {_CREDENTIALS}")
    return session


def _client(session: Any, **options: Any) -> Any:
    try:
        client = session.client("rekognition", **options)
    except (boto.BotoCoreError, ValueError) as error:
        raise ConfigError(f"{NAME}: {error}") from None
    region = session.region_name
    known = [
        name
        for partition in session.get_available_partitions()
        for name in session.get_available_regions("rekognition", partition_name=partition)
    ]
    if region not in known and not _own_endpoint(client.meta):
        hint = nearest(region, known)
        raise ConfigError(
            f"{NAME}: region: boto3 {boto3.__version__} knows no Rekognition in {region!r}{hint}; "
            "set `endpoint` if there is one"
        )
    return client


def _own_endpoint(meta: Any) -> str:
    """The client's endpoint where it is not the region's own, without user, password and query; else ""."""
    url = urlsplit(meta.endpoint_url)
    host = url.hostname or ""
    if host.startswith((f"rekognition.{meta.region_name}.", f"rekognition-fips.{meta.region_name}.")):
        return ""
    port = f":{url.port}" if url.port else ""
    return f"{url.scheme}://{host}{port}{url.path}"


def _fingerprint(meta: Any, max_labels: int) -> dict[str, str]:
    endpoint = _own_endpoint(meta)
    found = {"name": NAME, "region": str(meta.region_name), "max_labels": str(max_labels)}
    return {**found, "endpoint": endpoint} if endpoint else found
