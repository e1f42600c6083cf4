"""A study's picture: bars where there are few figures, a coloured grid with numbers where there are many."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from smoothing_proxy.redteam.study.config import ClassifierEntry, DefenceEntry, Row
from smoothing_proxy.redteam.study.figure import draw_study
from smoothing_proxy.redteam.study.table import Line
from smoothing_proxy.stats.curves import share_of

GREEN, RED = (0, 104, 55), (165, 0, 38)
"""The two ends of its colours."""


def figures(rows: int, columns: int) -> list[Line]:
    """The first row always right, the last one never; a figure is missing."""
    classifier = ClassifierEntry(name="net", network="local:none")
    found = []
    for number in range(rows):
        row = Row(defence=DefenceEntry(name=f"defence {number}", classifiers=("net",)), classifier=classifier)
        right = 0 if number == rows - 1 else 20
        found += [Line(row, f"attack {column}", share_of(right, 20)) for column in range(columns)]
    return found[:-1]


def drawn(path: Path, lines: list[Line]) -> np.ndarray:
    draw_study("many", lines, path)
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def area(pixels: np.ndarray, colour: tuple[int, int, int]) -> float:
    return float((np.abs(pixels.astype(int) - colour).max(axis=2) <= 2).mean())


@pytest.mark.parametrize(("rows", "columns", "is_grid"), [(3, 4, False), (8, 15, True)])
def test_many_figures_become_a_grid_that_fits_a_page(
    tmp_path: Path, rows: int, columns: int, is_grid: bool
) -> None:
    pixels = drawn(tmp_path / "many.png", figures(rows, columns))
    assert pixels.shape[1] < 1500
    assert (area(pixels, GREEN) > 0.2) == is_grid
    assert (area(pixels, RED) > 0.01) == is_grid
    if is_grid:
        cells = area(pixels, GREEN) / area(pixels, RED)
        assert cells == pytest.approx((rows - 1) * columns / (columns - 1), rel=0.1), "the missing one stays white"
