"""A study as one picture: accuracy as bars, or as a coloured grid where these would be too many; and scores."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from smoothing_proxy.redteam.study.cells import CERTIFIED
from smoothing_proxy.redteam.study.table import Line

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_study"]

COLUMNS = 2
"""Of the legend."""

WIDTH = 0.85
"""Of a group of bars; the rest is the gap to the next."""


MANY = 60
"""Figures that would be bars too thin to read."""


def draw_study(name: str, lines: Sequence[Line], path: Path) -> None:
    """Write the picture as PNG, whole or not at all."""
    from matplotlib.figure import Figure

    rows, columns = _names(line.row.name for line in lines), _names(line.column for line in lines)
    scored = [line for line in lines if not math.isnan(line.score)]
    grid = len(rows) * len(columns) > MANY
    above = 1.6 + 0.36 * len(rows) if grid else 4.0
    heights = [above, 0.6 + 0.3 * len(scored)] if scored else [above]
    width = 3.0 + 0.62 * len(columns) if grid else max(7.0, 1.5 + 0.16 * len(columns) * (len(rows) + 2))
    figure = Figure(figsize=(width, sum(heights) + 1.0), dpi=110)
    axes = figure.subplots(len(heights), 1, squeeze=False, gridspec_kw={"height_ratios": heights})[:, 0]
    (_draw_grid if grid else _draw_bars)(axes[0], lines, rows, columns)
    axes[0].set_title(name, fontsize=10)
    if scored:
        _draw_scores(axes[1], scored, rows)
    figure.tight_layout()
    part = path.with_name(path.name + ".part")
    figure.savefig(part, format="png")
    part.replace(path)


def _draw_bars(axes: Axes, lines: Sequence[Line], rows: Sequence[str], columns: Sequence[str]) -> None:
    bar = WIDTH / max(1, len(rows))
    for number, row in enumerate(rows):
        mine = [line for line in lines if line.row.name == row]
        axes.bar(
            [columns.index(line.column) + (number + 0.5) * bar - WIDTH / 2 for line in mine],
            [100 * line.accuracy.value for line in mine],
            bar,
            yerr=[
                [100 * (line.accuracy.value - line.accuracy.low) for line in mine],
                [100 * (line.accuracy.high - line.accuracy.value) for line in mine],
            ],
            error_kw={"linewidth": 0.7},
            color=_colour(number),
            hatch=["//" if line.column.startswith(CERTIFIED) else "" for line in mine],
            edgecolor="white",
            linewidth=0.4,
            label=row,
        )
    axes.set_xticks(range(len(columns)), columns, fontsize=8, rotation=20 if len(columns) > 6 else 0)
    axes.set(ylim=(0, 104), ylabel="accuracy, %")
    axes.legend(fontsize=7, ncols=COLUMNS, loc="upper left", bbox_to_anchor=(0.0, -0.16))
    axes.grid(axis="y", linewidth=0.3)


def _draw_grid(axes: Axes, lines: Sequence[Line], rows: Sequence[str], columns: Sequence[str]) -> None:
    import numpy as np

    shown = np.full((len(rows), len(columns)), np.nan)
    for line in lines:
        shown[rows.index(line.row.name), columns.index(line.column)] = 100 * line.accuracy.value
    axes.imshow(shown, cmap="RdYlGn", vmin=0, vmax=100, aspect="auto")
    for (row, column), value in np.ndenumerate(shown):
        if not math.isnan(value):
            axes.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=8)
    axes.set_xticks(range(len(columns)), columns, fontsize=8, rotation=35, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(rows)), rows, fontsize=8)
    axes.set_xlabel("accuracy, %")


def _draw_scores(axes: Axes, scored: Sequence[Line], rows: Sequence[str]) -> None:
    several = len({line.column for line in scored}) > 1
    names = [f"{line.row.name}{f', {line.column}' if several else ''}" for line in scored]
    colours = [_colour(rows.index(line.row.name)) for line in scored]
    axes.barh(range(len(scored)), [line.score for line in scored], color=colours)
    axes.set_yticks(range(len(scored)), names, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("score: clean accuracy x mean l2 distance of the aimed attack")


def _colour(number: int) -> tuple[float, ...]:
    from matplotlib import colormaps

    return tuple(colormaps["tab20"](number % 20))


def _names(found: Iterable[str]) -> list[str]:
    """Each once, in the order in which they come."""
    return list(dict.fromkeys(found))
