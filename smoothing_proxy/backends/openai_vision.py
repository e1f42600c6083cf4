"""A vision model behind chat completions: OpenAI's, or any of the servers that speak the same format."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal, final, get_args

from smoothing_proxy.backends.before_sending import check_copy, encoding_within, secret_of
from smoothing_proxy.backends.http import HttpApi, http_url, retry_after_s
from smoothing_proxy.backends.prices import price_of
from smoothing_proxy.errors import BackendError, ConfigError, nearest
from smoothing_proxy.images.codec import EncodedImage
from smoothing_proxy.types import Reply
from smoothing_proxy.wire.openai import Detail, OpenAiWire, chat_url, error_of, reply_of, request_body

__all__ = ["OpenAiVision"]

NAME = "openai-vision"

_OURS = ("messages", "model", "n", "response_format", "stream", "temperature")
"""Keys of a request that say what is asked or how it is answered."""


def _utc() -> datetime:
    return datetime.now(UTC)


@final
class OpenAiVision:
    """Implements Backend. One copy is one chat completion, sent once: whoever owns the retries sends it again.

    base_url: as in "https://api.openai.com/v1" or "http://127.0.0.1:8000". model: its name; a dated one
        ("...-2025-04-14") does not change under a run.
    labels: two or more, all that can be answered. Anything else than one of them is a vote for nothing, so name
        one for the rest ("something else") where pictures may hold none of them.
    key_env: the environment variable that holds the key, "" for servers that ask for none.
    detail: of the picture, "auto", "low" or "high"; it decides about the price.
    temperature: 0 or more, or "default" for models that take none.
    extra: further keys of each request, such as seed or max_completion_tokens.
    pin_fingerprint: take the server's system_fingerprint for a part of the model version. The version is `model`
        alone otherwise: a fingerprint changes with the server's machines, and every change voids the certificate
        under way.
    encoding: "png", "jpeg" or "jpeg:80".
    price_usd_per_1000: what a thousand pictures cost you; there is no list price, since tokens are what is sold.
    verify: a file of certificates to trust for the server, "" for the usual ones.
    environ, now: the environment and the clock, for tests.

    Raises ConfigError for a setting that cannot work and MissingCredentialError where the key is not set, both
    before anything is sent.
    """

    batch_size = 1
    remote = True

    def __init__(
        self,
        *,
        base_url: str,
        model: str,
        labels: Sequence[str],
        key_env: str = "OPENAI_API_KEY",
        detail: Detail = "auto",
        temperature: float | Literal["default"] = 0.0,
        extra: Mapping[str, Any] | None = None,
        pin_fingerprint: bool = False,
        concurrency: int = 8,
        connect_timeout_s: float = 5.0,
        read_timeout_s: float = 60.0,
        encoding: str = "png",
        price_usd_per_1000: float | None = None,
        price_as_of: str = "",
        verify: str = "",
        environ: Mapping[str, str] | None = None,
        now: Callable[[], datetime] = _utc,
    ) -> None:
        environ = os.environ if environ is None else environ
        address = self.address = http_url(base_url, source=f"{NAME}: base_url")
        self._labels = _closed_list(labels)
        self._model = _named(model)
        self._detail = _detail(detail)
        self._temperature = _temperature(temperature)
        self._extra = _extra(extra or {})
        self._pin_fingerprint = pin_fingerprint
        self._limits = OpenAiWire.limits
        self.name = NAME
        self.concurrency = concurrency
        self.encoding = encoding_within(encoding, self._limits, source=f"{NAME}: encoding")
        price = price_of(NAME, price_usd_per_1000, price_as_of)
        self.price_usd, self.price_as_of = price.usd, price.as_of
        self.fingerprint: Mapping[str, str] = {
            "name": NAME,
            "base_url": address,
            "model": model,
            "request": hashlib.sha256(self._body(b"", "image/png")).hexdigest(),
        }
        self._url = chat_url(address)
        self._headers = _headers(key_env, environ)
        self._now = now
        self._api = HttpApi(
            NAME,
            concurrency=concurrency,
            connect_timeout_s=connect_timeout_s,
            read_timeout_s=read_timeout_s,
            verify=verify,
        )

    async def classify(self, copies: Sequence[EncodedImage]) -> Sequence[Reply | BackendError]:
        """The label of one copy, or an empty reply. Raises BackendError, for a picture that is refused too."""
        (copy,) = copies
        check_copy(copy, self._limits, backend=NAME)
        body = self._body(copy.data, f"image/{copy.format}")
        reply = await self._api.send("POST", self._url, headers=self._headers, content=body)
        if reply.status != 200:
            raise error_of(reply, backend=NAME, retry_after=retry_after_s(reply.headers, self._now()))
        return [reply_of(reply, self._labels, backend=NAME, with_fingerprint=self._pin_fingerprint)]

    async def aclose(self) -> None:
        """Close the connections."""
        await self._api.aclose()

    def _body(self, image: bytes, media_type: str) -> bytes:
        return request_body(
            image,
            media_type,
            self._labels,
            model=self._model,
            detail=self._detail,
            temperature=self._temperature,
            extra=self._extra,
        )


def _closed_list(labels: object) -> tuple[str, ...]:
    if not isinstance(labels, list | tuple) or not all(isinstance(label, str) for label in labels):
        raise ConfigError(f'{NAME}: labels: expected a list of texts, such as ["dog", "cat"]')
    stripped = tuple(label.strip() for label in labels)
    if len(stripped) < 2 or len({*stripped, ""}) != len(stripped) + 1:
        raise ConfigError(f"{NAME}: labels: expected two or more, each once and none empty")
    return stripped


def _named(model: object) -> str:
    if not isinstance(model, str) or not model.strip():
        raise ConfigError(f"{NAME}: model: expected the model's name")
    return model


def _detail(detail: Detail) -> Detail:
    if detail not in get_args(Detail):
        raise ConfigError(f"{NAME}: detail: {detail!r} is not known{nearest(str(detail), get_args(Detail))}")
    return detail


def _temperature(temperature: object) -> float | None:
    if temperature == "default":
        return None
    if isinstance(temperature, bool) or not isinstance(temperature, int | float) or not 0 <= temperature <= 2:
        raise ConfigError(f'{NAME}: temperature: expected a number from 0 to 2, or "default"')
    return float(temperature)


def _extra(extra: Mapping[str, Any]) -> Mapping[str, Any]:
    taken = sorted(set(extra) & set(_OURS)) if isinstance(extra, Mapping) else ["(no table)"]
    if taken:
        raise ConfigError(f"{NAME}: extra: {taken[0]} cannot be set here")
    try:
        json.dumps(extra, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{NAME}: extra: {error}") from None
    return dict(extra)


def _headers(key_env: str, environ: Mapping[str, str]) -> Mapping[str, str]:
    headers = {"content-type": "application/json"}
    if key_env:
        headers["authorization"] = f"Bearer {secret_of(environ, key_env, source=f'{NAME}: key_env')}"
    return headers
