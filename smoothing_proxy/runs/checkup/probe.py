"""Trying a base classifier out: one copy made as the sampler makes them, and one query about a clean picture."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any, TypeVar

import anyio

from smoothing_proxy.errors import BackendError, SmoothingProxyError
from smoothing_proxy.images.codec import EncodedImage
from smoothing_proxy.runs.checkup.checks import answer_finding, copy_finding
from smoothing_proxy.runs.checkup.finding import Finding
from smoothing_proxy.runs.checkup.meanings import failed
from smoothing_proxy.runs.checkup.vendors import credential_source, limits_of
from smoothing_proxy.smoothing.base_classifier import BaseClassifier
from smoothing_proxy.smoothing.observe import CLEAN, Outcome
from smoothing_proxy.smoothing.picture import Picture

__all__ = ["answered", "attempt", "copied"]

Made = TypeVar("Made")
Options = Mapping[str, Any]


def attempt(check: str, name: str, make: Callable[[], Made]) -> Generator[Finding, None, Made | None]:
    """What `make` makes, or None after the finding that says why not. name: of what is made."""
    try:
        return make()
    except SmoothingProxyError as error:
        yield failed(check, error)
    except (TypeError, ValueError, AttributeError) as error:  # an option of the wrong type goes as far as it can
        text = f"{name}: an option is of the wrong type ({type(error).__name__}: {error})"
        yield Finding(check, "fail", text, f"compare [{check}] with what `smoothing-proxy init` writes")
    return None


def copied(classifier: BaseClassifier, picture: Picture, name: str, options: Options) -> Iterator[Finding]:
    """A noisy, denoised, encoded copy against the limits of the backend `name`."""
    copies = yield from attempt("copy", classifier.denoiser.name, lambda: classifier.copies(picture, [0]))
    if copies is not None:
        yield copy_finding(copies[0], classifier.encoding, limits_of(name, options), classifier.backend)


def answered(
    classifier: BaseClassifier, picture: Picture, name: str, options: Options, *, yours: bool
) -> Generator[Finding, None, float | None]:
    """One clean picture, asked about once: nobody retries, so that the vendor's first word is what is shown.

    Closes the backend. Returns the seconds that the answer took, its connection included; None without an answer.
    """
    copies = yield from attempt("answer", name, lambda: classifier.copies(picture, [CLEAN]))
    if copies is None:
        return None
    asked = yield from attempt("answer", name, lambda: anyio.run(_ask, classifier, copies[0]))
    if asked is None:
        return None
    outcome, latency_s = asked
    if outcome.error is not None:
        yield failed("answer", outcome.error, where=credential_source(name, options))
        return None
    yield answer_finding(outcome, classifier.labels, latency_s, yours=yours)
    return latency_s


async def _ask(classifier: BaseClassifier, copy: EncodedImage) -> tuple[Outcome, float]:
    """How the query ended, and after how many seconds. Raises what is no failure of the backend's."""
    started = time.perf_counter()
    try:
        (answer,) = await classifier.ask([copy])
    except BackendError as error:
        answer = error
    finally:
        latency_s = time.perf_counter() - started
        await classifier.backend.aclose()
    return classifier.outcome(CLEAN, answer), latency_s
