from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from smoothing_proxy.backends.base import Backend
from smoothing_proxy.backends.local.local_backend import Answer, LocalBackend, LocalOptions
from smoothing_proxy.errors import (
    AuthenticationError,
    BackendError,
    BudgetExceededError,
    ConfigError,
    MalformedReplyError,
    RequestRejectedError,
)
from smoothing_proxy.images.codec import EncodedImage, Encoding, encode
from smoothing_proxy.types import Reply, ScoredLabel
from tests.backends.backend_asking import copies, noise_pictures, outcomes, replies

UInt8 = npt.NDArray[np.uint8]


class Darkest:
    """Answers the sum of a picture, and remembers in which threads it was asked; fails on pictures of 13x13."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.threads: set[int] = set()
        self.busy = threading.Lock()

    def classify(self, pixels: UInt8) -> Sequence[Answer]:
        assert self.busy.acquire(blocking=False)
        self.threads.add(threading.get_ident())
        try:
            if self.error is not None and pixels.shape[1:3] == (13, 13):
                raise self.error
            return [(ScoredLabel(str(picture.sum(dtype=int)), 1.0),) for picture in pixels]
        finally:
            self.busy.release()


def local(classifier: Darkest, options: LocalOptions | None = None, sha256: str = "") -> LocalBackend:
    return LocalBackend("local:darkest", classifier, options or LocalOptions(), sha256=sha256)


def test_a_local_classifier_is_a_backend() -> None:
    backend = local(Darkest(), LocalOptions(batch_size=5))
    assert isinstance(backend, Backend)
    assert (backend.name, backend.batch_size, backend.concurrency) == ("local:darkest", 5, 2)
    assert (backend.price_usd, backend.encoding) == (0.0, Encoding("raw"))


def test_copies_of_any_size_and_encoding_are_answered_in_order() -> None:
    pictures = [noise_pictures(1, side, 9)[0] for side in (5, 7, 5, 6, 7)]
    raw, png = Encoding("raw"), Encoding("png")
    encoded = [encode(picture, kind) for picture, kind in zip(pictures, [raw, png, png, raw, raw], strict=True)]
    answers = asyncio.run(local(Darkest()).classify(encoded))
    expected = [str(picture.sum(dtype=int)) for picture in pictures]
    assert [answer.labels[0].name for answer in answers if isinstance(answer, Reply)] == expected


def test_a_copy_that_is_no_picture_fails_alone() -> None:
    good = copies(noise_pictures(2, 4, 4))
    bad = [EncodedImage(b"hello", "png", 4, 4), EncodedImage(b"too short", "raw", 4, 4)]
    first, second, third, fourth = asyncio.run(local(Darkest()).classify([good[0], *bad, good[1]]))
    assert isinstance(first, Reply)
    assert isinstance(fourth, Reply)
    for failure in (second, third):
        assert isinstance(failure, RequestRejectedError)
        assert failure.backend == "local:darkest"


@pytest.mark.parametrize(
    ("raised", "kind", "message"),
    [
        (ZeroDivisionError("no luck"), BackendError, "local:darkest: ZeroDivisionError: no luck"),
        (MalformedReplyError("three answers"), MalformedReplyError, "local:darkest: three answers"),
    ],
)
def test_what_a_classifier_raises_fails_the_pictures_it_was_asked_about(
    raised: Exception, kind: type[BackendError], message: str
) -> None:
    pictures = [np.zeros((side, side, 3), np.uint8) for side in (13, 4, 13)]
    failed, answered, failed_too = outcomes(local(Darkest(raised)), pictures)
    assert isinstance(answered, Reply)
    for failure in (failed, failed_too):
        assert type(failure) is kind
        assert str(failure) == message
        assert failure.backend == "local:darkest"
        assert not failure.retryable
    if kind is BackendError:
        assert isinstance(failed, BackendError)
        assert failed.__cause__ is raised


@pytest.mark.parametrize(
    "fatal",
    [ConfigError("no"), AuthenticationError("bad key"), BudgetExceededError("all spent", spent=1.0, limit=1.0)],
)
def test_what_stops_a_run_is_raised(fatal: Exception) -> None:
    with pytest.raises(type(fatal)):
        outcomes(local(Darkest(fatal)), np.zeros((1, 13, 13, 3), np.uint8))


def test_requests_under_way_together_are_asked_one_after_another_in_one_thread() -> None:
    classifier = Darkest()
    backend = local(classifier)

    async def ask_together() -> list[Sequence[Reply | BackendError]]:
        asked = [backend.classify(copies(noise_pictures(3, 40, 40))) for _ in range(8)]
        return list(await asyncio.gather(*asked))

    answers = asyncio.run(ask_together())
    assert all(isinstance(answer, Reply) for request in answers for answer in request)
    assert len(classifier.threads) == 1
    assert threading.get_ident() not in classifier.threads


def test_a_closed_backend_refuses_and_its_thread_ends() -> None:
    backend = local(Darkest())
    replies(backend, noise_pictures(1, 4, 4))
    asyncio.run(backend.aclose())
    asyncio.run(backend.aclose())
    with pytest.raises(BackendError, match="local:darkest was closed"):
        outcomes(backend, noise_pictures(1, 4, 4))


@pytest.mark.parametrize(
    ("options", "sha256", "version"),
    [
        (LocalOptions(), "ab" * 32, "abababababababab"),
        (LocalOptions(version="v7"), "ab" * 32, "v7"),
        (LocalOptions(), "", ""),
    ],
)
def test_a_reply_states_the_version(options: LocalOptions, sha256: str, version: str) -> None:
    (answer,) = replies(local(Darkest(), options, sha256), noise_pictures(1, 4, 4))
    assert answer.model_version == version


def test_the_fingerprint_changes_with_what_changes_an_answer(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("a\nb\n")

    def fingerprint(options: LocalOptions, sha256: str = "ab") -> tuple[tuple[str, str], ...]:
        return tuple(sorted(local(Darkest(), options, sha256).fingerprint.items()))

    listed = fingerprint(LocalOptions(labels=("a", "b")))
    assert fingerprint(LocalOptions(labels=tmp_path / "labels.txt", batch_size=7)) == listed
    others = [LocalOptions(), LocalOptions(labels=("b", "a")), LocalOptions(top=3), LocalOptions(version="2")]
    assert len({listed, fingerprint(LocalOptions(), "cd"), *map(fingerprint, others)}) == 6


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"a\n\nb\n", "line 2 is blank"),
        (b"\xff\xfe\x00", "labels.txt"),
        (None, r"no such file; did you mean 'labels'"),
    ],
)
def test_a_label_file_that_cannot_be_read_is_refused(tmp_path: Path, content: bytes | None, fault: str) -> None:
    (tmp_path / "labels").mkdir()
    if content is not None:
        (tmp_path / "labels.txt").write_bytes(content)
    with pytest.raises(ConfigError, match=fault):
        LocalOptions(labels=tmp_path / "labels.txt").names()
