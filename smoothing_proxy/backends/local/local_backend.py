"""A classifier in this process behind the same protocol as a vendor far away."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol, TypeAlias, final

import numpy as np
import numpy.typing as npt
from pydantic import Field

from smoothing_proxy.backends.local.loading import label_names
from smoothing_proxy.errors import (
    AuthenticationError,
    BackendError,
    BudgetExceededError,
    ConfigError,
    ImageError,
    RequestRejectedError,
)
from smoothing_proxy.images.codec import EncodedImage, Encoding, decode
from smoothing_proxy.settings_file import Settings
from smoothing_proxy.types import Reply, ScoredLabel

__all__ = ["Answer", "Classifier", "LocalBackend", "LocalOptions"]

UInt8: TypeAlias = npt.NDArray[np.uint8]
Answer: TypeAlias = tuple[ScoredLabel, ...] | BackendError

IN_FLIGHT = 2
"""One request in the worker, one waiting for it, so that the worker is never idle."""

VERSION_DIGITS = 16


class LocalOptions(Settings):
    """Options of every local classifier.

    labels: names of its outputs, in order: a list, or a text file with one per line; outputs of the same name are
        one label to a label map.
    batch_size: pictures in one request.
    version: what to call this version of it; left out, the first digits of its file's sha256.
    top: how many labels a reply carries, the best first. A label map that sums, or whose classes are rarely among
        the best, sees only these: raise it as far as the number of outputs.
    """

    labels: str | Path | tuple[str, ...] | None = Field(default=None, exclude=True)
    batch_size: int = Field(default=32, ge=1, exclude=True)
    top: int = Field(default=10, ge=1)
    version: str = ""

    def names(self) -> tuple[str, ...] | None:
        """The labels, read from their file where they are in one. Raises ConfigError when it cannot be read."""
        return None if self.labels is None else label_names(self.labels)

    def fingerprint(self) -> dict[str, str]:
        """The options that change an answer, for the run's manifest; fields that do not are marked `exclude`."""
        names = self.names()
        settings = self.model_dump(mode="json", exclude_defaults=True)
        labels = {} if names is None else {"labels": hashlib.sha256("\n".join(names).encode()).hexdigest()}
        return {"options": json.dumps(settings, sort_keys=True), **labels}


class Classifier(Protocol):
    """What a LocalBackend asks, from one thread at a time."""

    def classify(self, pixels: UInt8) -> Sequence[Answer]:
        """pixels: uint8 [n, h, w, 3], RGB. One answer for each picture, which depends on no other picture.

        Whatever it raises becomes the failure of all n, but for what stops a run: AuthenticationError,
        BudgetExceededError and ConfigError.
        """
        ...


@final
class LocalBackend:
    """Implements Backend: decodes the copies and asks a classifier about them in one worker thread.

    sha256: of what the classifier was loaded from, or "".
    """

    price_usd = 0.0
    remote = False
    concurrency = IN_FLIGHT
    encoding = Encoding(format="raw")

    def __init__(self, name: str, classifier: Classifier, options: LocalOptions, *, sha256: str = "") -> None:
        self.name = name
        self.batch_size = options.batch_size
        self.model_version = options.version or sha256[:VERSION_DIGITS]
        self.fingerprint: Mapping[str, str] = {"name": name, "sha256": sha256, **options.fingerprint()}
        self._classifier = classifier
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="smoothing-proxy-local")
        self._closed = False

    async def classify(self, copies: Sequence[EncodedImage]) -> Sequence[Reply | BackendError]:
        """A reply with the classifier's best labels, or its failure, for each copy.

        Raises what stops a run when the classifier does, and BackendError after `aclose`.
        """
        if self._closed:
            raise BackendError(f"{self.name} was closed", backend=self.name)
        return await asyncio.get_running_loop().run_in_executor(self._worker, self._replies, tuple(copies))

    async def aclose(self) -> None:
        """End the worker thread once the requests under way are answered. Does not wait for them."""
        self._closed = True
        self._worker.shutdown(wait=False)

    def _replies(self, copies: Sequence[EncodedImage]) -> list[Reply | BackendError]:
        replies: dict[int, Reply | BackendError] = {}
        by_shape: dict[tuple[int, ...], list[tuple[int, UInt8]]] = {}
        for number, copy in enumerate(copies):
            try:
                pixels = decode(copy)
            except ImageError as error:
                replies[number] = RequestRejectedError(f"{self.name}: {error}", backend=self.name)
            else:
                by_shape.setdefault(pixels.shape, []).append((number, pixels))
        for pictures in by_shape.values():
            answers = self._answers(np.stack([pixels for _, pixels in pictures]))
            for (number, _), answer in zip(pictures, answers, strict=True):
                replies[number] = self._reply(answer)
        return [replies[number] for number in range(len(copies))]

    def _answers(self, pixels: UInt8) -> Sequence[Answer]:
        try:
            return self._classifier.classify(pixels)
        except (AuthenticationError, BudgetExceededError, ConfigError):
            raise
        except BackendError as error:
            return [error] * len(pixels)
        except Exception as error:  # noqa: BLE001 (a user's classifier may raise anything)
            failure = BackendError(f"{type(error).__name__}: {error}")
            failure.__cause__ = error
            return [failure] * len(pixels)

    def _reply(self, answer: Answer) -> Reply | BackendError:
        if not isinstance(answer, BackendError):
            return Reply(answer, self.model_version)
        if not answer.backend:
            answer.backend = self.name
            answer.args = (f"{self.name}: {answer}",)
        return answer
