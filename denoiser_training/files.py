"""Files that are replaced as a whole: a crash leaves the old one."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout

from denoiser_training.faults import refused
from smoothing_proxy.errors import ConfigError
from smoothing_proxy.settings_file import Settings

__all__ = ["claimed", "replace_file", "replacing", "write_settings"]


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """`folder`, made where it is missing, is this run's until the block ends; a crash gives it back too.

    Raises ConfigError when another run works there, and when it is no folder or cannot be written.
    """
    lock = FileLock(folder / ".lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise ConfigError(f"{folder}: another run works there; choose another --out, or wait for it") from None
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be the folder of the results: {refused(error)}") from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write, which takes `path`'s place when the block ends well. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_settings(folder: Path, settings: Settings) -> None:
    """`settings` as config.json, for people. Raises ConfigError when the folder cannot be written."""
    try:
        replace_file(folder / "config.json", (settings.model_dump_json(indent=2) + "\n").encode())
    except OSError as error:
        raise ConfigError(f"{folder}: cannot write there: {refused(error)}") from error


def replace_file(path: Path, data: bytes) -> None:
    """`data` in the place of what `path` holds. Raises OSError."""
    with replacing(path) as file:
        file.write(data)
