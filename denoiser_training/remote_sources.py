"""Pictures behind a URL, over any protocol that fsspec and its plug-ins speak: a folder, or a zip of one.

A zip is fetched as a whole, into a temporary file, since not every server sends parts. Of a folder each picture is
one request, a few at a time.
"""

from __future__ import annotations

import re
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from pydantic import JsonValue

from denoiser_training.data_settings import without_secrets
from denoiser_training.sources import Gallery, Source, gallery_of_files, is_picture, zip_gallery
from smoothing_proxy.errors import ConfigError, SmoothingProxyError

__all__ = ["remote_source"]

T = TypeVar("T")

AT_A_TIME = 8
"""Requests for pictures of a folder."""

MARKS = frozenset(
    {"contentmd5", "created", "digest", "etag", "lastmodified", "md5hash", "mtime", "updated", "uuid", "versionid"}
)
"""What stores call the facts that change with a file, without their hyphens and underscores."""


def remote_source(url: str) -> Source:
    """The zip or folder that `url` names. Raises ConfigError where its protocol is unknown or needs a package."""
    shown = without_secrets(url)
    try:
        import fsspec  # type: ignore[import-untyped]
    except ImportError:
        raise ConfigError(f"data.source {shown} needs fsspec: pip install 'smoothing-proxy[training]'") from None
    try:
        system, path = fsspec.core.url_to_fs(url)
    except ImportError as error:  # fsspec's own text names the package
        raise ConfigError(f"data.source {shown}: {error}") from error
    except ValueError as error:
        raise ConfigError(f"data.source {shown}: {_redacted(error, url)}") from error
    place = _Place(url, system, path)
    place.ask(system.invalidate_cache)
    return _RemoteZip(place) if urlsplit(url).path.lower().endswith(".zip") else _RemoteFolder(place)


@dataclass(frozen=True)
class _Place:
    """system: fsspec's file system. path: as it calls it."""

    url: str
    system: Any
    path: str

    @property
    def shown(self) -> str:
        """Its name in messages."""
        return without_secrets(self.url)

    def ask(self, action: Callable[..., T], *arguments: Any, **options: Any) -> T:
        """What it answers. Raises ConfigError for every refusal: each protocol has errors of its own."""
        try:
            return action(*arguments, **options)
        except SmoothingProxyError:
            raise
        except FileNotFoundError as error:
            raise ConfigError(f"data.source {self.shown}: there is no such file or folder") from error
        except Exception as error:
            reason = f"{type(error).__name__}: {_redacted(error, self.url)}"
            raise ConfigError(f"data.source {self.shown}: {reason}") from error


@dataclass(frozen=True)
class _RemoteZip:
    place: _Place

    @property
    def shown(self) -> str:
        return self.place.shown

    def identity(self) -> JsonValue:
        marks = _marks(self.place.ask(self.place.system.info, self.place.path))
        return None if marks is None else [self.place.url.partition("?")[0], marks]

    @contextmanager
    def open(self) -> Iterator[Gallery]:
        with tempfile.TemporaryDirectory(prefix="smoothing-proxy-") as folder:
            copy = Path(folder) / "pictures.zip"
            self.place.ask(self.place.system.get_file, self.place.path, str(copy))
            if not zipfile.is_zipfile(copy):
                raise ConfigError(f"data.source {self.shown}: what the server sent is no zip")
            with zip_gallery(copy) as gallery:
                yield gallery


@dataclass(frozen=True)
class _RemoteFolder:
    place: _Place

    @property
    def shown(self) -> str:
        return self.place.shown

    def identity(self) -> JsonValue:
        marks = {name: _marks(info) for name, (_, info) in self._files().items()}
        known = {name: mark for name, mark in marks.items() if mark is not None}
        return [self.place.url, known] if len(known) == len(marks) else None  # type: ignore[list-item]

    @contextmanager
    def open(self) -> Iterator[Gallery]:
        files, system = self._files(), self.place.system
        yield gallery_of_files(
            sorted(files), lambda name: self.place.ask(system.cat_file, files[name][0]), AT_A_TIME
        )

    def _files(self) -> dict[str, tuple[str, Mapping[str, Any]]]:
        """Names below the folder to where each lies and what the store says of it."""
        system, root = self.place.system, self.place.path.rstrip("/") + "/"
        if not self.place.ask(system.exists, self.place.path):
            raise ConfigError(f"data.source {self.shown}: there is no such folder")
        found = self.place.ask(system.find, self.place.path, detail=True)
        return {path.removeprefix(root): (path, info) for path, info in found.items() if is_picture(path)}


def _marks(info: Mapping[str, Any]) -> list[JsonValue] | None:
    """The size, and what changes with the file; None where the store tells nothing of the kind."""
    marks = {key: str(info[key]) for key in sorted(info) if key.lower().replace("-", "").replace("_", "") in MARKS}
    given = {key: value for key, value in marks.items() if value not in ("", "None")}
    return [info.get("size"), *(f"{key}={value}" for key, value in given.items())] if given else None


def _redacted(error: Exception, url: str) -> str:
    text = str(error).replace(url, without_secrets(url))
    secrets = filter(None, re.split(r"[?#]", url)[1:])
    return reduce(lambda shown, secret: shown.replace(secret, "..."), secrets, text)
