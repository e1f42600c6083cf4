from __future__ import annotations

import io
import math
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from smoothing_proxy.errors import ConfigError, DenoiserError, ImageError
from smoothing_proxy.images import pixels as canonical
from smoothing_proxy.images.codec import QUALITIES, EncodedImage, Encoding, decode, encode, quantise

PICTURES = arrays.arrays(
    np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40), st.just(3)), elements=st.integers(0, 255)
)


def smooth(height: int, width: int) -> np.ndarray:
    random = np.random.default_rng(3).uniform(0, 255, (height, width, 3)).astype(np.float32)
    return np.asarray(cv2.GaussianBlur(random, (0, 0), 3)).astype(np.uint8)


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("raw", Encoding("raw")),
        ("png", Encoding("png")),
        ("jpeg:95", Encoding("jpeg", 95)),
        ("jpeg:1", Encoding("jpeg", 1)),
    ],
)
def test_an_encoding_reads_back_as_it_was_written(text: str, encoding: Encoding) -> None:
    assert Encoding.parse(text) == encoding
    assert str(encoding) == text
    assert Encoding.parse(text, min_side_px=80) == replace(encoding, min_side_px=80)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("pgn", "unknown picture format 'pgn'; did you mean 'png'"),
        ("jpg", "did you mean 'jpeg'"),
        ("", "known: jpeg, png, raw"),
        ("png:9", "expected 'raw', 'png', 'jpeg'"),
        ("jpeg:", "expected"),
        ("jpeg:best", "expected"),
        ("jpeg:0", "from 1 to 100"),
        ("jpeg:101", "from 1 to 100"),
    ],
)
def test_an_encoding_that_is_none_is_refused(text: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        Encoding.parse(text)


@pytest.mark.parametrize("side", [-1, 10_001])
def test_a_smallest_side_out_of_range_is_refused(side: int) -> None:
    with pytest.raises(ConfigError, match="from 0 to 10000"):
        Encoding("png", min_side_px=side)


@pytest.mark.parametrize(
    ("value", "level"),
    [
        (-3.0, 0),
        (0.0, 0),
        (0.49 / 255, 0),
        (0.5 / 255, 1),
        (1.5 / 255, 2),
        (254.4 / 255, 254),
        (1.0, 255),
        (7.0, 255),
        (3e38, 255),
    ],
)
def test_values_are_clipped_and_go_to_the_nearest_level(value: float, level: int) -> None:
    images = np.full((2, 3, 4, 3), value, dtype=np.float32)
    assert np.array_equal(quantise(images), np.full((2, 3, 4, 3), level, dtype=np.uint8))


def test_quantising_gives_every_level_back_and_leaves_its_input_alone() -> None:
    levels = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 16, 16, 3)
    images = levels.astype(np.float32) / np.float32(255)
    before = images.copy()
    assert np.array_equal(quantise(images), levels)
    assert np.array_equal(images, before)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_denoiser_that_yields_no_number_is_not_taken_for_a_picture(bad: float) -> None:
    images = np.zeros((3, 4, 4, 3), dtype=np.float32)
    images[1, 2, 3, 0] = bad
    with pytest.raises(DenoiserError, match="not finite"):
        quantise(images)


@given(PICTURES)
def test_png_and_raw_are_lossless_for_us_for_pillow_and_for_opencv(pixels: np.ndarray) -> None:
    for encoding in (Encoding("raw"), Encoding("png")):
        copy = encode(pixels, encoding)
        assert (copy.height, copy.width, copy.format) == (*pixels.shape[:2], encoding.format)
        assert np.array_equal(decode(copy), pixels)
    png = encode(pixels, Encoding("png")).data
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(png)).convert("RGB")), pixels)
    read_by_opencv = np.asarray(cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR))
    assert np.array_equal(read_by_opencv[:, :, ::-1], pixels)


def test_raw_is_decoded_without_a_copy() -> None:
    copy = encode(smooth(30, 20), Encoding("raw"))
    assert np.shares_memory(decode(copy), np.frombuffer(copy.data, np.uint8))
    assert not decode(copy).flags.writeable


