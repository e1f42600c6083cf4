from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from smoothing_proxy.errors import ConfigError, ImageError
from smoothing_proxy.images.pixels import Limits, picture_files, read
from tests.images.handmade_pictures import COLOUR, RGB, saved


def test_reading_a_file_is_decoding_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "a.dat").write_bytes(saved(RGB, "PNG"))
    np.testing.assert_array_equal(read(tmp_path / "a.dat"), COLOUR)


@pytest.mark.parametrize("limits", [{"pixels": 0}, {"file_bytes": -1}, {"side_px": 0}, {"pixels": 10**9}])
def test_limits_that_limit_nothing_are_refused(limits: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="at least 1, and pixels at most"):
        Limits(**limits)


def touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")


def test_the_pictures_of_a_folder_come_sorted_without_hidden_ones(tmp_path: Path) -> None:
    shown = ["Z.PNG", "a.jpeg", "b.jpg", "b/c.webp", "b/d/e.TIFF", "b-.gif", "c.bmp"]
    for name in [
        *shown,
        "notes.txt",
        ".hidden.png",
        "._a.jpeg",
        ".thumbs/a.png",
        "b/.x/y.png",
        "png",
        "folder.png/x",
    ]:
        touch(tmp_path / name)
    found = [path.relative_to(tmp_path).as_posix() for path in picture_files(tmp_path)]
    assert found == ["Z.PNG", "a.jpeg", "b/c.webp", "b/d/e.TIFF", "b-.gif", "b.jpg", "c.bmp"]


def test_a_hidden_folder_that_is_asked_for_by_name_is_read(tmp_path: Path) -> None:
    touch(tmp_path / ".cache" / "a.png")
    assert picture_files(tmp_path / ".cache") == [tmp_path / ".cache" / "a.png"]


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda path: None, "no such folder"),
        (touch, "not a folder"),
        (Path.mkdir, "no picture in it"),
        (lambda path: touch(path / "a.txt"), "no picture in it"),
    ],
    ids=["missing", "a file", "empty", "no picture"],
)
def test_a_folder_without_pictures_is_refused(tmp_path: Path, make: Callable[[Path], None], why: str) -> None:
    make(tmp_path / "folder")
    with pytest.raises(ConfigError, match=why) as error:
        picture_files(tmp_path / "folder")
    assert str(tmp_path / "folder") in str(error.value)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda path: None, "no such file"),
        (Path.mkdir, "not a regular file"),
        (os.mkfifo, "not a regular file"),
        (touch, "the file is empty"),
    ],
    ids=["missing", "folder", "fifo", "empty"],
)
def test_what_is_no_file_is_refused_by_its_name(tmp_path: Path, make: Callable[[Path], None], why: str) -> None:
    make(tmp_path / "a.png")
    with pytest.raises(ImageError, match=why) as error:
        read(tmp_path / "a.png")
    assert str(tmp_path / "a.png") in str(error.value)
