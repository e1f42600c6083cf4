"""`denoise` shows what the classifier will be shown."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli.command_line import Invoke


def test_clean_noisy_and_denoised_stand_side_by_side(invoke: Invoke, tmp_path: Path) -> None:
    clean = np.full((40, 30, 3), 100, np.uint8)
    Image.fromarray(clean).save("photo.png")
    result = invoke("denoise", "photo.png", "--sigma", "0.1", "--denoiser", "gaussian:3")
    assert result.exit_code == 0, result.stderr
    with Image.open("photo.denoised.png") as strip:
        panels = np.asarray(strip)
    assert panels.shape == (40, 3 * 30 + 2 * 6, 3)
    shown = [panels[:, start : start + 30].astype(float) for start in (0, 36, 72)]
    assert (shown[0] == 100).all()
    assert 20 < shown[1].std() < 30, "sigma .1 is 25.5 levels"
    assert shown[2].std() < 6


def test_sigma_outside_the_card_is_refused_with_what_would_do(invoke: Invoke, folder: Path) -> None:
    result = invoke("denoise", folder / "0.png", "--sigma", "2", "--denoiser", "digits")
    assert result.exit_code == 2
    assert "digits: trained for sigma" in result.stderr
    assert "wavelet:haar" in result.stderr


@pytest.mark.parametrize(
    ("side", "sigma", "chosen"),
    [
        (8, 0.25, "digits"),
        (32, 0.25, "cifar10"),
        (32, 0.9, "cifar10-wide"),
        (40, 0.25, "natural"),
        (40, 2, "median:3"),
    ],
)
def test_without_a_name_the_shipped_denoiser_that_fits_picture_and_noise_is_taken(
    invoke: Invoke, tmp_path: Path, side: int, sigma: float, chosen: str
) -> None:
    Image.fromarray(np.full((side, side, 3), 100, np.uint8)).save("photo.png")
    result = invoke("denoise", "photo.png", "--sigma", str(sigma))
    assert result.exit_code == 0, result.stderr
    assert result.stdout.rstrip().endswith(f"sigma {sigma:g} | {chosen}")


def test_a_strip_that_cannot_be_written_is_named(invoke: Invoke, folder: Path) -> None:
    result = invoke("denoise", folder / "0.png", "--sigma", "0.1", "--denoiser", "median:3", "--out", "none/x.png")
    assert result.exit_code == 2
    assert "--out none/x.png: cannot be written: No such file or directory" in result.stderr