def sampling_factors(jpeg: bytes) -> list[tuple[int, int]]:
    """(horizontal, vertical) of each component, from the baseline frame header (ITU T.81, B.2.2)."""
    at = 2
    while jpeg[at + 1] != 0xC0:
        at += 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")
    components = jpeg[at + 9]
    packed = [jpeg[at + 11 + 3 * index] for index in range(components)]
    return [(byte >> 4, byte & 15) for byte in packed]


@pytest.mark.parametrize("quality", [30, 95, 100])
def test_jpeg_keeps_its_colour_at_full_resolution(quality: int) -> None:
    pixels = smooth(61, 83)
    copy = encode(pixels, Encoding("jpeg", quality))
    assert sampling_factors(copy.data) == [(1, 1), (1, 1), (1, 1)]
    error = np.abs(decode(copy).astype(int) - pixels).mean()
    assert error < (6 if quality == 30 else 1.5)


def test_jpeg_quality_is_what_was_asked_for() -> None:
    pixels = smooth(64, 64)
    ours = encode(pixels, Encoding("jpeg", 87)).data
    reference = io.BytesIO()
    Image.fromarray(pixels).save(reference, "JPEG", quality=87, subsampling=0)
    tables = [Image.open(io.BytesIO(data)).quantization for data in (ours, reference.getvalue())]  # type: ignore[attr-defined]
    assert tables[0] == tables[1]


@pytest.mark.parametrize("encoding", [Encoding("raw"), Encoding("png"), Encoding("jpeg", 90, min_side_px=70)])
def test_equal_pictures_give_equal_bytes(encoding: Encoding) -> None:
    pixels = smooth(60, 50)
    assert encode(pixels, encoding) == encode(np.asfortranarray(pixels.copy()), encoding)


@pytest.mark.parametrize(
    ("size", "least", "becomes"),
    [
        ((8, 8), 80, (80, 80)),
        ((100, 50), 80, (160, 80)),
        ((50, 101), 80, (80, 162)),
        ((80, 500), 80, (80, 500)),
        ((8, 8), 0, (8, 8)),
    ],
)
def test_small_pictures_are_enlarged_to_the_smallest_side(
    size: tuple[int, int], least: int, becomes: tuple[int, int]
) -> None:
    pixels = smooth(*size)
    copy = encode(pixels, Encoding("png", min_side_px=least))
    assert (copy.height, copy.width) == becomes
    enlarged = decode(copy)
    assert enlarged.shape == (*becomes, 3)
    reference = Image.fromarray(pixels).resize(becomes[::-1], Image.Resampling.BILINEAR)
    assert np.abs(enlarged.astype(int) - np.asarray(reference)).max() <= 1


def test_enlarging_has_an_end() -> None:
    with pytest.raises(ImageError, match="cannot be enlarged"):
        encode(np.zeros((1, 30_000, 3), np.uint8), Encoding("raw", min_side_px=80))
    with pytest.raises(ImageError, match="too long for JPEG"):
        encode(np.zeros((1, 70_000, 3), np.uint8), Encoding("jpeg"))


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 4, 3)),
    ],
)
def test_only_a_canonical_picture_is_encoded(pixels: np.ndarray) -> None:
    with pytest.raises(ImageError, match=r"where uint8 \[h, w, 3\] is expected"):
        encode(pixels, Encoding("png"))


@pytest.mark.parametrize(
    "copy",
    [
        EncodedImage(bytes(11), "raw", 2, 2),
        EncodedImage(b"not a picture", "png", 2, 2),
        EncodedImage(encode(np.zeros((3, 2, 3), np.uint8), Encoding("png")).data, "png", 2, 2),
    ],
)
def test_a_copy_that_is_not_what_it_says_is_refused(copy: EncodedImage) -> None:
    with pytest.raises(ImageError):
        decode(copy)


