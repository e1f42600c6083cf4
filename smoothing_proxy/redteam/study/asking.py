"""A row of a study as one that can only be asked: what Square, HopSkipJump and the others see of it."""

from __future__ import annotations

from collections import Counter

import numpy as np

from smoothing_proxy.redteam.grid import to_pictures
from smoothing_proxy.redteam.study.pipelines import Counts, Pipeline
from smoothing_proxy.redteam.targets import OTHER, Heard, Int64, UInt8, heard_scores
from smoothing_proxy.types import Label

__all__ = ["AskedRow"]

SMALLEST = 1e-12
"""A share below it has this one's logarithm."""


class AskedRow:
    """A Target. Behind one query of a smoothed row are `draws` fresh noisy copies, whose votes are its scores."""

    closed = True
    gives = frozenset({"scores", "labels"})

    def __init__(self, pipeline: Pipeline, draws: int) -> None:
        self._pipeline, self._draws = pipeline, draws
        self._asked: Counter[int] = Counter()

    @property
    def name(self) -> str:
        """Of denoiser and network."""
        return f"{self._pipeline.denoiser.name} before {self._pipeline.network.name}"

    @property
    def classes(self) -> tuple[Label, ...]:
        """Of the network."""
        return self._pipeline.network.classes

    @property
    def noisy(self) -> bool:
        """Whether noise is behind its answers."""
        return self._pipeline.defence.smoothing is not None

    def ask(self, pixels: UInt8, labels: Int64, *, subjects: Int64 | None = None) -> Heard:
        """See Target. subjects: the pictures' numbers in the study."""
        pictures = to_pictures(pixels)
        if not self.noisy:
            return heard_scores(self._pipeline.scores(pictures), labels)
        numbers = [0] * len(pictures) if subjects is None else subjects.tolist()
        votes = np.stack([self._votes(*pair) for pair in zip(pictures, numbers, strict=True)])
        heard = heard_scores(np.log(np.maximum(votes / self._draws, SMALLEST)), labels)
        return Heard(np.where(votes.any(axis=1), heard.answers, OTHER), heard.own, heard.other)

    def _votes(self, picture: np.ndarray[tuple[int, ...], np.dtype[np.float32]], number: int) -> Counts:
        first = self._asked[number]
        self._asked[number] += self._draws
        return self._pipeline.further_votes(picture, number, self._draws, first)
