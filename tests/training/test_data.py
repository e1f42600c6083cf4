from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from denoiser_training.data import digits, is_digits_test, load_pictures, split
from denoiser_training.data_settings import DataSettings
from smoothing_proxy.errors import ConfigError, ImageError


def settings(source: Path | str, working_size: str = "original", limit: int = 0) -> DataSettings:
    return DataSettings(source=str(source), license="test", crop_px=8, working_size=working_size, limit=limit)


def test_a_zip_holds_what_its_folder_holds(folder: Path, tmp_path: Path) -> None:
    archive = shutil.make_archive(str(tmp_path / "all"), "zip", folder)
    loose, zipped = load_pictures(settings(folder)), load_pictures(settings(archive))
    assert loose.names == zipped.names
    assert all(torch.equal(a, b) for a, b in zip(loose.pixels, zipped.pixels, strict=True))
    with Image.open(folder / loose.names[3]) as picture:
        assert np.array_equal(loose.pixels[3].permute(1, 2, 0), np.asarray(picture))


def test_sub_folders_are_classes_and_a_flat_folder_has_none(folder: Path) -> None:
    pictures = load_pictures(settings(folder))
    assert pictures.classes == ("cat", "dog")
    assert pictures.labels is not None
    assert pictures.labels.tolist() == [0] * 6 + [1] * 6
    flat = load_pictures(settings(folder / "cat"))
    assert (flat.labels, flat.classes, len(flat)) == (None, (), 6)


def test_pictures_get_the_working_size_of_certification(folder: Path) -> None:
    assert {tuple(p.shape) for p in load_pictures(settings(folder, "shorter=5")).pixels} == {(3, 6, 5)}


def test_a_limit_spreads_evenly_over_the_names(folder: Path) -> None:
    pictures = load_pictures(settings(folder, limit=4))
    assert pictures.names == ("cat/0.png", "cat/3.png", "dog/0.png", "dog/3.png")


def test_bad_sources_are_named(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for source, says in ((tmp_path / "none", "no such folder"), (tmp_path / "empty", "no pictures")):
        with pytest.raises(ConfigError, match=says):
            load_pictures(settings(source))
    (folder / "cat" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(ImageError, match=r"cat/broken\.png"):
        load_pictures(settings(folder))


def test_the_split_holds_out_each_kth_name_and_nothing_twice(folder: Path) -> None:
    training, validation = split(load_pictures(settings(folder)), 5)
    assert validation.names == ("cat/0.png", "cat/5.png", "dog/4.png")
    assert sorted(training.names + validation.names) == list(load_pictures(settings(folder)).names)
    assert validation.labels is not None
    assert validation.labels.tolist() == [0, 0, 1]


def test_training_never_sees_a_test_digit() -> None:
    pictures, bunch = digits(), load_digits()
    seen = {int(name.removeprefix("digit-")) for name in pictures.names}
    assert not any(is_digits_test(i) for i in seen)
    assert len(seen) + sum(map(is_digits_test, range(1797))) == 1797
    index = sorted(seen)[100]
    assert np.array_equal(pictures.pixels[100][1], np.rint(bunch.images[index] * 255 / 16))
