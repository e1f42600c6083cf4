from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest

from smoothing_proxy.backends.base import Backend
from smoothing_proxy.backends.scripted import Script, ScriptedBackend
from smoothing_proxy.errors import AuthenticationError, BackendError, BackendTimeoutError, ConfigError
from smoothing_proxy.types import Reply, ScoredLabel
from tests.backends.backend_asking import copies, noise_pictures, outcomes, replies

PICTURES = noise_pictures(4, 3, 5)
UNSURE = Reply((ScoredLabel("cat", 0.4), ScoredLabel("dog", 0.6)))


def names(answers: Sequence[Reply]) -> list[str | None]:
    return [answer.labels[0].name if answer.labels else None for answer in answers]


@pytest.mark.parametrize(
    ("script", "answered"),
    [
        ("cat", ["cat"] * 4),
        (["cat", None, "dog"], ["cat", None, "dog", "cat"]),
        (UNSURE, ["cat"] * 4),
        ([UNSURE, "dog"], ["cat", "dog", "cat", "dog"]),
        (None, [None] * 4),
        (lambda pixels: str(int(pixels.sum())), [str(int(picture.sum())) for picture in PICTURES.astype(int)]),
    ],
)
def test_a_script_answers(script: Script, answered: list[str | None]) -> None:
    backend = ScriptedBackend(script, batch_size=4)
    assert isinstance(backend, Backend)
    assert names(replies(backend, PICTURES)) == answered
    assert (backend.asked, backend.requests) == (4, 1)


def test_a_copy_fails_and_the_others_are_answered() -> None:
    broken = BackendTimeoutError("no answer")
    backend = ScriptedBackend(["a", "b", "c"], failures={1: broken}, batch_size=4)
    first, second, third, _ = outcomes(backend, PICTURES)
    assert second is broken
    assert [answer.labels[0].name for answer in (first, third) if isinstance(answer, Reply)] == ["a", "c"]


@pytest.mark.parametrize(
    ("failures", "error"),
    [
        ({0: BackendTimeoutError("no answer"), 1: BackendError("broken")}, BackendTimeoutError),
        ({1: AuthenticationError("bad key")}, AuthenticationError),
    ],
)
def test_a_request_fails_as_a_whole(failures: dict[int, BackendError], error: type[BackendError]) -> None:
    backend = ScriptedBackend("cat", failures=failures, batch_size=2)
    with pytest.raises(error):
        outcomes(backend, PICTURES[:2])
    assert names(replies(backend, PICTURES[:2])) == ["cat", "cat"]


def test_latency_is_slept_by_the_given_clock_and_requests_in_flight_are_counted() -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        await asyncio.sleep(0)

    async def ask_all(backend: Backend) -> None:
        await asyncio.gather(*(backend.classify([copy]) for copy in copies(PICTURES)))
        await backend.aclose()

    backend = ScriptedBackend("cat", latency_s=3.0, sleep=sleep)
    asyncio.run(ask_all(backend))
    assert slept == [3.0] * 4
    assert backend.most_in_flight == 4
    assert backend.requests == 4


def test_a_script_sees_the_decoded_pixels() -> None:
    seen: list[npt.NDArray[np.uint8]] = []

    def script(pixels: npt.NDArray[np.uint8]) -> str:
        seen.append(pixels)
        return "seen"

    replies(ScriptedBackend(script), PICTURES[:1])
    np.testing.assert_array_equal(seen[0], PICTURES[0])


def test_an_empty_script_is_refused() -> None:
    with pytest.raises(ConfigError, match="empty"):
        ScriptedBackend([])
