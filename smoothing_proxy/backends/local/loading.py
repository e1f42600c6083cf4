"""What every local classifier reads before it can answer: files, label lists, optional libraries."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from smoothing_proxy.errors import ConfigError, nearest

__all__ = ["existing_file", "label_names", "optional_import", "sha256_of"]


def existing_file(path: str | Path) -> Path:
    """The path, if there is a file. Raises ConfigError with the nearest file name of its folder."""
    path = Path(path).expanduser()
    if path.is_file():
        return path
    if path.is_dir():
        raise ConfigError(f"{path}: is a folder, a file is needed")
    beside = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
    close = nearest(path.name, beside)
    raise ConfigError(f"{path}: no such file{close if close.startswith('; did') else ''}")


def sha256_of(path: Path) -> str:
    """The file's sha256 in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def label_names(source: str | Path | Sequence[str]) -> tuple[str, ...]:
    """Names of a classifier's outputs: a list, or a text file with one per line (blank lines at its end aside).

    Raises ConfigError when the file cannot be read, or where a line between others is blank.
    """
    if not isinstance(source, str | Path):
        return tuple(source)
    path = existing_file(source)
    try:
        names = [line.strip() for line in path.read_text(encoding="utf-8-sig").rstrip().splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error
    if not all(names):
        raise ConfigError(f"{path}: line {names.index('') + 1} is blank, every output needs a name")
    return tuple(names)


def optional_import(module: str, extra: str) -> Any:
    """The module. Raises ConfigError that names the extra to install where its library is missing."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise ConfigError(f"{error.name} is not installed: pip install 'smoothing-proxy[{extra}]'") from error
