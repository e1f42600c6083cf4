"""Decoded pictures in memory, as everything that trains or evaluates takes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Pictures", "evenly"]


@dataclass(frozen=True)
class Pictures:
    """Decoded pictures. pixels: uint8 [3, h, w] each, sizes may differ. labels: index into classes, or None.

    names: unique and sorted; the split goes by them. classes: sorted, or in the order of the data set that names
    them; empty without labels.
    """

    names: tuple[str, ...]
    pixels: tuple[Tensor, ...]
    labels: Tensor | None
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    @property
    def smallest_side(self) -> int:
        """Of all the pictures, in pixels."""
        return min(min(picture.shape[1:]) for picture in self.pixels)

    @property
    def nbytes(self) -> int:
        """Of all the pictures, decoded."""
        return sum(picture.nbytes for picture in self.pixels)

    def take(self, indices: Sequence[int]) -> Pictures:
        """Those at `indices`, in that order."""
        labels = None if self.labels is None else self.labels[list(indices)]
        return Pictures(
            tuple(self.names[i] for i in indices), tuple(self.pixels[i] for i in indices), labels, self.classes
        )

    def evenly(self, count: int) -> Pictures:
        """At most `count`, evenly spread over the sorted names; 0 takes all."""
        return self.take(evenly(len(self), count))

    def to(self, device: torch.device) -> Pictures:
        """The same with pixels and labels on `device`, so that crops are cut there."""
        labels = None if self.labels is None else self.labels.to(device)
        return Pictures(self.names, tuple(picture.to(device) for picture in self.pixels), labels, self.classes)


def evenly(total: int, count: int) -> list[int]:
    """At most `count` of the indices 0..total-1, evenly spread; 0 takes all."""
    return list(range(total)) if count == 0 or count >= total else [i * total // count for i in range(count)]
