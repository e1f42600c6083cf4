"""Copies are made to fit what the vendor takes; how, is a part of the question that a run asks."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest
from PIL import Image

from smoothing_proxy.backends.before_sending import encoding_within
from smoothing_proxy.denoisers.identity import Identity
from smoothing_proxy.errors import BackendError, RunMismatchError
from smoothing_proxy.images.codec import EncodedImage, Encoding
from smoothing_proxy.ledger.store import Ledger
from smoothing_proxy.runs.manifest import check_same_question, describe_question
from smoothing_proxy.runs.runner import FolderRun
from smoothing_proxy.smoothing.base_classifier import BaseClassifier
from smoothing_proxy.smoothing.halt import Halt
from smoothing_proxy.smoothing.settings import Smoothing
from smoothing_proxy.types import Reply, ScoredLabel
from smoothing_proxy.wire.base import Limits
from tests.runs.silent import Silent

LIMITS = Limits(image_bytes=6_000, request_bytes=9_000, min_side_px=20, max_side_px=80)
SMOOTHING = Smoothing(sigma=0.25, n0=5, n=15, alpha=0.01)


class Strict:
    """Answers, and counts what it was sent beyond its limits."""

    name, batch_size, concurrency, price_usd, remote = "strict", 1, 4, 0.0, False
    fingerprint: Mapping[str, str] = {"name": "strict"}

    def __init__(self, encoding: Encoding) -> None:
        self.encoding = encoding
        self.asked = self.wrong = 0

    async def classify(self, copies: Sequence[EncodedImage]) -> Sequence[Reply | BackendError]:
        (one,) = copies
        sides = (one.height, one.width)
        self.asked += 1
        self.wrong += not (len(one.data) <= LIMITS.image_bytes and min(sides) >= 20 and max(sides) <= 80)
        return [Reply((ScoredLabel("cat", 1.0),))]

    async def aclose(self) -> None:
        """Nothing to close."""


def strict(encoding: str = "png") -> Strict:
    return Strict(encoding_within(encoding, LIMITS, source="test"))


def test_pictures_of_any_size_are_asked_about_or_said_before_a_query(tmp_path: Path) -> None:
    sizes = {"fits.png": (20, 20), "small.png": (4, 9), "large.png": (300, 200), "strip.png": (2, 300)}
    for name, size in sizes.items():
        Image.fromarray(np.full((*size, 3), 128, np.uint8)).save(tmp_path / name)
    backend = strict()
    with Ledger(tmp_path / "ledger.db", durable=False) as ledger:
        names = list(sizes)
        classifier = BaseClassifier(backend, Identity(), sigma=SMOOTHING.sigma)
        run = FolderRun(ledger, classifier, SMOOTHING, tmp_path, names, dict.fromkeys(names, "cat"))
        run.begin("here")
        anyio.run(run.run, Silent(), Halt())
        left_out = {record.name: record.error or "" for record in ledger.pictures() if record.error}
        assert len(ledger.verdicts()) == 3
        assert ledger.totals.failures() == {}
    assert backend.wrong == 0
    assert backend.asked == 3 * 20
    assert "no encoding makes a copy of" in left_out.pop("strip.png")
    assert not left_out


def question(backend: Strict, encoding: Encoding | None = None) -> dict[str, Any]:
    classifier = BaseClassifier(backend, Identity(), sigma=0.25, encoding=encoding)
    return describe_question(SMOOTHING, classifier, reference="given labels")


def test_how_copies_are_made_to_fit_is_recorded_and_a_run_of_before_goes_on() -> None:
    now = question(strict())
    assert now["encoding"] == {
        "format": "png", "quality": 95, "min_side_px": 20, "max_side_px": 80, "max_bytes": 6_000
    }  # fmt: skip
    before = copy.deepcopy(now)
    for key in ("max_side_px", "max_bytes"):
        del before["encoding"][key]
    check_same_question(before, now, where="out")
    for changed in ({"max_bytes": 5_000}, {"format": "jpeg"}):
        with pytest.raises(RunMismatchError, match=f"encoding.{next(iter(changed))}"):
            check_same_question({**now, "encoding": {**now["encoding"], **changed}}, now, where="out")


def test_nobody_can_widen_what_the_classifier_takes() -> None:
    wide = Encoding("jpeg", 80, min_side_px=1, max_side_px=10_000, max_bytes=10**9)
    found = question(strict(), wide)["encoding"]
    assert (found["format"], found["quality"]) == ("jpeg", 80)
    assert (found["min_side_px"], found["max_side_px"], found["max_bytes"]) == (20, 80, 6_000)
