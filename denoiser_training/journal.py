"""What a run writes for people: CSV rows, pictures, and a line that shows how far it is."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from smoothing_proxy.errors import ConfigError

__all__ = ["CsvFile", "Display", "Meter", "Records", "write_strip"]


class CsvFile:
    """Rows of numbers, on disk as soon as they are written. size: bytes to keep of what is there."""

    def __init__(self, path: Path, *, size: int = 0) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab")
        self._file.truncate(size)

    def append(self, row: Mapping[str, float | int | str]) -> None:
        """One row; the first one's keys are the header."""
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, list(row), lineterminator="\n")
        if self.size == 0:
            writer.writeheader()
        writer.writerow({key: f"{value:.8g}" if isinstance(value, float) else value for key, value in row.items()})
        self._file.write(text.getvalue().encode())
        self._file.flush()

    @property
    def size(self) -> int:
        """Bytes so far."""
        return self._file.seek(0, io.SEEK_END)

    def close(self) -> None:
        """Release the file."""
        with suppress(OSError):  # a row that the disk refused was told of already, and is tried again here
            self._file.close()


class Records:
    """metrics.csv and validation.csv of one run and, where asked for, the same figures for TensorBoard.

    sizes: bytes to keep of each CSV file. step: steps done; TensorBoard hides what a killed run wrote beyond it.
    Raises ConfigError when TensorBoard is asked for and not installed.
    """

    def __init__(self, folder: Path, sizes: Mapping[str, int], *, tensorboard: bool, step: int) -> None:
        self._board = _board(folder / "tensorboard", step) if tensorboard else None
        self._files = {
            name: CsvFile(folder / f"{name}.csv", size=sizes.get(name, 0)) for name in ("metrics", "validation")
        }

    def append(self, name: str, row: Mapping[str, float | int | str]) -> None:
        """One row of "metrics" or "validation", at its "step"."""
        self._files[name].append(row)
        for key, value in row.items():
            if self._board is not None and key != "step" and not isinstance(value, str):
                self._board.add_scalar(f"{name}/{key}", value, row["step"])

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of each CSV file so far."""
        return {name: file.size for name, file in self._files.items()}

    def close(self) -> None:
        """Release the files."""
        for file in self._files.values():
            file.close()
        if self._board is not None:
            self._board.close()


def _board(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ConfigError(
            "runtime.tensorboard needs TensorBoard: pip install 'smoothing-proxy[training]'"
        ) from None
    return SummaryWriter(folder, purge_step=step + 1)


@dataclass
class Meter:
    """Means of losses since it was last read, without asking the device for them at every step."""

    sums: dict[str, Tensor] = field(default_factory=dict)
    count: int = 0

    def add(self, losses: Mapping[str, Tensor]) -> None:
        """One step's losses, scalars."""
        for name, value in losses.items():
            exact = value.detach().double()
            self.sums[name] = self.sums[name] + exact if name in self.sums else exact
        self.count += 1

    def finite(self) -> bool:
        """Whether no loss so far was NaN or infinite; waits for the device."""
        return all(bool(torch.isfinite(value)) for value in self.sums.values())

    def totals(self) -> dict[str, float]:
        """Sums as plain numbers, for a checkpoint."""
        return {name: float(value) for name, value in self.sums.items()}

    def read(self) -> dict[str, float]:
        """The means, and start again."""
        means = {name: float(value) / self.count for name, value in self.sums.items()}
        self.sums, self.count = {}, 0
        return means


class Display:
    """One line: phase, steps, loss, pictures per second, time left. total: steps of the whole run."""

    def __init__(self, console: Console, name: str, total: int, done: int) -> None:
        self.console = console
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[news]}", markup=False),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task(name, total=total, completed=done, news="")

    def __enter__(self) -> Display:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def advance(self, step: int) -> None:
        """`step` steps are done."""
        self._progress.update(self._task, completed=step)

    def news(self, text: str) -> None:
        """Shown on the line until the next."""
        self._progress.update(self._task, news=text)

    def say(self, text: str) -> None:
        """A line that stays."""
        self.console.print(text, highlight=False, markup=False)


def write_strip(path: Path, *columns: Tensor, enlarge: int = 1) -> None:
    """A PNG with one row per picture and one column per batch. columns: float [n, 3, h, w], clipped to [0, 1]."""
    from PIL import Image

    rows = torch.cat([batch.detach().float().cpu().clamp(0, 1) for batch in columns], dim=3)
    sheet = torch.cat(list(rows), dim=1).mul(255).round().to(torch.uint8)
    sheet = sheet.repeat_interleave(enlarge, dim=1).repeat_interleave(enlarge, dim=2)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(sheet.permute(1, 2, 0).contiguous().numpy()).save(path)
