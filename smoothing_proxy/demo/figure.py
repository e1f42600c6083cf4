"""A picture of what the demo did: digits clean, noisy and denoised, with their proven radii."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from smoothing_proxy.stats.rounding import rounded_down
from smoothing_proxy.types import Certificate

__all__ = ["Column", "draw_figure"]


@dataclass(frozen=True, slots=True)
class Column:
    """One digit. clean, noisy, denoised: float32 [8, 8, 3], shown on [0, 1]. reference: its label."""

    clean: npt.NDArray[np.float32]
    noisy: npt.NDArray[np.float32]
    denoised: npt.NDArray[np.float32]
    reference: str
    certificate: Certificate


def draw_figure(columns: Sequence[Column], path: Path, *, sigma: float) -> None:
    """Write the picture as PNG: a column per digit, its answer and proven radius underneath."""
    from matplotlib.figure import Figure

    rows = ("clean", "noisy", "denoised")
    figure = Figure(figsize=(1.25 * len(columns) + 0.8, 5.0), dpi=110)
    grid = figure.subplots(len(rows), len(columns), squeeze=False)
    for across, column in enumerate(columns):
        for down, row in enumerate(rows):
            axes = grid[down][across]
            axes.imshow(np.clip(getattr(column, row), 0, 1), interpolation="nearest")
            axes.set_xticks([])
            axes.set_yticks([])
            if across == 0:
                axes.set_ylabel(row)
        answer, good = _answer(column)
        grid[-1][across].set_xlabel(answer, color="#1b7f3b" if good else "#b3261e", fontsize=9)
    figure.suptitle(f"One noisy copy of many, sigma = {sigma:g}; below, the answer proven within its l2 radius")
    figure.tight_layout()
    figure.savefig(path)


def _answer(column: Column) -> tuple[str, bool]:
    certificate = column.certificate
    if certificate.label is None:
        return "abstains", False
    return f"{certificate.label}, r = {rounded_down(certificate.radius, 2)}", certificate.label == column.reference
