"""The pictures of a study: read once, of one size, each with the name of its class."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
import numpy.typing as npt

from smoothing_proxy.backends.labels import LabelMap
from smoothing_proxy.errors import ConfigError, nearest
from smoothing_proxy.images.albums import Album, open_album
from smoothing_proxy.images.codec import quantise
from smoothing_proxy.images.geometry import WorkingSize, resize_map
from smoothing_proxy.images.pixels import Pixels
from smoothing_proxy.redteam.grid import Pictures, to_pictures
from smoothing_proxy.redteam.study.config import DataEntry, evenly
from smoothing_proxy.runs.reference import read_reference
from smoothing_proxy.types import Label

__all__ = ["Gallery", "read_gallery"]

Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Gallery:
    """pictures: float32 [n, 3, h, w] on [0, 1], on the 8-bit grid. labels: theirs, by name. names: sorted."""

    names: tuple[str, ...]
    pictures: Pictures
    labels: tuple[Label, ...]

    def __len__(self) -> int:
        return len(self.names)

    def digest(self) -> str:
        """Of pixels and labels, in hex."""
        found = hashlib.sha256(repr((self.pictures.shape, self.labels)).encode())
        found.update(np.ascontiguousarray(self.pictures).data)
        return found.hexdigest()

    def evenly(self, count: int) -> list[int]:
        """At most `count` indices, evenly spread; 0 takes all."""
        return evenly(len(self), count)

    def take(self, chosen: list[int]) -> Gallery:
        """Those at `chosen`."""
        return Gallery(
            tuple(self.names[i] for i in chosen), self.pictures[chosen], tuple(self.labels[i] for i in chosen)
        )

    def indices(self, classes: tuple[Label, ...], who: str) -> Labels:
        """Each label as an index into `classes`, int64 [n]. Raises ConfigError for one that is no class."""
        number = {name: i for i, name in enumerate(classes)}
        strange = next((label for label in self.labels if label not in number), None)
        if strange is not None:
            raise ConfigError(
                f"classifier {who!r} has {len(classes)} classes, and none is {strange!r}, a label of the pictures"
                f"{nearest(strange, classes)}"
            )
        return np.array([number[label] for label in self.labels], np.int64)


def read_gallery(data: DataEntry, count: int) -> Gallery:
    """At most `count` of the pictures, evenly spread; 0 takes all.

    Raises ConfigError where there are none, without labels or of several sizes; ImageError for one that cannot be
    decoded.
    """
    album = open_album(data.source).evenly(count)
    labels = _labels(album, data)
    sized = [_at(data.working_size, picture) for picture in album.read()]
    sizes = sorted({picture.shape[:2] for picture in sized})
    if len(sizes) > 1:
        raise ConfigError(
            f"{data.source}: pictures of {len(sizes)} sizes, such as {sizes[0]} and {sizes[-1]} px; set "
            'data.working_size, such as "shorter=256,crop=224"'
        )
    return Gallery(album.names, to_pictures(np.stack(sized)), labels)


def _labels(album: Album, data: DataEntry) -> tuple[Label, ...]:
    if data.labels is not None:
        found = read_reference(data.labels, album.names, LabelMap(), column=data.label_column)
        return tuple(found[name] for name in album.names)
    if not open_album(data.source).classes:
        raise ConfigError(
            f"{data.source}: pictures without labels; expected a sub-folder for each class, or data.labels, a CSV"
        )
    return tuple(PurePosixPath(name).parent.name for name in album.names)


def _at(working_size: str, picture: Pixels) -> Pixels:
    resize = resize_map(*picture.shape[:2], WorkingSize.parse(working_size))
    return picture if resize.is_identity else quantise(resize.apply(picture)[None].astype(np.float32))[0]
