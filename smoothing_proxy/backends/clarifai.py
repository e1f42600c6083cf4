"""Clarifai's models over REST, with a personal access token."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TypeAlias, final

from smoothing_proxy.backends.before_sending import check_copy, encoding_within, secret_of
from smoothing_proxy.backends.http import HttpApi, http_url, retry_after_s
from smoothing_proxy.backends.prices import price_of
from smoothing_proxy.errors import BackendError, ConfigError, RequestRejectedError
from smoothing_proxy.images.codec import EncodedImage
from smoothing_proxy.types import Reply
from smoothing_proxy.wire.clarifai import (
    LIMITS,
    MOST_CONCEPTS,
    headers_for,
    outputs_url,
    replies_of,
    request_body,
)

__all__ = ["Clarifai"]

NAME = "clarifai"

ID = re.compile(r"[A-Za-z0-9._-]{1,128}")

WRAPPING = 1000
"""Bytes of a request beside its pictures and concepts, and of each picture beside its base64; more than needed."""


Answers: TypeAlias = Sequence[Reply | BackendError]


def _utc() -> datetime:
    return datetime.now(UTC)


@final
class Clarifai:
    """Implements Backend. One request carries up to `batch` copies and is sent once; each copy is one operation.
    Where their bytes are more than one request may hold, several are sent at once.

    user_id, app_id, model_id: of the model, as in its address. model_version: its id, which pins it, so that every
        certificate speaks of one version.
    pat_env: the environment variable that holds the personal access token.
    concepts: names of the only concepts to score, exactly as the model has them; () for any.
    max_concepts: how many a reply carries at most, 1..200, the best first; concepts given, all of them.
    base_url: another address than Clarifai's own.
    batch: copies in one request, 1..128. concurrency: requests in flight at once.
    encoding: "png", "jpeg" or "jpeg:80".
    price_usd_per_1000, price_as_of: yours, where it is not the list price.
    verify: a file of certificates to trust for the address, "" for the usual ones.
    environ, now: the environment and the clock, for tests.

    Raises ConfigError for a setting that cannot work and MissingCredentialError where the token is not set, both
    before anything is sent.
    """

    def __init__(
        self,
        *,
        user_id: str,
        app_id: str,
        model_id: str,
        model_version: str,
        pat_env: str = "CLARIFAI_PAT",
        concepts: Sequence[str] = (),
        max_concepts: int = 50,
        base_url: str = "https://api.clarifai.com",
        batch: int = 16,
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
        ids = {"user_id": user_id, "app_id": app_id, "model_id": model_id, "model_version": model_version}
        _check_ids(ids)
        if not 1 <= batch <= LIMITS.batch:
            raise ConfigError(f"{NAME}: batch is {batch}; expected 1 to {LIMITS.batch}")
        self.name = NAME
        self.batch_size = batch
        self.remote = True
        self.concurrency = concurrency
        self.encoding = encoding_within(encoding, LIMITS, source=f"{NAME}: encoding")
        price = price_of(NAME, price_usd_per_1000, price_as_of)
        self.price_usd, self.price_as_of = price.usd, price.as_of
        self._concepts, self._max_concepts = _scored(concepts, max_concepts)
        address = self.address = http_url(base_url, source=f"{NAME}: base_url")
        self.fingerprint: Mapping[str, str] = {
            "name": NAME,
            "base_url": address,
            **ids,
            "concepts": "\n".join(self._concepts),
            "max_concepts": str(self._max_concepts),
        }
        self._url = outputs_url(address, user=user_id, app=app_id, model=model_id, version=model_version)
        environ = os.environ if environ is None else environ
        self._headers = headers_for(secret_of(environ, pat_env, source=f"{NAME}: pat_env"))
        self._now = now
        self._api = HttpApi(
            NAME,
            concurrency=concurrency,
            connect_timeout_s=connect_timeout_s,
            read_timeout_s=read_timeout_s,
            verify=verify,
        )

    async def classify(self, copies: Sequence[EncodedImage]) -> Sequence[Reply | BackendError]:
        """The concepts of each copy. Raises BackendError when there was one request and it failed as a whole.

        Copies that Clarifai would not take fail without being sent. Of several requests, what one was answered
        stands beside another's error, since it was paid for.
        """
        outcomes: dict[int, Reply | BackendError] = dict(_refused(copies))
        left = [number for number in range(len(copies)) if number not in outcomes]
        if not left:
            raise _refused(copies)[0]
        parts = _parts(copies, left)
        if len(parts) == 1:
            outcomes |= zip(left, await self._ask(copies, left), strict=True)
        else:
            answered = await asyncio.gather(*(self._ask(copies, part) for part in parts), return_exceptions=True)
            for part, answers in zip(parts, answered, strict=True):
                outcomes |= zip(part, _in_each_place(answers, len(part)), strict=True)
        return [outcomes[number] for number in range(len(copies))]

    async def _ask(self, copies: Sequence[EncodedImage], numbers: Sequence[int]) -> Answers:
        """One request about these copies."""
        images = [copies[number].data for number in numbers]
        body = request_body(images, max_concepts=self._max_concepts, concepts=self._concepts)
        reply = await self._api.send("POST", self._url, headers=self._headers, content=body)
        wait = retry_after_s(reply.headers, self._now())
        return replies_of(reply, len(images), backend=NAME, retry_after=wait)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._api.aclose()


def _check_ids(ids: Mapping[str, str]) -> None:
    for key, value in ids.items():
        if not ID.fullmatch(value):
            raise ConfigError(f"{NAME}: {key} is {value!r}; expected the id as it stands in the model's address")


def _scored(concepts: Sequence[str], max_concepts: int) -> tuple[tuple[str, ...], int]:
    """The concepts to select and how many to ask for."""
    if isinstance(concepts, str) or not all(isinstance(name, str) and name for name in concepts):
        raise ConfigError(f"{NAME}: concepts: expected a list of names")
    if len(concepts) > MOST_CONCEPTS or len(set(concepts)) < len(concepts):
        raise ConfigError(f"{NAME}: concepts: expected at most {MOST_CONCEPTS} names, each of them once")
    if not 1 <= max_concepts <= MOST_CONCEPTS:
        raise ConfigError(f"{NAME}: max_concepts is {max_concepts}; expected 1 to {MOST_CONCEPTS}")
    return tuple(concepts), len(concepts) or max_concepts


def _refused(copies: Sequence[EncodedImage]) -> dict[int, RequestRejectedError]:
    """The copies that are not to be sent, by number."""
    refused: dict[int, RequestRejectedError] = {}
    for number, copy in enumerate(copies):
        try:
            check_copy(copy, LIMITS, backend=NAME)
        except RequestRejectedError as error:
            refused[number] = error
    return refused


def _parts(copies: Sequence[EncodedImage], numbers: Sequence[int]) -> list[list[int]]:
    """The copies that share a request, in order, as many as one holds; one alone always goes."""
    parts: list[list[int]] = []
    room = -1
    for number in numbers:
        size = 4 * -(-len(copies[number].data) // 3) + WRAPPING
        if size > room:
            parts.append([])
            room = LIMITS.request_bytes - WRAPPING * MOST_CONCEPTS
        parts[-1].append(number)
        room -= size
    return parts


def _in_each_place(answers: Answers | BaseException, copies: int) -> Answers:
    """A request's answers, or its failure for each of its copies."""
    if isinstance(answers, BackendError):
        return [answers] * copies
    if isinstance(answers, BaseException):
        raise answers
    return answers
