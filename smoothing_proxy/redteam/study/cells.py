"""What a study has found so far, on disk: one line per finished cell, so that a killed study loses one at most."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

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
    seconds: of making the attack. ms: of the defence for one answer.
    """

    kind: str
    right: tuple[bool, ...]
    l2: tuple[float, ...] = ()
    attacked: tuple[bool, ...] = ()
    reached: int = 0
    queries: int = 0
    seconds: float = 0.0
    ms: float = 0.0


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

    folder: gets cells.jsonl and adversarial/; what it holds already is taken. Raises ConfigError where it cannot.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "cells.jsonl"
        self._adversarial = folder / "adversarial"
        try:
            self._adversarial.mkdir(parents=True, exist_ok=True)
            self._cells = self._read()
        except OSError as error:
            raise ConfigError(f"{folder}: cannot keep a study's cells: {error}") from error

    def __len__(self) -> int:
        return len(self._cells)

    def get(self, key: str) -> Cell | None:
        """The finished cell."""
        return self._cells.get(key)

    def put(self, key: str, cell: Cell, told: Mapping[str, Any]) -> None:
        """Keep it, on the disk when this returns. told: what it is, for whoever reads the file."""
        line = json.dumps({"key": key, **told, "cell": asdict(cell)})
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(line + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        self._cells[key] = cell

    def adversarial(self, key: str) -> Adversarial | None:
        """What an attack made before; a damaged file is as none."""
        try:
            with np.load(self._adversarial / f"{key}.npz", allow_pickle=False) as kept:
                return Adversarial(
                    kept["pictures"],
                    kept["attacked"],
                    kept["reached"],
                    int(kept["queries"]),
                    float(kept["seconds"]),
                )
        except (OSError, KeyError, ValueError, EOFError):
            return None

    def keep_adversarial(self, key: str, made: Adversarial) -> None:
        """Whole or not at all, whenever the process is killed."""
        part = self._adversarial / f"{key}.part"
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


def digest(*parts: Any) -> str:
    """Hex, of JSON values."""
    text = json.dumps([FORMAT, *parts], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]
