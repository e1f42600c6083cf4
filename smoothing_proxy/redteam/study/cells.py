"""What a study has found so far, on disk: one line per finished cell, so that a killed study loses one at most."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from filelock import FileLock, Timeout

from smoothing_proxy.errors import ConfigError

__all__ = ["CERTIFIED", "CLEAN", "Adversarial", "Cell", "CellStore", "digest"]

CLEAN, CERTIFIED = "clean", "certified"
"""Columns without an attack."""

FORMAT = 4
"""Goes into every digest: cells of another format are made again."""


@dataclass(frozen=True)
class Cell:
    """One row under one attack; without an attack (kind "clean") or certified (kind "certified").

    right: of each picture, whether the answer is its label. l2: distance of each from its clean picture, on the
    [0, 1] scale; for "certified" the radius of each. attacked: pictures that the attack had to change, those that
    were right before it. reached: how many of these the attack says it turned. queries: that the attack asked.
    seconds: of making the attack. ms: of the defence for one answer. broken: numbers, in the study, of pictures
    whose proof the attack broke.
    """

    kind: str
    right: tuple[bool, ...]
    l2: tuple[float, ...] = ()
    attacked: tuple[bool, ...] = ()
    reached: int = 0
    queries: int = 0
    seconds: float = 0.0
    ms: float = 0.0
    broken: tuple[int, ...] = ()


@dataclass(frozen=True)
class Adversarial:
    """What an attack made. pictures: float32 [n, 3, h, w]. attacked, reached: bool [n]. queries: of all, together.
    seconds: that it took."""

    pictures: npt.NDArray[np.float32]
    attacked: npt.NDArray[np.bool_]
    reached: npt.NDArray[np.bool_]
    queries: int
    seconds: float


class CellStore:
    """Cells by the digest of all that decides them, and adversarial pictures by theirs.

    folder: gets cells.jsonl and adversarial/; what it holds already is taken. It is held by one process at a time:
    close the store, or use it as a context manager. Raises ConfigError where it cannot be had, or written to.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "cells.jsonl"
        self._adversarial = folder / "adversarial"
        self._lock = FileLock(folder / "cells.lock")
        try:
            self._adversarial.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
            self._cells = self._read()
        except Timeout:
            raise ConfigError(f"{folder}: another process is working on this study") from None
        except OSError as error:
            self.close()
            raise ConfigError(f"{folder}: cannot keep a study's cells: {error}") from error
        except ConfigError:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the folder. Calling it twice is fine."""
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._cells)

    def get(self, key: str) -> Cell | None:
        """The finished cell."""
        return self._cells.get(key)

    def put(self, key: str, cell: Cell, told: Mapping[str, Any]) -> None:
        """Keep it, on the disk when this returns. told: what it is, for whoever reads the file."""
        line = json.dumps({"key": key, **told, "cell": asdict(cell)})
        with _written(self._path), self._path.open("a", encoding="utf-8") as stream:
            stream.write(line + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        self._cells[key] = cell

    def adversarial(self, key: str) -> Adversarial | None:
        """What an attack made before; a damaged file is as none."""
        try:
            path = self._adversarial / f"{key}.npz"
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as kept:
                return Adversarial(
                    kept["pictures"],
                    kept["attacked"],
                    kept["reached"],
                    int(kept["queries"]),
                    float(kept["seconds"]),
                )
        except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile, zlib.error):
            return None

    def keep_adversarial(self, key: str, made: Adversarial) -> None:
        """Whole or not at all, whenever the process is killed."""
        part = self._adversarial / f"{key}.part"
        with _written(part):
            with part.open("wb") as stream:
                np.savez(stream, **asdict(made))
                stream.flush()
                os.fsync(stream.fileno())
            part.replace(self._adversarial / f"{key}.npz")

    def _read(self) -> dict[str, Cell]:
        """The cells of the file. A last line without an end, of a process that was killed, is cut off."""
        if not self._path.exists():
            return {}
        data = self._path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        if len(whole) < len(data):
            with self._path.open("r+b") as stream:
                stream.truncate(len(whole))
        found = {}
        for number, line in enumerate(whole.decode("utf-8").splitlines(), 1):
            try:
                entry = json.loads(line)
                lists = {key: tuple(value) for key, value in entry["cell"].items() if isinstance(value, list)}
                found[entry["key"]] = Cell(**{**entry["cell"], **lists})
            except (ValueError, KeyError, TypeError) as error:
                raise ConfigError(f"{self._path}: line {number} is no cell of a study: {error}") from error
        return found


@contextmanager
def _written(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be written: {error}; what was finished before is kept, and the same command goes on"
        ) from error


def digest(*parts: Any) -> str:
    """Hex, of JSON values."""
    text = json.dumps([FORMAT, *parts], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]
