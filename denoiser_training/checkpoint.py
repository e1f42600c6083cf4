"""Where training was, in one file that is replaced as a whole: a kill at any moment leaves the old or the new."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from denoiser_training.differences import differences
from denoiser_training.errors import TrainingError
from smoothing_proxy.errors import ConfigError
from smoothing_proxy.settings_file import Settings

__all__ = ["Best", "Checkpoint", "read_checkpoint", "write_checkpoint"]


@dataclass(frozen=True)
class Best:
    """The weights with the highest score on the validation pictures so far, of equals the last.

    step: steps done by then.
    """

    step: int
    score: float
    figures: dict[str, float]
    weights: dict[str, Tensor]


@dataclass(frozen=True)
class Checkpoint:
    """All that a resumed run needs to go on to the same losses.

    step: steps done; with the config's seed it fixes every later crop, noise level and noise (batches.py), so
    there is no other random state. network, optimiser: state dicts. average: of the averaged weights, or None.
    sums, count: losses since the last row of the journal. journal: bytes of each CSV file, those behind are
    written again. seconds: of training so far. config: as JSON. scaler: of the loss in fp16, else empty.
    """

    config: str
    step: int
    network: dict[str, Tensor]
    average: dict[str, Tensor] | None
    optimiser: dict[str, Any]
    sums: dict[str, float]
    count: int
    journal: dict[str, int]
    seconds: float
    best: Best | None
    scaler: dict[str, Any] = field(default_factory=dict)


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Written beside, synced, renamed. Raises TrainingError when the disk refuses it; the old file stays."""
    temporary = path.with_name(f".{path.name}.new")
    fields = {name: getattr(checkpoint, name) for name in checkpoint.__dataclass_fields__}
    fields["best"] = None if checkpoint.best is None else asdict(checkpoint.best)
    try:
        with temporary.open("wb") as file:
            torch.save(fields, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except (OSError, RuntimeError) as error:
        temporary.unlink(missing_ok=True)
        raise TrainingError(f"{path}: cannot write the checkpoint: {error}") from error


def read_checkpoint(path: Path, config: Mapping[str, Any], kind: type[Settings] = Settings) -> Checkpoint | None:
    """The checkpoint, or None where there is none. Nothing in the file is run.

    config: dumped settings. kind: which ones (see `differences`).

    Raises ConfigError when it was written with another config ([runtime] aside) or cannot be read.
    """
    if not path.exists():
        return None
    try:
        fields = torch.load(path, map_location="cpu", weights_only=True)
        best = fields.pop("best")
        checkpoint = Checkpoint(**fields, best=None if best is None else Best(**best))
        before = json.loads(checkpoint.config)
    except Exception as error:  # what bytes that are no checkpoint make torch raise is anybody's guess
        raise ConfigError(f"{path}: not a checkpoint of this version: {error}") from error
    changed = differences(before, config, kind)
    if changed:
        raise ConfigError(
            f"{path}: written with another config; different: {', '.join(changed)}. "
            "Choose another --out, or delete that folder to start afresh"
        )
    return checkpoint


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
