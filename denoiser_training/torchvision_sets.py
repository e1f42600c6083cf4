"""The data sets of torchvision.datasets that yield (picture, class), by name."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from denoiser_training.data_settings import DataSettings
from denoiser_training.sources import Gallery
from smoothing_proxy.errors import ConfigError, ImageError, nearest
from smoothing_proxy.images.pixels import Pixels

__all__ = ["TorchvisionSet"]


@dataclass(frozen=True)
class TorchvisionSet:
    """kind: the class in torchvision.datasets. arguments: it is made with. root: where its files lie, or None."""

    shown: str
    kind: Any
    arguments: dict[str, Any]
    root: Path | None

    @classmethod
    def of(cls, data: DataSettings) -> TorchvisionSet:
        """As the settings say; what is missing is downloaded first where they ask for it.

        Raises ConfigError for an unknown name, for an argument that the data set does not take, and when its files
        cannot be had.
        """
        kind = _kind(data.source)
        found = cls(data.source, kind, _arguments(data, kind), data.root)
        if data.download:
            found._made()
        return found

    def identity(self) -> JsonValue:
        """The arguments, and the files below `root`, whichever of them are this data set's."""
        arguments = [f"{key}={value}" for key, value in sorted(self.arguments.items()) if key != "download"]
        described = [self.shown, version("torchvision"), *arguments]
        if self.root is None:
            return [*described]
        files = sorted(path for path in self.root.rglob("*") if path.is_file())
        marks: list[JsonValue] = [
            [str(path.relative_to(self.root)), path.stat().st_size, path.stat().st_mtime_ns] for path in files
        ]
        return [*described, str(self.root.resolve()), *marks]

    @contextmanager
    def open(self) -> Iterator[Gallery]:
        """Names are the data set's own numbers. One thread reads: not all of these data sets bear more."""
        dataset = self._made()
        digits = len(str(max(len(dataset) - 1, 0)))
        names = [f"{self.shown.partition(':')[2]}-{i:0{digits}d}" for i in range(len(dataset))]
        yield Gallery(names, _classes(dataset), lambda i: self._read(dataset, i), workers=1)

    def _made(self) -> Any:
        try:
            return self.kind(**self.arguments)
        except Exception as error:  # each data set has its own way to say that files are missing
            raise ConfigError(f"data.source {self.shown}: {error}{self._advice()}") from error

    def _advice(self) -> str:
        if self.root is None or self.arguments.get("download"):
            return ""
        if "download" in inspect.signature(self.kind).parameters:
            return f" (set data.download = true, or put its files into {self.root})"
        return f" (torchvision cannot download it: put its files into {self.root})"

    def _read(self, dataset: Any, index: int) -> tuple[Pixels, int]:
        from PIL.Image import Image

        try:
            item = dataset[index]
        except Exception as error:
            raise ImageError(f"{self.shown}: picture {index}: {error}") from error
        if not isinstance(item, tuple) or len(item) != 2 or not isinstance(item[0], Image):
            raise ConfigError(f"data.source {self.shown}: yields no (picture, class)")
        try:
            label = operator.index(item[1])
        except TypeError:
            raise ConfigError(
                f"data.source {self.shown}: the target of a picture is a {type(item[1]).__name__}, not a class"
            ) from None
        return _pixels(item[0]), label


def _kind(source: str) -> Any:
    from torchvision import datasets  # type: ignore[import-untyped]

    name = source.partition(":")[2]
    if name not in datasets.__all__:
        raise ConfigError(
            f"data.source {source}: torchvision has no such data set{nearest(name, datasets.__all__)}"
        )
    return getattr(datasets, name)


def _arguments(data: DataSettings, kind: Any) -> dict[str, Any]:
    known = inspect.signature(kind).parameters
    given: dict[str, Any] = dict(data.options)
    if "root" in known:
        if data.root is None:
            raise ConfigError(f"data.source {data.source}: set data.root to the folder with its files")
        given["root"] = str(data.root)
    if data.download:
        given["download"] = True
    if data.split:
        given.update(_split(data, known))
    for key in given:
        if key not in known:
            raise ConfigError(f"data.source {data.source}: takes no {key!r}{nearest(key, known)}")
    return given


def _split(data: DataSettings, known: Any) -> dict[str, Any]:
    """torchvision's data sets say `split="test"` or `train=False`."""
    if "train" in known and data.split in ("train", "test"):
        return {"train": data.split == "train"}
    return {"split": data.split}


def _classes(dataset: Any) -> tuple[str, ...]:
    """In the order of the labels: names where the data set has them, else numbers; () where it says nothing."""
    names = getattr(dataset, "classes", None)
    if names:
        return tuple(name if isinstance(name, str) else ", ".join(map(str, name)) for name in names)
    targets = getattr(dataset, "targets", getattr(dataset, "labels", None))
    count = getattr(dataset, "num_classes", 0) if targets is None else max(map(int, targets), default=-1) + 1
    return tuple(str(label) for label in range(count))


def _pixels(picture: Any) -> Pixels:
    """As a file's picture is made canonical, but for the orientation, which torchvision has dropped."""
    from smoothing_proxy.images.colour import to_srgb

    return to_srgb(picture, 8)
