"""Reference labels: which answer counts as correct for each picture."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from smoothing_proxy.backends.labels import LabelMap
from smoothing_proxy.errors import ConfigError, nearest
from smoothing_proxy.types import Label, Reply, ScoredLabel

__all__ = ["read_reference"]


def read_reference(
    path: Path, names: Sequence[str], labels: LabelMap, *, column: str = "label"
) -> dict[str, Label]:
    """The label of each picture, from a CSV file whose header names the columns `file` and `column`.

    file: the picture's path relative to the folder, or its bare name where no other picture has it, each with or
    without its suffix. Labels pass the label map, so that they may be the classifier's own or the user's.
    Raises ConfigError for a file that cannot be read, lacks a column or a picture, or names a label that the map
    drops.
    """
    rows = _rows(path, column)
    bare = Counter(Path(name).stem for name in names)
    found = {name: _look_up(rows, name, unique=bare[Path(name).stem] == 1) for name in names}
    missing = [name for name, label in found.items() if label is None]
    if missing:
        raise ConfigError(
            f"{path}: no label for {len(missing)} of {len(names)} pictures, the first is {missing[0]}"
        )
    return {name: _mapped(label, labels, path) for name, label in found.items() if label is not None}


def _rows(path: Path, column: str) -> dict[str, str]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            table = csv.DictReader(stream)
            columns = table.fieldnames or []
            for needed in ("file", column):
                if needed not in columns:
                    raise ConfigError(f"{path}: no column {needed!r}{nearest(needed, columns)}")
            return {row["file"]: row[column] for row in table}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path}: {error}") from error


def _look_up(rows: dict[str, str], name: str, *, unique: bool) -> str | None:
    path = Path(name)
    candidates = [name, path.with_suffix("").as_posix(), *([path.name, path.stem] if unique else [])]
    return next((rows[key] for key in candidates if key in rows), None)


def _mapped(label: str, labels: LabelMap, path: Path) -> Label:
    vote = labels.vote(Reply((ScoredLabel(label, 1.0),)))
    if vote is None:
        raise ConfigError(f"{path}: label {label!r} is dropped by the label map{nearest(label, labels.classes)}")
    return vote
