"""Pictures of a folder and of a zip of it are the same pictures."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from smoothing_proxy.errors import ConfigError, ImageError
from smoothing_proxy.images.albums import open_album


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "album"
    for number, name in enumerate(("b/2.png", "a/1.png", "a/0.png", "b/.hidden.png", ".hidden/3.png")):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 5, 3), 10 * number, np.uint8)).save(path)
    (folder / "a" / "notes.txt").write_text("no picture")
    return folder


def zipped(folder: Path) -> Path:
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in folder.rglob("*"):
            archive.write(file, file.relative_to(folder))
    return path


def test_a_folder_and_its_zip_hold_the_same_pictures(folder: Path) -> None:
    albums = [open_album(folder), open_album(zipped(folder))]
    for album in albums:
        assert album.names == ("a/0.png", "a/1.png", "b/2.png")
        assert album.classes == ("a", "b")
        assert [int(picture[0, 0, 0]) for picture in album.read()] == [20, 10, 0]
        assert album.evenly(2).names == ("a/0.png", "a/1.png")
        assert album.evenly(0) == album.evenly(3) == album


def test_pictures_beside_the_folders_leave_no_classes(folder: Path) -> None:
    Image.fromarray(np.zeros((4, 5, 3), np.uint8)).save(folder / "loose.png")
    assert open_album(folder).classes == ()


@pytest.mark.parametrize(
    ("name", "said"),
    [("gone", "no such folder"), ("text.zip", "expected a folder or a zip"), ("empty.zip", "no picture in it")],
)
def test_what_holds_no_pictures_is_refused(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "text.zip").write_text("text")
    with zipfile.ZipFile(tmp_path / "empty.zip", "w") as archive:
        archive.writestr("notes.txt", "no picture")
    with pytest.raises(ConfigError, match=said):
        open_album(tmp_path / name)


def test_a_picture_that_cannot_be_decoded_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"broken\.png"):
        open_album(tmp_path).read()


def test_pictures_that_went_away_are_an_error_of_the_users(folder: Path) -> None:
    album = open_album(folder)
    (folder / "a" / "1.png").unlink()
    with pytest.raises(ConfigError, match="cannot be read"):
        album.read()
