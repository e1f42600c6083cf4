from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from denoiser_training.data import load_pictures
from denoiser_training.data_settings import DataSettings
from denoiser_training.picture_cache import cache_folder, read_cache
from denoiser_training.pictures import Pictures
from smoothing_proxy.errors import ConfigError


def settings(source: Path | str, cache: Path | None, **fields: Any) -> DataSettings:
    kept = None if cache is None else str(cache)
    return DataSettings(source=str(source), license="test", crop_px=8, cache=kept, **fields)


def same(one: Pictures, other: Pictures) -> bool:
    pairs = zip(one.pixels, other.pixels, strict=True)
    labels = [None if p.labels is None else p.labels.tolist() for p in (one, other)]
    return (one.names, one.classes, labels[0]) == (other.names, other.classes, labels[1]) and all(
        torch.equal(a, b) for a, b in pairs
    )


@pytest.fixture
def archive(folder: Path, tmp_path: Path) -> Path:
    """The pictures of `folder` as a zip; some have labels and sizes of their own."""
    (folder / "dog" / "5.png").unlink()
    return Path(shutil.make_archive(str(tmp_path / "all"), "zip", folder))


def decoding_fails(*_: object, **__: object) -> None:
    raise AssertionError("a picture was decoded")


@pytest.mark.parametrize("fields", [{}, {"working_size": "shorter=9"}, {"limit": 3}, {"test_every": 2}])
def test_the_second_run_decodes_nothing_and_sees_the_same(
    archive: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any]
) -> None:
    for source in (archive, folder, folder / "cat", archive.as_uri()):
        asked = settings(source, tmp_path / "kept", **fields)
        first = load_pictures(asked)
        with monkeypatch.context() as patch:
            patch.setattr("denoiser_training.sources.decode", decoding_fails)
            assert same(load_pictures(asked), first)
        assert same(load_pictures(asked.model_copy(update={"cache": ""})), first)
    assert len(list((tmp_path / "kept").iterdir())) == 4


def test_every_choice_has_a_file_of_its_own(archive: Path, tmp_path: Path) -> None:
    for fields in ({}, {"limit": 3}, {"test_every": 3}, {"working_size": "shorter=9"}):
        load_pictures(settings(archive, tmp_path / "kept", **fields))
    names = sorted(path.name for path in (tmp_path / "kept").iterdir())
    assert len(names) == 4
    assert all(name.startswith("all-zip-") and name.endswith(".safetensors") for name in names)


def test_a_source_that_changed_is_read_again_in_the_place_of_the_old(folder: Path, tmp_path: Path) -> None:
    asked = settings(folder, tmp_path / "kept")
    assert len(load_pictures(asked)) == 12
    (folder / "dog" / "5.png").unlink()
    assert len(load_pictures(asked)) == 11
    shutil.copy(folder / "dog" / "0.png", folder / "cat" / "0.png")
    os.utime(folder / "cat" / "0.png", ns=(1, 1))
    changed = load_pictures(asked)
    assert torch.equal(changed.pixels[0], changed.pixels[6])
    assert len(list((tmp_path / "kept").iterdir())) == 1


@pytest.mark.parametrize("damage", ["emptied", "cut", "one bit", "other header"])
def test_a_damaged_file_is_made_again(folder: Path, tmp_path: Path, damage: str) -> None:
    asked = settings(folder, tmp_path / "kept")
    first = load_pictures(asked)
    (file,) = (tmp_path / "kept").iterdir()
    whole = file.read_bytes()
    flipped = bytearray(whole)
    flipped[-100] ^= 1
    file.unlink()
    file.write_bytes(
        {"emptied": b"", "cut": whole[:-7], "one bit": bytes(flipped), "other header": b"\xff" * 64}[damage]
    )
    assert read_cache(file) is None
    assert same(load_pictures(asked), first)
    assert file.read_bytes() == whole


def test_the_users_own_cache_folder_is_the_default_and_needs_no_room(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    assert len(load_pictures(settings(folder, None))) == 12
    assert len(list((tmp_path / "user" / "smoothing-proxy" / "training").iterdir())) == 1
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert len(load_pictures(settings(folder, None))) == 12
    with pytest.raises(ConfigError, match=r"data\.cache .*cannot be written"):
        load_pictures(settings(folder, tmp_path / "file" / "cache"))


@pytest.mark.parametrize(
    ("environment", "platform", "folder"),
    [
        ({"HOME": "/h"}, "linux", "/h/.cache"),
        ({"HOME": "/h", "XDG_CACHE_HOME": "/x"}, "linux", "/x"),
        ({"HOME": "/h"}, "darwin", "/h/Library/Caches"),
        ({"USERPROFILE": "/u", "LOCALAPPDATA": "/l"}, "win32", "/l"),
        ({}, "linux", None),
    ],
)
def test_each_system_has_its_own_cache_folder(
    environment: dict[str, str], platform: str, folder: str | None
) -> None:
    expected = None if folder is None else Path(folder) / "smoothing-proxy" / "training"
    assert cache_folder(environment, platform) == expected
