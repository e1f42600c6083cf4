"""What an attack sees: a classifier with gradients, or one that only answers.

Whatever is asked is asked about whole bytes, as an upload would be: an attack that only works between two levels
of a pixel does not work here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from smoothing_proxy.redteam.grid import to_pictures
from smoothing_proxy.redteam.networks import Network
from smoothing_proxy.types import Label

__all__ = ["OTHER", "GradientTarget", "Heard", "Int64", "Target", "UInt8", "heard_scores"]

UInt8 = npt.NDArray[np.uint8]
Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]

OTHER = -1
"""The answer that is none of the target's classes: another label, or no label at all."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What a target said about n pictures, each with a label in question.

    answers: int64 [n], index into the target's classes, or OTHER. own: float64 [n], logarithm of the score of the
    label in question. other: of the best other label. Both are NaN where the target gives no scores.
    """

    answers: Int64
    own: Float64
    other: Float64


@runtime_checkable
class Target(Protocol):
    """A classifier under attack."""

    @property
    def name(self) -> str:
        """As the user would write it."""
        ...

    @property
    def classes(self) -> tuple[Label, ...]:
        """What its answers are indices of."""
        ...

    @property
    def gives(self) -> frozenset[str]:
        """Which of "gradients", "scores" and "labels" an attack can have of it."""
        ...

    @property
    def closed(self) -> bool:
        """Whether `classes` are all that it can answer."""
        ...

    @property
    def noisy(self) -> bool:
        """Whether it may answer the same question otherwise the next time."""
        ...

    def ask(self, pixels: UInt8, labels: Int64, *, subjects: Int64 | None = None) -> Heard:
        """uint8 [n, h, w, 3] and int64 [n]: one query for each picture.

        subjects: int64 [n], numbers of the attacked pictures that these are versions of, for the books; None: 0.
        """
        ...


class GradientTarget:
    """A network of this machine. batch_size: pictures in one pass."""

    closed = True
    gives = frozenset({"gradients", "scores", "labels"})

    def __init__(self, network: Network, *, batch_size: int = 64) -> None:
        self.network = network
        self.batch_size = batch_size

    @property
    def name(self) -> str:
        """Of the network."""
        return self.network.name

    @property
    def classes(self) -> tuple[Label, ...]:
        """Of the network."""
        return self.network.classes

    @property
    def noisy(self) -> bool:
        """Of the network."""
        return self.network.noisy

    def ask(self, pixels: UInt8, labels: Int64, *, subjects: Int64 | None = None) -> Heard:
        """See Target."""
        import torch

        logits = self.network.logits(torch.from_numpy(to_pictures(pixels)), self.batch_size)
        return heard_scores(torch.log_softmax(logits.double(), dim=1).numpy(), labels)


def heard_scores(scores: Float64, labels: Int64) -> Heard:
    """scores: float64 [n, k], of every class. labels: int64 [n], each in 0..k-1."""
    rows = np.arange(len(scores))
    others = scores.copy()
    others[rows, labels] = -np.inf
    return Heard(scores.argmax(axis=1), scores[rows, labels], others.max(axis=1))


def index_of(classes: Sequence[Label], label: Label | None) -> int:
    """The label's index, or OTHER."""
    return classes.index(label) if label in classes else OTHER
