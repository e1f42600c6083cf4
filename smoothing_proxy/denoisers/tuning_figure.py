"""A sweep of filters as pictures: the curves of PSNR, and what the best filters make of some pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from smoothing_proxy.denoisers.classical import Wavelet
from smoothing_proxy.denoisers.registry import denoiser
from smoothing_proxy.denoisers.tuning import FilterScore
from smoothing_proxy.images.pixels import Pixels

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_pictures", "draw_sweep"]

STYLES: Mapping[str, str] = {"bayes": "-", "visu": ":", "soft": "--", "hard": "-."}
"""Of the rules and of the best fixed threshold in each mode."""

LABELS = {"gaussian": "standard deviation, pixels", "median": "side of the window, pixels"}


def draw_sweep(scores: Sequence[FilterScore], path: Path, *, sigma: float, pictures: int) -> None:
    """PSNR against each family's parameters as PNG; the noisy pictures' own is a line across."""
    from matplotlib.figure import Figure

    families = [name for name in ("wavelet", *LABELS) if any(score.family == name for score in scores)]
    figure = Figure(figsize=(4.6 * max(1, len(families)), 4.2), dpi=110)
    for axes, family in zip(figure.subplots(1, max(1, len(families)), squeeze=False)[0], families, strict=False):
        mine = [score for score in scores if score.family == family]
        (_draw_wavelets if family == "wavelet" else _draw_numbers)(axes, mine)
        _draw_unfiltered(axes, scores)
        best = max(mine, key=lambda score: score.psnr)
        axes.set(title=f"{best.spec}: {best.psnr:.2f} dB", ylabel="PSNR, dB")
        axes.title.set_fontsize(9)
        low, high = axes.get_ylim()
        axes.set_ylim(low - 0.35 * (high - low), high)  # room for the legend
        axes.legend(fontsize=6, loc="lower center", ncols=2)
    figure.suptitle(f"{pictures} pictures with noise of sigma {sigma:g}; above each, its best", fontsize=10)
    figure.tight_layout()
    figure.savefig(path, format="png")


def draw_pictures(columns: Mapping[str, Sequence[Pixels]], path: Path) -> None:
    """A column per name and a row per picture as PNG, nothing resampled; every column has as many pictures."""
    from matplotlib.figure import Figure

    down = len(next(iter(columns.values())))
    figure = Figure(figsize=(1.7 * len(columns), 1.75 * down + 0.5), dpi=110)
    grid = figure.subplots(down, len(columns), squeeze=False)
    for across, (name, pictures) in enumerate(columns.items()):
        for row, picture in zip(grid, pictures, strict=True):
            row[across].imshow(picture, interpolation="nearest")
            row[across].set_axis_off()
        grid[0][across].set_title(name.replace(",", "\n"), fontsize=8)
    figure.tight_layout()
    figure.savefig(path, format="png")


def _draw_unfiltered(axes: Axes, scores: Sequence[FilterScore]) -> None:
    for score in scores:
        if score.family == "identity":
            axes.axhline(score.psnr, color="grey", linewidth=1, label="no filter")


def _draw_numbers(axes: Axes, scores: Sequence[FilterScore]) -> None:
    """Filters with one number after the colon."""
    points = sorted((float(score.spec.partition(":")[2]), score.psnr) for score in scores)
    axes.plot(*zip(*points, strict=True), marker="o", markersize=4, label=scores[0].family)
    axes.set_xlabel(LABELS[scores[0].family])


def _draw_wavelets(axes: Axes, scores: Sequence[FilterScore]) -> None:
    """Against the level, one line for each wavelet and rule; of fixed thresholds the best at each level."""
    best: dict[tuple[str, str], dict[int, float]] = {}
    for score in scores:
        one = denoiser(score.spec)
        assert isinstance(one, Wavelet)
        line = best.setdefault((one.wavelet, one.rule or one.mode), {})
        level = one.level or 0
        line[level] = max(score.psnr, line.get(level, score.psnr))
    colours = {name: f"C{i}" for i, name in enumerate(dict.fromkeys(wavelet for wavelet, _ in best))}
    for (wavelet, rule), line in best.items():
        name = f"{wavelet}, {rule if rule in ('bayes', 'visu') else f'best {rule} threshold'}"
        axes.plot(
            *zip(*sorted(line.items()), strict=True),
            STYLES[rule],
            marker="o",
            markersize=3,
            color=colours[wavelet],
            label=name,
        )
    axes.set_xlabel("levels (0: as many as fit)")
    axes.set_xticks(sorted({level for line in best.values() for level in line}))
