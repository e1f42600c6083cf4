"""Pictures for training: read once, kept decoded in memory, split by a fixed rule."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from torch import Tensor

from denoiser_training.config import DataSettings
from smoothing_proxy.errors import ConfigError
from smoothing_proxy.images.geometry import WorkingSize, resize_map
from smoothing_proxy.images.pixels import PICTURE_SUFFIXES, decode

__all__ = ["Pictures", "digits", "is_digits_test", "load_pictures", "split"]


@dataclass(frozen=True)
class Pictures:
    """Decoded pictures. pixels: uint8 [3, h, w] each, sizes may differ. labels: index into classes, or None.

    names: unique and sorted; the split goes by them. classes: sorted; empty without labels.
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

    def take(self, indices: Sequence[int]) -> Pictures:
        """Those at `indices`, in that order."""
        labels = None if self.labels is None else self.labels[list(indices)]
        return Pictures(
            tuple(self.names[i] for i in indices), tuple(self.pixels[i] for i in indices), labels, self.classes
        )

    def evenly(self, count: int) -> Pictures:
        """At most `count`, evenly spread over the sorted names; 0 takes all."""
        return self.take(_evenly(len(self), count))

    def to(self, device: torch.device) -> Pictures:
        """The same with pixels and labels on `device`, so that crops are cut there."""
        labels = None if self.labels is None else self.labels.to(device)
        return Pictures(self.names, tuple(picture.to(device) for picture in self.pixels), labels, self.classes)


def load_pictures(data: DataSettings) -> Pictures:
    """The pictures of `data.source`, those aside that `data` keeps for a test.

    With class sub-folders, a picture's label is its folder's name.
    Raises ConfigError when there is no such source or no picture in it, ImageError when one cannot be decoded.
    """
    if data.source == "digits":
        return _asked(digits(), data)
    size = WorkingSize.parse(data.working_size)
    with _opened(Path(data.source)) as (names, read):
        if not names:
            raise ConfigError(
                f"{data.source}: no pictures; expected files with {', '.join(sorted(PICTURE_SUFFIXES))}"
            )
        names = [names[i] for i in _kept(len(names), data.test_every)]
        chosen = [names[i] for i in _evenly(len(names), data.limit)]
        with ThreadPoolExecutor(max_workers=torch.get_num_threads()) as pool:
            decoded = tuple(pool.map(lambda name: _picture(read(name), name, size), chosen))
    classes, labels = _labels(chosen)
    return Pictures(tuple(chosen), decoded, labels, classes)


def split(pictures: Pictures, every: int) -> tuple[Pictures, Pictures]:
    """Training and validation: each `every`-th picture in the order of names, from the first, is held out."""
    held_out = range(0, len(pictures), every)
    rest = [i for i in range(len(pictures)) if i % every]
    return pictures.take(rest), pictures.take(held_out)


def is_digits_test(index: int) -> bool:
    """Whether training never sees this picture of scikit-learn's load_digits: each fifth one, from the first."""
    return index % 5 == 0


def digits() -> Pictures:
    """scikit-learn's handwritten digits without the test pictures: 8x8, RGB, their 17 greys spread over 0..255."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    kept = [i for i in range(len(bunch.target)) if not is_digits_test(i)]
    grey = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    return Pictures(
        names=tuple(f"digit-{i:04d}" for i in kept),
        pixels=tuple(torch.from_numpy(grey[i]).expand(3, 8, 8).contiguous() for i in kept),
        labels=torch.tensor([int(bunch.target[i]) for i in kept]),
        classes=tuple("0123456789"),
    )


def _asked(pictures: Pictures, data: DataSettings) -> Pictures:
    return pictures.take(_kept(len(pictures), data.test_every)).evenly(data.limit)


def _kept(total: int, test_every: int) -> list[int]:
    """Those that are not for the test."""
    return [i for i in range(total) if not test_every or i % test_every]


def _evenly(total: int, count: int) -> list[int]:
    return list(range(total)) if count == 0 or count >= total else [i * total // count for i in range(count)]


@contextmanager
def _opened(source: Path) -> Iterator[tuple[list[str], Callable[[str], bytes]]]:
    """Sorted names of the pictures below a folder or in a zip, and how to read one."""
    if source.is_dir():
        files = (path for path in source.rglob("*") if path.is_file())
        names = sorted(path.relative_to(source).as_posix() for path in files if _is_picture(path))
        yield names, lambda name: (source / name).read_bytes()
    elif source.is_file() and zipfile.is_zipfile(source):
        with zipfile.ZipFile(source) as archive:
            yield sorted(name for name in archive.namelist() if _is_picture(PurePosixPath(name))), archive.read
    else:
        raise ConfigError(f'data.source {source}: no such folder or zip; expected one of these or "digits"')


def _is_picture(path: PurePosixPath | Path) -> bool:
    return path.suffix.lower() in PICTURE_SUFFIXES and not path.name.startswith(".")


def _picture(data: bytes, name: str, size: WorkingSize) -> Tensor:
    """uint8 [3, h, w], resized by the map that certification resizes with, then rounded to bytes."""
    picture = decode(data, name=name)
    resize = resize_map(*picture.shape[:2], size)
    if not resize.is_identity:
        picture = np.rint(resize.apply(picture) * 255).astype(np.uint8)
    return torch.tensor(picture).permute(2, 0, 1).contiguous()


def _labels(names: Sequence[str]) -> tuple[tuple[str, ...], Tensor | None]:
    """The folders that pictures lie in are classes, where there are several and no picture lies outside."""
    folders = [PurePosixPath(name).parent.as_posix() for name in names]
    classes = sorted(set(folders))
    if len(classes) < 2 or "." in classes:
        return (), None
    return tuple(PurePosixPath(folder).name for folder in classes), torch.tensor([*map(classes.index, folders)])