def test_real_pictures_survive_the_png_codec_bit_by_bit(shared_data: Path) -> None:
    for file in canonical.picture_files(shared_data / "imagenet-sample")[:5]:
        pixels = canonical.read(file)
        assert np.array_equal(decode(encode(pixels, Encoding("png"))), pixels)


NOISE = np.random.default_rng(5).integers(0, 256, (120, 200, 3), np.uint8)


@pytest.mark.parametrize(
    ("encoding", "kind", "size"),
    [
        (Encoding("png", max_bytes=80_000), "png", (120, 200)),
        (Encoding("png", max_bytes=60_000), "jpeg", (120, 200)),
        (Encoding("png", max_bytes=10_000), "jpeg", (60, 100)),
        (Encoding("jpeg", 90, max_bytes=30_000), "jpeg", (120, 200)),
        (Encoding("png", max_side_px=200), "png", (120, 200)),
        (Encoding("png", max_side_px=150), "png", (90, 150)),
        (Encoding("png", max_side_px=40), "png", (24, 40)),
        (Encoding("raw", max_bytes=100, max_side_px=150), "raw", (90, 150)),
        (Encoding("jpeg", max_side_px=150, max_bytes=9_000, min_side_px=40), "jpeg", (45, 75)),
    ],
)
def test_a_copy_is_made_to_fit_in_one_way(encoding: Encoding, kind: str, size: tuple[int, int]) -> None:
    copy = encode(NOISE, encoding)
    assert (copy.format, copy.height, copy.width) == (kind, *size)
    assert kind == "raw" or not encoding.max_bytes or len(copy.data) <= encoding.max_bytes
    assert encode(NOISE, encoding) == copy
    assert decode(copy).shape == (*size, 3)
    assert abs(decode(copy).mean() - NOISE.mean()) < 3


@pytest.mark.parametrize("encoding", [Encoding("png"), Encoding("jpeg", 95), Encoding("jpeg", 80)])
def test_a_copy_that_fits_is_the_same_whatever_the_limits(encoding: Encoding) -> None:
    free = encode(NOISE, encoding)
    assert encode(NOISE, replace(encoding, max_side_px=200, max_bytes=len(free.data))) == free
    smaller = encode(NOISE, replace(encoding, max_bytes=len(free.data) - 1))
    assert len(smaller.data) < len(free.data)


@pytest.mark.parametrize("encoding", [Encoding("jpeg", 95), Encoding("jpeg", 70)])
def test_fitting_never_raises_the_quality(encoding: Encoding) -> None:
    limit = len(encode(NOISE, encoding).data) - 1
    copy = encode(NOISE, replace(encoding, max_bytes=limit))
    below = max(quality for quality in QUALITIES if quality < encoding.quality)
    assert copy == encode(NOISE, Encoding("jpeg", below))


@pytest.mark.parametrize(
    ("size", "encoding"),
    [
        ((100, 100), Encoding("png", min_side_px=80, max_bytes=3_000)),
        ((2, 100), Encoding("png", min_side_px=80, max_side_px=1_000)),
        ((1, 100), Encoding("png", max_side_px=50)),
    ],
)
def test_what_nothing_makes_fit_is_said(size: tuple[int, int], encoding: Encoding) -> None:
    pixels = np.random.default_rng(5).integers(0, 256, (*size, 3), np.uint8)
    with pytest.raises(ImageError, match=r"no encoding makes a copy of .* fit"):
        encode(pixels, encoding)


@pytest.mark.parametrize(
    "limits", [{"max_bytes": -1}, {"max_side_px": -1}, {"min_side_px": 80, "max_side_px": 79}]
)
def test_limits_that_contradict_each_other_are_refused(limits: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="no limit"):
        Encoding("png", **limits)


def test_two_encodings_limits_hold_both() -> None:
    yours, theirs = Encoding("jpeg", 90, 10, 0, 500), Encoding("png", 95, 80, 1000, 400)
    assert yours.within(theirs) == Encoding("jpeg", 90, 80, 1000, 400)
