"""`tune-filter` shows the sweep and the pictures."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli.command_line import Invoke


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    ramp = np.add.outer(np.linspace(40, 120, 40), np.linspace(0, 100, 40))
    for number in range(3):
        Image.fromarray(np.stack([ramp + 10 * number] * 3, axis=2).astype(np.uint8)).save(folder / f"{number}.png")
    return folder


def test_the_sweep_is_told_written_and_drawn(invoke: Invoke, photos: Path, tmp_path: Path) -> None:
    result = invoke("tune-filter", photos, "--sigma", "0.1", "--filter", "gaussian", "--filter", "median:5")
    assert result.exit_code == 0, result.stderr
    first, *best = result.stdout.splitlines()
    assert first.startswith("best of each family")
    assert {line.split()[0].partition(":")[0] for line in best[:3]} == {"gaussian", "median", "identity"}
    with (tmp_path / "filters" / "sweep.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 1 + 11 + 1
    found = {row["filter"]: float(row["psnr_db"]) for row in rows}
    assert best[0].split()[0] == max(found, key=lambda spec: found[spec])
    for name in ("sweep.png", "pictures.png"):
        with Image.open(tmp_path / "filters" / name) as figure:
            pixels = np.asarray(figure.convert("RGB"))
        assert min(pixels.shape[:2]) > 200
        assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 50


def test_wavelets_are_drawn_and_pictures_are_taken_at_the_working_size(
    invoke: Invoke, photos: Path, tmp_path: Path
) -> None:
    size = ("--working-size", "16x16", "--count", "2")
    result = invoke("tune-filter", photos, "--sigma", "0.1", "--filter", "wavelet", *size, "--out", "w")
    assert result.exit_code == 0, result.stderr
    assert "2 pictures, sigma 0.1" in result.stdout
    assert (tmp_path / "w" / "sweep.png").stat().st_size > 10_000


def test_a_folder_that_cannot_be_written_is_refused(invoke: Invoke, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = invoke("tune-filter", photos, "--sigma", "0.1", "--filter", "median:3", "--out", "file")
    assert result.exit_code == 2
    assert "file: cannot be written: " in result.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--sigma", "0.1", "--filter", "medain"), "unknown denoiser 'medain'; did you mean 'median'"),
        (("--sigma", "25.5"), "on the [0, 1] pixel scale"),
        (("--sigma", "0.1", "--working-size", "big"), "big"),
    ],
)
def test_what_cannot_be_tried_is_refused(
    invoke: Invoke, photos: Path, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    result = invoke("tune-filter", photos, *arguments)
    assert result.exit_code == 2
    assert said in result.stderr
    assert not (tmp_path / "filters").exists()
