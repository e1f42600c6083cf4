"""Pictures by name, from a folder or from a zip of one; the folders that they lie in may be their classes."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from smoothing_proxy.errors import ConfigError, ImageError
from smoothing_proxy.images.pixels import PICTURE_SUFFIXES, Pixels, decode, picture_files

__all__ = ["Album", "open_album"]


@dataclass(frozen=True)
class Album:
    """Where pictures lie. path: a folder or a zip. names: theirs inside it, sorted, with "/" between."""

    path: Path
    names: tuple[str, ...]

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the folders that pictures lie in, sorted, where there are several and none lies outside."""
        folders = sorted({PurePosixPath(name).parent for name in self.names})
        if len(folders) < 2 or PurePosixPath() in folders:
            return ()
        return tuple(folder.name for folder in folders)

    def evenly(self, count: int) -> Album:
        """At most `count` pictures, evenly spread over the sorted names; 0 takes all."""
        total = len(self.names)
        if count == 0 or count >= total:
            return self
        return Album(self.path, tuple(self.names[i * total // count] for i in range(count)))

    def read(self) -> list[Pixels]:
        """Every picture, uint8 [h, w, 3] upright sRGB. Raises ImageError, or ConfigError where they are gone."""
        try:
            if self.path.is_dir():
                return [decode((self.path / name).read_bytes(), name=name) for name in self.names]
            with zipfile.ZipFile(self.path) as archive:
                return [decode(archive.read(name), name=name) for name in self.names]
        except (OSError, KeyError, zipfile.BadZipFile) as error:
            if isinstance(error, ImageError):
                raise
            raise ConfigError(f"{self.path}: cannot be read: {error}") from error


def open_album(path: Path) -> Album:
    """The pictures of a folder or a zip, by suffix; hidden ones are left out.

    Raises ConfigError where there is neither, or no picture in it.
    """
    if not path.is_file():
        return Album(path, tuple(file.relative_to(path).as_posix() for file in picture_files(path)))
    try:
        with zipfile.ZipFile(path) as archive:
            names = tuple(sorted(filter(_is_picture, archive.namelist())))
    except (OSError, zipfile.BadZipFile) as error:
        raise ConfigError(f"{path}: expected a folder or a zip of pictures: {error}") from error
    if not names:
        raise ConfigError(f"{path}: no picture in it (looked for {', '.join(sorted(PICTURE_SUFFIXES))})")
    return Album(path, names)


def _is_picture(name: str) -> bool:
    path = PurePosixPath(name)
    return path.suffix.lower() in PICTURE_SUFFIXES and not any(part.startswith(".") for part in path.parts)
