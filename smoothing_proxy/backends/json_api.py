"""Any vendor that takes a picture over HTTP and answers JSON, described in the configuration file.

[backend]
name = "json-api"
url = "https://vision.example.com/classify"
headers = { Authorization = "Bearer {env:VISION_KEY}" }
body = { image = "{image_base64}", top = 5 }
labels_path = "$.predictions[*].name"
scores_path = "$.predictions[*].percent"
score_scale = 100
price_usd_per_1000 = 0.5
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, cast, final

from smoothing_proxy.backends.before_sending import check_copy, encoding_within
from smoothing_proxy.backends.http import HttpApi, http_url, retry_after_s
from smoothing_proxy.backends.json_template import body_of, filled_headers, paths_of, secrets_of
from smoothing_proxy.backends.prices import price_of
from smoothing_proxy.errors import BackendError, ConfigError, nearest
from smoothing_proxy.images.codec import EncodedImage
from smoothing_proxy.types import Reply
from smoothing_proxy.wire.base import HttpReply, Limits
from smoothing_proxy.wire.statuses import FAILURES, Failure, failure_error, failure_of

__all__ = ["JsonApi"]

NAME = "json-api"


def _utc() -> datetime:
    return datetime.now(UTC)


@final
class JsonApi:
    """Implements Backend. One copy is one request, sent once: whoever owns the retries sends it again.

    url: with its path; a query may follow, but no credential, since addresses end up in logs.
    headers: a value may hold {env:NAME}, the environment variable NAME; credentials only so.
    body: a JSON template in which "{image_base64}" or "{image_data_url}" stands for the picture, also inside of a
        longer text; or "raw" for the picture's own bytes. multipart_field: a form with the picture as this field,
        instead of a body.
    labels_path, scores_path: JSONPaths of the labels and their scores, as many and at the same places in the
        reply's lists. label_path: instead of both, of one label, which then has confidence 1; a reply without it
        votes for nothing. score_scale: the score of full confidence.
    model_version_path, request_id_path: JSONPaths of texts; "" where the reply has none. Name the version where
        you can: its change in the middle of a picture voids the certificate.
    errors: what a status means where it is not the usual: "418" = "quota", one of smoothing_proxy.wire.statuses'
        failures. 200 means an answer.
    max_bytes, min_side_px, max_side_px: of a picture; 0 for no limit. Copies are made to fit (images.codec).
    encoding: "png", "jpeg" or "jpeg:80".
    verify: a file of certificates to trust for the server, "" for the usual ones.
    environ, now: the environment and the clock, for tests.

    Raises ConfigError for a setting that cannot work and MissingCredentialError for a variable that is not set,
    both before anything is sent.
    """

    batch_size = 1
    remote = True

    def __init__(
        self,
        *,
        url: str,
        method: str = "POST",
        headers: Mapping[str, str] | None = None,
        body: Any = None,
        multipart_field: str = "",
        labels_path: str = "",
        scores_path: str = "",
        label_path: str = "",
        score_scale: float = 1.0,
        model_version_path: str = "",
        request_id_path: str = "",
        errors: Mapping[str, str] | None = None,
        max_bytes: int = 0,
        min_side_px: int = 0,
        max_side_px: int = 0,
        encoding: str = "png",
        concurrency: int = 8,
        connect_timeout_s: float = 5.0,
        read_timeout_s: float = 30.0,
        price_usd_per_1000: float | None = None,
        price_as_of: str = "",
        verify: str = "",
        environ: Mapping[str, str] | None = None,
        now: Callable[[], datetime] = _utc,
    ) -> None:
        environ = os.environ if environ is None else environ
        self._url = _address(url)
        self.address = self._url.partition("?")[0]
        self._method = _method(method)
        self._body = body_of(body, multipart_field, source=NAME)
        self._headers = filled_headers(headers or {}, environ, source=NAME)
        paths = {
            "labels_path": labels_path,
            "scores_path": scores_path,
            "label_path": label_path,
            "model_version_path": model_version_path,
            "request_id_path": request_id_path,
        }
        self._paths = paths_of(**paths, score_scale=score_scale, source=NAME)
        self._errors = _errors(errors or {})
        self._limits = _limits(max_bytes, min_side_px, max_side_px)
        self.name = NAME
        self.concurrency = concurrency
        self.encoding = encoding_within(encoding, self._limits, source=f"{NAME}: encoding")
        price = price_of(NAME, price_usd_per_1000, price_as_of)
        self.price_usd, self.price_as_of = price.usd, price.as_of
        asked = [self._url, self._method, headers, body, multipart_field, paths, score_scale]
        self.fingerprint: Mapping[str, str] = {
            "name": NAME,
            "url": self._url.partition("?")[0],
            "request": hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest(),
        }
        self._now = now
        self._api = HttpApi(
            NAME,
            concurrency=concurrency,
            connect_timeout_s=connect_timeout_s,
            read_timeout_s=read_timeout_s,
            verify=verify,
            secrets=secrets_of(headers or {}, environ),
        )

    async def classify(self, copies: Sequence[EncodedImage]) -> Sequence[Reply | BackendError]:
        """The labels of one copy. Raises BackendError, for a picture that is refused too."""
        (copy,) = copies
        check_copy(copy, self._limits, backend=NAME)
        content, content_type = self._body.packed(copy)
        headers = {"content-type": content_type, **self._headers}
        reply = await self._api.send(self._method, self._url, headers=headers, content=content)
        if reply.status != 200:
            raise self._error(reply)
        return [self._paths.reply(reply, NAME)]

    async def aclose(self) -> None:
        """Close the connections."""
        await self._api.aclose()

    def _error(self, reply: HttpReply) -> BackendError:
        """By status alone: the body's words are in no shape that we know, and may repeat what was sent."""
        failure = self._errors.get(reply.status) or failure_of(reply.status)
        wait_s = retry_after_s(reply.headers, self._now())
        message = f"{NAME}: HTTP {reply.status} ({failure})"
        return failure_error(failure, message, backend=NAME, retry_after=wait_s)


def _address(url: str) -> str:
    http_url(url.partition("?")[0], source=f"{NAME}: url")
    return url


def _method(method: str) -> str:
    if method not in ("POST", "PUT"):
        raise ConfigError(f"{NAME}: method: {method!r} carries no picture; expected POST or PUT")
    return method


def _errors(table: Mapping[str, str]) -> dict[int, Failure]:
    """Keys are texts, as TOML's are."""
    meanings: dict[int, Failure] = {}
    for status, failure in table.items():
        if not (str(status).isdecimal() and 201 <= int(status) <= 599):
            raise ConfigError(f"{NAME}: errors: {status!r} is no status other than 200")
        if failure not in FAILURES:
            raise ConfigError(
                f"{NAME}: errors.{status}: {failure!r} is not known{nearest(str(failure), FAILURES)}"
            )
        meanings[int(status)] = cast("Failure", failure)
    return meanings


def _limits(max_bytes: int, min_side_px: int, max_side_px: int) -> Limits:
    for key, value in (("max_bytes", max_bytes), ("min_side_px", min_side_px), ("max_side_px", max_side_px)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise ConfigError(f"{NAME}: {key}: expected a whole number, 0 for no limit")
    if max_side_px and max_side_px < min_side_px:
        raise ConfigError(f"{NAME}: max_side_px: {max_side_px} is less than min_side_px, {min_side_px}")
    most = max_bytes or 2**31
    return Limits(image_bytes=most, request_bytes=2 * most, min_side_px=min_side_px, max_side_px=max_side_px)
