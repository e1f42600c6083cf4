"""Pictures of what an attack did: clean, adversarial, their difference, and what the denoiser makes of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from smoothing_proxy.denoisers.base import Denoiser
from smoothing_proxy.images import codec, noise
from smoothing_proxy.redteam.comparison import Shown

__all__ = ["AMPLIFIED", "draw_panels", "panels_of"]

AMPLIFIED = 10
"""Times that a difference is enlarged, about middle grey."""

MOST_ROWS = 6
TITLES = ("clean", "adversarial", f"difference x{AMPLIFIED}", "denoised")
GREEN, RED = "#1b7f3b", "#b3261e"


def panels_of(shown: Shown, denoiser: Denoiser, sigma: float) -> list[npt.NDArray[np.uint8]]:
    """The four panels of one picture, uint8 [h, w, 3]; the last is one noisy copy, denoised."""
    change = shown.pixels.astype(np.int32) - shown.clean
    difference = np.clip(128 + AMPLIFIED * change, 0, 255).astype(np.uint8)
    grid = noise.pixels_to_grid(shown.pixels)
    noisy = noise.noisy_batch(grid, noise.insecure_entropy(0, shown.name.encode()), [0], sigma)
    return [shown.clean, shown.pixels, difference, codec.quantise(denoiser.denoise(noisy, sigma))[0]]


def draw_panels(shown: Sequence[Shown], path: Path, *, denoiser: Denoiser, sigma: float) -> None:
    """Write a PNG with a row for each of the first pictures, those whose label fell first.

    shown: of one attack at one eps on one classifier, at least one.
    """
    from matplotlib.figure import Figure

    rows = sorted(shown, key=lambda one: one.stands)[:MOST_ROWS]
    figure = Figure(figsize=(8.6, 0.7 + 2.15 * len(rows)), dpi=100)
    grid = figure.subplots(len(rows), len(TITLES), squeeze=False)
    for down, one in enumerate(rows):
        for across, panel in enumerate(panels_of(one, denoiser, sigma)):
            axes = grid[down][across]
            axes.imshow(panel, interpolation="nearest")
            axes.set_xticks([])
            axes.set_yticks([])
            if down == 0:
                axes.set_title(TITLES[across])
        answer = "abstains" if one.answer is None else one.answer
        grid[down][0].set_xlabel(one.label, fontsize=9)
        grid[down][1].set_xlabel(f"{answer}, l2 {one.l2:.2f}", color=GREEN if one.stands else RED, fontsize=9)
    which = "hardened" if shown[0].hardened else "raw"
    figure.suptitle(f"{shown[0].attack} at {shown[0].eps:g} on the {which} classifier; sigma {sigma:g}")
    figure.tight_layout()
    figure.savefig(path)
