"""A classifier whose answers are written down: the double for tests, here and in users' own suites."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeAlias, final

import numpy as np
import numpy.typing as npt

from smoothing_proxy.errors import AuthenticationError, BackendError, ConfigError
from smoothing_proxy.images.codec import EncodedImage, Encoding, decode
from smoothing_proxy.types import Label, Reply, ScoredLabel

__all__ = ["Script", "ScriptedAnswer", "ScriptedBackend"]

ScriptedAnswer: TypeAlias = Label | Reply | None
"""A label is a reply with confidence 1; None is an empty reply."""

Script: TypeAlias = ScriptedAnswer | Sequence[ScriptedAnswer] | Callable[[npt.NDArray[np.uint8]], ScriptedAnswer]


@final
class ScriptedBackend:
    """Answers from a script, with the protocol's real manners.

    answers: one answer for every copy; a sequence by copy number, which starts again at its end; or a function
        of the copy's pixels, uint8 [h, w, 3].
    failures: copy number -> the error that it gets instead. Copies are numbered from 0 as they are asked, so a
        copy that is sent again has a new number. A request of which every copy fails, or one for
        authentication, raises.
    remote: whether failures are to be treated as a vendor's, and sent again where that may help.
    latency_s: how long each request takes, by `sleep`.

    asked, requests, most_in_flight: what it was asked so far: copies, requests, and how many requests at once.
    """

    def __init__(
        self,
        answers: Script,
        *,
        name: str = "scripted",
        failures: Mapping[int, BackendError] | None = None,
        batch_size: int = 1,
        concurrency: int = 8,
        price_usd: float = 0.0,
        remote: bool = False,
        model_version: str = "",
        encoding: Encoding = Encoding(),  # noqa: B008 (frozen)
        latency_s: float = 0.0,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        if isinstance(answers, Sequence) and not answers:
            raise ConfigError("scripted: `answers` is empty")
        self.name = name
        self.batch_size = batch_size
        self.concurrency = concurrency
        self.price_usd = price_usd
        self.remote = remote
        self.model_version = model_version
        self.encoding = encoding
        self.fingerprint: Mapping[str, str] = {"name": name, "version": model_version}
        self.asked = 0
        self.requests = 0
        self.most_in_flight = 0
        self._in_flight = 0
        self._failures = failures or {}
        self._latency_s = latency_s
        self._sleep = sleep
        self._answer = _answering(answers)

    async def classify(self, copies: Sequence[EncodedImage]) -> Sequence[Reply | BackendError]:
        """The next answers of the script."""
        numbers = range(self.asked, self.asked + len(copies))
        self.asked += len(copies)
        self.requests += 1
        replies = [self._failures.get(i) or self._reply(i, copy) for i, copy in zip(numbers, copies, strict=True)]
        await self._wait()
        errors = [reply for reply in replies if isinstance(reply, BackendError)]
        fatal = [error for error in errors if isinstance(error, AuthenticationError)]
        if fatal or (errors and len(errors) == len(copies)):
            raise (fatal or errors)[0]
        return replies

    async def aclose(self) -> None:
        """Nothing to release."""

    async def _wait(self) -> None:
        self._in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self._in_flight)
        try:
            await self._sleep(self._latency_s)
        finally:
            self._in_flight -= 1

    def _reply(self, number: int, copy: EncodedImage) -> Reply:
        answer = self._answer(number, copy)
        if isinstance(answer, Reply):
            return answer
        labels = () if answer is None else (ScoredLabel(answer, 1.0),)
        return Reply(labels, self.model_version)


def _answering(answers: Script) -> Callable[[int, EncodedImage], ScriptedAnswer]:
    if callable(answers):
        return lambda _, copy: answers(decode(copy))
    sequence = [answers] if isinstance(answers, Label | Reply | None) else list(answers)
    return lambda number, _: sequence[number % len(sequence)]
