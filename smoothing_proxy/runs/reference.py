"""Reference labels: which answer counts as correct for each picture."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from smoothing_proxy.errors import ConfigError, nearest
from smoothing_proxy.types import Label

__all__ = ["read_reference"]


def read_reference(path: Path, names: Sequence[str], *, column: str = "label") -> dict[str, Label]:
    """The label of each picture, from a CSV file whose header names the columns `file` and `column`.

    file: the picture's path relative to the folder, with or without its suffix, or its bare name.
    Raises ConfigError for a file that cannot be read, lacks a column, or lacks a picture.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            table = csv.DictReader(stream)
            columns = table.fieldnames or []
            for needed in ("file", column):
                if needed not in columns:
                    raise ConfigError(f"{path}: no column {needed!r}{nearest(needed, columns)}")
            labels = {row["file"]: row[column] for row in table}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path}: {error}") from error
    found = {name: _look_up(labels, name) for name in names}
    missing = [name for name, label in found.items() if label is None]
    if missing:
        raise ConfigError(
            f"{path}: no label for {len(missing)} of {len(names)} pictures, the first is {missing[0]}"
        )
    return {name: label for name, label in found.items() if label is not None}


def _look_up(labels: dict[str, Label], name: str) -> Label | None:
    candidates = (name, str(Path(name).with_suffix("")), Path(name).name, Path(name).stem)
    return next((labels[key] for key in candidates if key in labels), None)
