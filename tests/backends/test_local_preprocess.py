from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import functional  # type: ignore[import-untyped]

from smoothing_proxy.backends.local.preprocess import Preprocess
from smoothing_proxy.errors import ConfigError, RequestRejectedError
from smoothing_proxy.settings_file import parse_settings
from tests.backends.backend_asking import noise_pictures


@pytest.mark.parametrize(
    ("height", "width"), [(300, 400), (401, 263), (100, 57), (256, 256), (225, 224), (256, 700)]
)
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_resize_and_crop_are_those_of_torchvision_on_pil_pictures(
    height: int, width: int, interpolation: str
) -> None:
    picture = noise_pictures(1, height, width)
    resized = functional.resize(Image.fromarray(picture[0]), [256], functional.InterpolationMode(interpolation))
    expected = np.asarray(functional.center_crop(resized, [224]))
    fitted = parse_settings(Preprocess, {"size": 224, "interpolation": interpolation}, source="test").fit(picture)
    np.testing.assert_array_equal(fitted[0], expected)


@pytest.mark.parametrize("mode", ["resize-crop", "stretch", "none"])
def test_a_picture_of_the_right_size_is_left_as_it_is(mode: str) -> None:
    pictures = noise_pictures(3, 12, 20)
    preprocess = parse_settings(Preprocess, {"size": [12, 20], "mode": mode}, source="test")
    np.testing.assert_array_equal(preprocess.fit(pictures), pictures)


@pytest.mark.parametrize(
    ("settings", "shape"),
    [
        ({}, (30, 40)),
        ({"size": 12}, (12, 12)),
        ({"size": [12, 20]}, (12, 20)),
        ({"size": [20, 12], "resize": 12}, (20, 12)),
        ({"size": [12, 64], "resize": 64}, (12, 64)),
        ({"size": [16, 7], "mode": "stretch"}, (16, 7)),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_mode_gives_the_size(settings: dict[str, Any], shape: tuple[int, int], channels: int) -> None:
    preprocess = parse_settings(Preprocess, {**settings, "channels": channels}, source="test")
    assert preprocess.fit(noise_pictures(2, 30, 40)).shape == (2, *shape, channels)


def test_stretch_is_pillows_resize() -> None:
    picture = noise_pictures(1, 30, 40)
    expected = np.asarray(Image.fromarray(picture[0]).resize((7, 16), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(Preprocess(size=(16, 7), mode="stretch").fit(picture)[0], expected)


def test_the_crop_keeps_the_centre() -> None:
    picture = np.zeros((1, 14, 24, 3), np.uint8)
    picture[0, 2:12, 7:17] = 255
    assert Preprocess(size=(10, 10), resize=14).fit(picture).min() == 255


def test_another_size_is_rejected_where_nothing_may_be_resized() -> None:
    with pytest.raises(RequestRejectedError, match="30x40 pixels and the classifier takes 12x12; set mode"):
        Preprocess(size=(12, 12), mode="none").fit(noise_pictures(1, 30, 40))


def test_grey_is_pillows_and_exact_where_the_channels_are_equal() -> None:
    pictures = noise_pictures(2, 30, 40)
    expected = [np.asarray(Image.fromarray(picture).convert("L")) for picture in pictures]
    np.testing.assert_array_equal(Preprocess(channels=1).fit(pictures)[..., 0], expected)
    equal = np.repeat(np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1), 3, axis=3)
    np.testing.assert_array_equal(Preprocess(channels=1).fit(equal), equal[..., :1])


@pytest.mark.parametrize(
    ("settings", "scale", "mean", "std"),
    [
        ({}, 1.0, 0.0, 1.0),
        ({"scale": 255.0}, 255.0, 0.0, 1.0),
        ({"scale": 16.0, "channels": 1}, 16.0, 0.0, 1.0),
        ({"mean": 0.5, "std": 0.25}, 1.0, 0.5, 0.25),
        ({"mean": [0.1, 0.2, 0.3], "std": [1, 2, 3]}, 1.0, [0.1, 0.2, 0.3], [1, 2, 3]),
    ],
)
def test_normalising_is_scale_then_mean_then_std(
    settings: dict[str, Any], scale: float, mean: Any, std: Any
) -> None:
    preprocess = parse_settings(Preprocess, settings, source="test")
    pictures = noise_pictures(2, 5, 6)
    expected = (preprocess.fit(pictures) / 255.0 * scale - np.asarray(mean)) / np.asarray(std)
    values = preprocess.normalise(pictures)
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"sise": 12}, "did you mean 'size'"),
        ({"size": 0}, "at least 1 px"),
        ({"size": [12, 12, 3]}, "size"),
        ({"size": 224, "resize": 200}, "at least its own shorter side"),
        ({"mode": "crop"}, "mode"),
        ({"channels": 2}, "channels"),
        ({"mean": [0.5, 0.5]}, "mean: one number, or one for each of 3 channels"),
        ({"mean": [0.5, 0.5, 0.5], "channels": 1}, "mean: one number, or one for each of 1 channels"),
        ({"std": 0.0}, "std: must be above 0"),
        ({"scale": 0.0}, "scale"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], fault: str) -> None:
    with pytest.raises(ConfigError, match=fault):
        parse_settings(Preprocess, settings, source="test")


def test_what_the_file_says_fills_in_what_the_user_left_out() -> None:
    said = parse_settings(Preprocess, {"size": 12, "mean": 0.5}, source="test")
    filled = said.filled(size=(224, 224), mean=(0.1,), std=(0.2,), channels=None)
    assert (filled.size, filled.mean, filled.std, filled.channels) == ((12, 12), (0.5,), (0.2,), 3)
