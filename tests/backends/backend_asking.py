"""Pictures to ask about, and a way to ask without writing a loop."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from smoothing_proxy.backends.base import Backend
from smoothing_proxy.errors import BackendError
from smoothing_proxy.images.codec import EncodedImage, Encoding, encode
from smoothing_proxy.types import Reply

UInt8 = npt.NDArray[np.uint8]


def noise_pictures(count: int, height: int, width: int) -> UInt8:
    """uint8 [count, height, width, 3], the same in each run."""
    return np.random.default_rng(count).integers(0, 256, (count, height, width, 3), np.uint8)


def copies(pictures: Sequence[UInt8] | UInt8) -> list[EncodedImage]:
    return [encode(picture, Encoding()) for picture in pictures]


def outcomes(backend: Backend, pictures: Sequence[UInt8] | UInt8) -> Sequence[Reply | BackendError]:
    """One request about all pictures."""
    return asyncio.run(_classify(backend, copies(pictures)))


def replies(backend: Backend, pictures: Sequence[UInt8] | UInt8) -> list[Reply]:
    """One request about all pictures, all of them answered."""
    answers = [answer for answer in outcomes(backend, pictures) if isinstance(answer, Reply)]
    assert len(answers) == len(pictures)
    return answers


def one_by_one(backend: Backend, pictures: UInt8) -> list[Reply]:
    """One request for each picture, all of them answered."""
    return [replies(backend, picture[np.newaxis])[0] for picture in pictures]


def table(answers: Sequence[Reply], names: Sequence[str]) -> npt.NDArray[np.float64]:
    """Confidences [n, names]; a label that a reply lacks is NaN."""
    rows = [{label.name: label.confidence for label in answer.labels} for answer in answers]
    return np.array([[row.get(name, np.nan) for name in names] for row in rows])


async def _classify(backend: Backend, asked: Sequence[EncodedImage]) -> Sequence[Reply | BackendError]:
    return await backend.classify(asked)
