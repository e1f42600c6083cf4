"""Where pictures come from, by what `data.source` names: what is there, and how to read one."""

from __future__ import annotations

import lzma
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

import torch
from pydantic import JsonValue

from denoiser_training.data_settings import DataSettings, without_secrets
from smoothing_proxy.errors import ConfigError, ImageError
from smoothing_proxy.images.pixels import PICTURE_SUFFIXES, Pixels, decode

__all__ = ["Gallery", "Source", "find_source", "gallery_of_files", "is_picture", "source_name", "zip_gallery"]


@dataclass(frozen=True)
class Gallery:
    """An opened source. names: unique and sorted. classes: by label; empty where the labels alone say how many.

    read: index of a name to the picture and its label, or None; raises ImageError. workers: threads that may read.
    """

    names: Sequence[str]
    classes: tuple[str, ...]
    read: Callable[[int], tuple[Pixels, int | None]]
    workers: int


class Source(Protocol):
    """A place with pictures. shown: its name in messages, without secrets."""

    @property
    def shown(self) -> str: ...  # noqa: D102  (the class says it)

    def identity(self) -> JsonValue:
        """Changes when the pictures do; None where that cannot be told. Raises ConfigError for nothing there."""
        ...

    def open(self) -> AbstractContextManager[Gallery]:
        """What is in it, readable inside the block. Raises ConfigError when it cannot be had."""
        ...


def find_source(data: DataSettings) -> Source:
    """The source that the settings name, "digits" aside. Raises ConfigError when there is none such."""
    if data.source.startswith("torchvision:"):
        from denoiser_training.torchvision_sets import TorchvisionSet

        return TorchvisionSet.of(data)
    if "://" in data.source:
        from denoiser_training.remote_sources import remote_source

        return remote_source(data.source)
    path = Path(data.source)
    if path.is_dir():
        return _Folder(path)
    if path.is_file() and zipfile.is_zipfile(path):
        return _Zip(path)
    raise ConfigError(
        f'data.source {path}: no such folder or zip; expected one of these, a URL, "torchvision:NAME" or "digits"'
    )


def source_name(source: str) -> str:
    """What a card calls it: a path's folders, and what a URL says besides its path, are nobody's business."""
    if source == "digits":
        return "scikit-learn's handwritten digits (8x8), its test pictures left out"
    if source.startswith("torchvision:"):
        return source
    return PurePosixPath(without_secrets(source)).name if "://" in source else Path(source).name


def is_picture(name: str) -> bool:
    """Whether a file is taken for a picture, by its name."""
    path = PurePosixPath(name)
    return path.suffix.lower() in PICTURE_SUFFIXES and not path.name.startswith(".")


DAMAGED = (zipfile.BadZipFile, RuntimeError, NotImplementedError, ValueError, EOFError, zlib.error, lzma.LZMAError)
"""What zipfile raises for an entry that is damaged, encrypted or packed in a way it does not know."""


def gallery_of_files(names: Sequence[str], read: Callable[[str], bytes], workers: int = 0) -> Gallery:
    """Encoded pictures by name. The folders that they lie in are classes, where there are several and no picture
    lies outside. workers: 0 takes as many threads as torch has."""
    folders = [PurePosixPath(name).parent.as_posix() for name in names]
    classes = sorted(set(folders))
    if len(classes) < 2 or "." in classes:
        classes = []
    number = {folder: label for label, folder in enumerate(classes)}
    return Gallery(
        names=names,
        classes=tuple(PurePosixPath(folder).name for folder in classes),
        read=lambda i: (decode(_read(read, names[i]), name=names[i]), number.get(folders[i])),
        workers=workers or torch.get_num_threads(),
    )


def _read(read: Callable[[str], bytes], name: str) -> bytes:
    try:
        return read(name)
    except (OSError, *DAMAGED) as error:
        raise ImageError(f"{name}: cannot be read: {error}") from error


@contextmanager
def zip_gallery(path: Path) -> Iterator[Gallery]:
    """The pictures in a zip file on this machine. Raises ConfigError when it cannot be opened."""
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, *DAMAGED) as error:
        raise ConfigError(f"data.source {path}: not a zip that can be read: {error}") from error
    with archive:
        yield gallery_of_files(sorted(filter(is_picture, archive.namelist())), archive.read)


@dataclass(frozen=True)
class _Folder:
    path: Path

    @property
    def shown(self) -> str:
        return str(self.path)

    def identity(self) -> JsonValue:
        files = [(name, (self.path / name).stat()) for name in self._names()]
        marks: list[JsonValue] = [[name, file.st_size, file.st_mtime_ns] for name, file in files]
        return [str(self.path.resolve()), *marks]

    @contextmanager
    def open(self) -> Iterator[Gallery]:
        yield gallery_of_files(self._names(), lambda name: (self.path / name).read_bytes())

    def _names(self) -> list[str]:
        files = (path for path in self.path.rglob("*") if is_picture(path.name) and path.is_file())
        return sorted(path.relative_to(self.path).as_posix() for path in files)


@dataclass(frozen=True)
class _Zip:
    path: Path

    @property
    def shown(self) -> str:
        return str(self.path)

    def identity(self) -> JsonValue:
        file = self.path.stat()
        return [str(self.path.resolve()), file.st_size, file.st_mtime_ns]

    def open(self) -> AbstractContextManager[Gallery]:
        return zip_gallery(self.path)
