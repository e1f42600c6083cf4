"""The smoothed classifier g for ordinary programs, and for notebooks where an event loop already runs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

from anyio.from_thread import start_blocking_portal

from smoothing_proxy.smoothing.client import AsyncSmoothedClassifier
from smoothing_proxy.smoothing.picture import ImageLike
from smoothing_proxy.smoothing.settings import PerLabel
from smoothing_proxy.types import Certificate, Label, LabelsCertificate, Prediction, TopKCertificate

__all__ = ["SmoothedClassifier"]

Answer = TypeVar("Answer")


class SmoothedClassifier:
    """AsyncSmoothedClassifier behind blocking calls: the same arguments, the same answers, the same errors.

    Its event loop lives in a thread of its own, so it works where a loop already runs. Safe to share between
    threads. Use it as a context manager: leaving it closes the backend and ends the thread.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._open = ExitStack()
        self._inner = AsyncSmoothedClassifier(*args, **kwargs)
        self._portal = self._open.enter_context(start_blocking_portal())
        self._open.callback(self._portal.call, self._inner.aclose)

    def certify(self, image: ImageLike) -> Certificate:
        """See AsyncSmoothedClassifier.certify."""
        return self._wait(self._inner.certify, image)

    def predict(self, image: ImageLike) -> Prediction:
        """See AsyncSmoothedClassifier.predict."""
        return self._wait(self._inner.predict, image)

    def certify_labels(self, image: ImageLike, asked: PerLabel = PerLabel()) -> LabelsCertificate:  # noqa: B008 (frozen)
        """See AsyncSmoothedClassifier.certify_labels."""
        return self._wait(partial(self._inner.certify_labels, asked=asked), image)

    def certify_top_k(self, image: ImageLike, k: int, label: Label | None = None) -> TopKCertificate:
        """See AsyncSmoothedClassifier.certify_top_k."""
        return self._wait(partial(self._inner.certify_top_k, k=k, label=label), image)

    def classify(self, image: ImageLike) -> Label | None:
        """See AsyncSmoothedClassifier.classify."""
        return self._wait(self._inner.classify, image)

    def close(self) -> None:
        """Close the backend and end the thread. Calling it twice is fine."""
        self._open.close()

    def _wait(self, ask: Callable[[ImageLike], Awaitable[Answer]], image: ImageLike) -> Answer:
        future = self._portal.start_task_soon(ask, image)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # Ctrl-C while waiting: spend nothing more
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
