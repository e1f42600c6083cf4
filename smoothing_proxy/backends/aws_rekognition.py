"""Amazon Rekognition's DetectLabels over HTTP, signed and with credentials as boto3 finds them."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from typing import final

import anyio.to_thread

from smoothing_proxy.backends.aws_account import AwsAccount
from smoothing_proxy.backends.base import Forwarded
from smoothing_proxy.backends.http import HttpApi
from smoothing_proxy.backends.prices import price_of
from smoothing_proxy.errors import (
    AuthenticationError,
    BackendError,
    BackendTimeoutError,
    BackendUnavailableError,
    ConfigError,
    ImageError,
    RequestRejectedError,
)
from smoothing_proxy.images.codec import EncodedImage, Encoding, decode, encode
from smoothing_proxy.types import Reply
from smoothing_proxy.wire.aws import LIMITS, answer_of, request_body
from smoothing_proxy.wire.aws_errors import reply_error
from smoothing_proxy.wire.base import HttpReply, HttpRequest

__all__ = ["AwsRekognition"]

NAME = "aws-rekognition"

_ADVICE: Mapping[type[BackendError], str] = {
    BackendTimeoutError: "it may have been billed",
    BackendUnavailableError: "check the network, the region and the endpoint; with https also check `verify` (or "
    "AWS_CA_BUNDLE), this machine's clock, and who reads along",
}


@final
class AwsRekognition:
    """Implements Backend. One copy is one call, sent once: whoever owns the retries sends it again.

    region: as in "eu-west-1"; profile: of the files in ~/.aws. None takes what the environment says.
    endpoint: another address than the region's own; AWS_ENDPOINT_URL_REKOGNITION is obeyed too, and whatever else
        boto3 obeys: FIPS and dual-stack endpoints, AWS_CA_BUNDLE, HTTPS_PROXY and NO_PROXY.
    max_labels: how many labels a reply carries at most, the best first.
    concurrency: calls in flight at once.
    encoding: "png", "jpeg" or "jpeg:80". Copies are made to fit: 80 to 10,000 px a side, 5 MB (images.codec).
    price_usd_per_1000, price_as_of: yours, where it is not the list price.
    verify: a file of certificates to trust for the endpoint; "" for that of AWS_CA_BUNDLE, or the usual ones.

    Raises ConfigError for a setting that cannot work, and MissingCredentialError where the chain finds nothing,
    both before anything is sent to Rekognition.
    """

    batch_size = 1
    remote = True
    vendor = "aws"

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
        self._account = AwsAccount(NAME, region=region, profile=profile, endpoint=endpoint)
        self.address = self._account.url
        self._api = HttpApi(
            NAME,
            concurrency=concurrency,
            connect_timeout_s=connect_timeout_s,
            read_timeout_s=read_timeout_s,
            verify=verify or self._account.ca_bundle,
        )
        self.fingerprint: Mapping[str, str] = _fingerprint(self._account, max_labels)
        self._room = asyncio.Semaphore(concurrency)  # signed once there is room: a signature grows old

    async def classify(self, copies: Sequence[EncodedImage]) -> Sequence[Reply | BackendError]:
        """The labels of one copy. Raises BackendError, for a picture that is refused too."""
        (copy,) = copies
        await _check(copy)
        body = request_body(copy.data, max_labels=self._max_labels)
        async with self._room:
            reply = await self._sent(body, await self._account.signed(body))
        return [answer_of(reply, backend=NAME)]

    async def forward(self, request: HttpRequest) -> Forwarded:
        """See Forwards: any operation of Rekognition, signed with this account's credentials."""
        async with self._room:
            reply = await self._sent(request.body, await self._account.signed(request.body, request.headers))
        if reply.status < 300:
            return Forwarded(reply)
        error = reply_error(reply, backend=NAME)
        if isinstance(error, AuthenticationError):
            raise error
        return Forwarded(reply, error)

    async def aclose(self) -> None:
        """Close the connections; calls under way fail."""
        await self._api.aclose()

    async def _sent(self, body: bytes, headers: Mapping[str, str]) -> HttpReply:
        try:
            return await self._api.send("POST", self._account.url, headers=headers, content=body)
        except (BackendTimeoutError, BackendUnavailableError) as error:
            failure = error
        where = f"asked for DetectLabels in {self._account.region}"
        raise type(failure)(f"{failure}, {where}; {_ADVICE[type(failure)]}", backend=NAME)


def _fingerprint(account: AwsAccount, max_labels: int) -> dict[str, str]:
    found = {"name": NAME, "region": account.region, "max_labels": str(max_labels)}
    return {**found, "endpoint": account.own_endpoint} if account.own_endpoint else found


async def _check(copy: EncodedImage) -> None:
    """Raises RequestRejectedError for what Rekognition is known to refuse, before anything is sent."""
    if copy.format not in LIMITS.formats:
        _reject(f'a copy in the format {copy.format!r}; set `encoding = "png"` or "jpeg:95"')
    longest, shortest = max(copy.height, copy.width), min(copy.height, copy.width)
    if longest > LIMITS.max_side_px or shortest < LIMITS.min_side_px:
        size, sides = f"{copy.height}x{copy.width}", f"{LIMITS.min_side_px} to {LIMITS.max_side_px}"
        _reject(f"a copy of {size} px; Rekognition takes {sides} px a side")
    if len(copy.data) > LIMITS.image_bytes:
        fitting = await anyio.to_thread.run_sync(_fitting, copy)  # several encodings
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
    encoding = Encoding.parse(
        text, min_side_px=LIMITS.min_side_px, max_side_px=LIMITS.max_side_px, max_bytes=LIMITS.image_bytes
    )
    if encoding.format not in LIMITS.formats:
        raise ConfigError(f"{NAME}: encoding is {text!r}; expected 'png', 'jpeg' or 'jpeg:95'")
    return encoding
