"""A vendor on loopback: its wire, one answer for all, and a list of what arrived."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import cv2
import numpy as np

from smoothing_proxy.images.codec import Encoding, encode
from smoothing_proxy.types import Reply, ScoredLabel
from smoothing_proxy.wire.base import HttpReply, HttpRequest, RequestFault, Wire

RECORDED = Path(__file__).parent / "recorded"
SECRET = "test-key-0123456789"
NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
PANDA = Reply((ScoredLabel("mammal", 0.25), ScoredLabel("panda", 0.75, "ai_panda")), "2023-10-01")


def answering(
    wire: Wire, answer: Reply | RequestFault | HttpReply, seen: list[HttpRequest], secret: str = SECRET
) -> Callable[[HttpRequest], HttpReply]:
    """For `serving`: checks the key, reads the question and answers each picture alike."""

    def answered(request: HttpRequest) -> HttpReply:
        seen.append(request)
        try:
            assert wire.serves(request)
            wire.verify(request, secret, NOW)
            question = wire.read(request)
            if isinstance(answer, HttpReply):
                return answer
            if isinstance(answer, RequestFault):
                raise answer
            return wire.write(request, question, [answer] * len(question.images), "request-1")
        except RequestFault as fault:
            return wire.refuse(request, fault, "request-1")

    return answered


def picture(height: int = 60, width: int = 80) -> bytes:
    """A PNG of noise."""
    return encode(np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8), Encoding("png")).data


def jpeg(height: int = 60, width: int = 80) -> bytes:
    """A JPEG of one shade."""
    _, data = cv2.imencode(".jpg", np.full((height, width, 3), 99, np.uint8))
    return data.tobytes()
