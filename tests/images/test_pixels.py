from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from smoothing_proxy.images.pixels import decode, pixels_sha256
from tests.images.handmade_pictures import (
    ALPHA,
    COLOUR,
    DEEP,
    DEEP_COLOUR,
    GREY,
    PALETTE,
    PALETTE_COLOUR,
    RGB,
    H,
    W,
    png,
    saved,
    three,
    tiff,
)


def on_white(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    opacity = alpha[:, :, None] / 255
    return np.floor(colour * opacity + 255 * (1 - opacity) + 0.5)


def by_opencv(suffix: str, array: np.ndarray) -> bytes:
    return bytes(np.asarray(cv2.imencode(suffix, array)[1]).tobytes())


LOSSLESS = {
    "png": (saved(RGB, "PNG"), COLOUR),
    "grey png": (by_opencv(".png", GREY), three(GREY)),
    "bmp": (saved(RGB, "BMP"), COLOUR),
    "webp": (saved(RGB, "WEBP", lossless=True), COLOUR),
    "tiff": (saved(RGB, "TIFF"), COLOUR),
    "tiff, deflate": (saved(RGB, "TIFF", compression="tiff_adobe_deflate"), COLOUR),
    "tiff, lzw": (saved(RGB, "TIFF", compression="tiff_lzw"), COLOUR),
    "grey tiff": (saved(Image.fromarray(GREY), "TIFF"), three(GREY)),
    "palette png": (saved(PALETTE, "PNG"), PALETTE_COLOUR),
    "palette gif": (saved(PALETTE, "GIF"), PALETTE_COLOUR),
    "palette tiff": (saved(PALETTE, "TIFF"), PALETTE_COLOUR),
    "palette bmp": (saved(PALETTE, "BMP"), PALETTE_COLOUR),
    "1-bit png": (saved(Image.fromarray(GREY > 99), "PNG"), three((GREY > 99) * np.uint8(255))),
    "1-bit fax tiff": (saved(Image.fromarray(GREY > 99), "TIFF", compression="group4"), three((GREY > 99) * 255)),
    "2-bit grey png": (
        png(2, 0, [bytes([0b00011011])] * 2, width=4),
        np.tile([[[0], [85], [170], [255]]], (2, 1, 3)),
    ),
    "16-bit grey png": (saved(Image.fromarray(DEEP), "PNG"), three(DEEP >> 8)),
    "16-bit grey tiff": (saved(Image.fromarray(DEEP), "TIFF"), three(DEEP >> 8)),
    "16-bit colour png": (by_opencv(".png", DEEP_COLOUR), DEEP_COLOUR[:, :, ::-1] >> 8),
    "16-bit colour tiff": (by_opencv(".tiff", DEEP_COLOUR), DEEP_COLOUR[:, :, ::-1] >> 8),
    "float tiff": (saved(Image.fromarray(GREY.astype(np.float32) / 255), "TIFF"), three(GREY)),
    "YCbCr tiff": (
        saved(RGB.convert("YCbCr"), "TIFF"),
        np.asarray(RGB.convert("YCbCr").convert("RGB")),
    ),
    "CMYK tiff": (saved(RGB.convert("CMYK"), "TIFF"), COLOUR),
}


@pytest.mark.parametrize(("data", "expected"), LOSSLESS.values(), ids=LOSSLESS)
def test_each_kind_of_file_has_one_canonical_form(data: bytes, expected: np.ndarray) -> None:
    pixels = decode(data)
    np.testing.assert_array_equal(pixels, expected)
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    assert not pixels.flags.writeable


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (saved(RGB.resize((64, 48)), "JPEG", quality=100, subsampling=0), RGB.resize((64, 48))),
        (saved(RGB.resize((64, 48)), "JPEG", quality=100, subsampling=0, progressive=True), RGB.resize((64, 48))),
        (saved(RGB.resize((64, 48)).convert("L"), "JPEG", quality=100), RGB.resize((64, 48)).convert("L")),
        (saved(RGB.resize((64, 48)).convert("CMYK"), "JPEG", quality=100, subsampling=0), RGB.resize((64, 48))),
        (saved(RGB.resize((64, 48)), "WEBP", quality=100), None),
    ],
    ids=["jpeg", "progressive jpeg", "grey jpeg", "Adobe's inverted CMYK jpeg", "lossy webp"],
)
def test_lossy_files_come_back_nearly_as_they_were(data: bytes, expected: Image.Image | None) -> None:
    pixels = decode(data)
    reference = (expected or RGB.resize((64, 48))).convert("RGB")
    assert np.abs(pixels.astype(int) - np.asarray(reference)).mean() < (3 if expected else 30)


def test_sixteen_bits_are_never_off_by_more_than_one_level() -> None:
    exact = DEEP / 65535 * 255
    assert np.abs(decode(saved(Image.fromarray(DEEP), "PNG"))[:, :, 0] - exact).max() < 1


def test_a_tiff_whose_zero_is_white_is_not_read_as_a_negative() -> None:
    data = tiff(16, 0, DEEP.astype("<u2").tobytes(), H, W)
    np.testing.assert_array_equal(decode(data), three((65535 - DEEP) >> 8))


def test_floating_point_pixels_whose_zero_is_white_are_not_read_as_a_negative() -> None:
    image = Image.fromarray(GREY.astype(np.float32) / 255)
    np.testing.assert_array_equal(decode(saved(image, "TIFF", tiffinfo={262: 0})), three(255 - GREY))


def test_twelve_bits_fill_the_scale() -> None:
    data = tiff(12, 1, bytes.fromhex("000fff800123"), 2, 2)
    np.testing.assert_array_equal(decode(data)[:, :, 0], [[0, 255], [128, 18]])


def unlike(array: np.ndarray, value: np.generic | np.ndarray) -> np.ndarray:
    """Alpha that is 0 where the array has this value."""
    differs = np.not_equal(array, value)
    return np.asarray(255 * (differs.any(axis=2) if array.ndim == 3 else differs))


def deep_png(colour_type: int, samples: np.ndarray, transparent: np.ndarray) -> bytes:
    rows = [row.astype(">u2").tobytes() for row in samples]
    return png(16, colour_type, rows, (b"tRNS", np.atleast_1d(transparent).astype(">u2").tobytes()))


RGBA = Image.merge("RGBA", (*RGB.split(), Image.fromarray(ALPHA)))
LA = Image.merge("LA", (Image.fromarray(GREY), Image.fromarray(ALPHA)))
INDEX = np.asarray(PALETTE)
FOUR_GREYS = np.tile([[[0], [85], [170], [255]]], (2, 1, 3))
TRANSPARENT = {
    "rgba png": (saved(RGBA, "PNG"), COLOUR, ALPHA),
    "rgba tiff": (saved(RGBA, "TIFF"), COLOUR, ALPHA),
    "rgba webp": (saved(RGBA, "WEBP", lossless=True, exact=True), COLOUR, ALPHA),
    "grey and alpha png": (saved(LA, "PNG"), three(GREY), ALPHA),
    "one grey of a png": (
        saved(Image.fromarray(GREY), "PNG", transparency=int(GREY[3, 4])),
        three(GREY),
        unlike(GREY, GREY[3, 4]),
    ),
    "one colour of a png": (
        saved(RGB, "PNG", transparency=tuple(COLOUR[3, 4].tolist())),
        COLOUR,
        unlike(COLOUR, COLOUR[3, 4]),
    ),
    "one palette entry of a png": (
        saved(PALETTE, "PNG", transparency=5),
        PALETTE_COLOUR,
        unlike(INDEX, np.uint8(5)),
    ),
    "palette alphas of a png": (
        saved(PALETTE, "PNG", transparency=bytes(range(0, 256, 8))),
        PALETTE_COLOUR,
        INDEX * 8,
    ),
    "one palette entry of a gif": (
        saved(PALETTE, "GIF", transparency=5),
        PALETTE_COLOUR,
        unlike(INDEX, np.uint8(5)),
    ),
    "one 16-bit grey": (deep_png(0, DEEP, DEEP[3, 4]), three(DEEP >> 8), unlike(DEEP, DEEP[3, 4])),
    "one 16-bit colour": (
        deep_png(2, DEEP_COLOUR, DEEP_COLOUR[3, 4]),
        DEEP_COLOUR >> 8,
        unlike(DEEP_COLOUR >> 8, DEEP_COLOUR[3, 4] >> 8),
    ),
    "one 2-bit grey": (
        png(2, 0, [bytes([0b00011011])] * 2, (b"tRNS", b"\x00\x02"), width=4),
        FOUR_GREYS,
        np.tile([255, 255, 0, 255], (2, 1)),
    ),
    "black of a 1-bit png": (
        png(1, 0, [bytes([0b01010000])] * 2, (b"tRNS", b"\x00\x00"), width=4),
        np.tile([[[0], [255], [0], [255]]], (2, 1, 3)),
        np.tile([0, 255, 0, 255], (2, 1)),
    ),
}


@pytest.mark.parametrize(("data", "colour", "alpha"), TRANSPARENT.values(), ids=TRANSPARENT)
def test_what_is_transparent_shows_white(data: bytes, colour: np.ndarray, alpha: np.ndarray) -> None:
    assert np.abs(decode(data) - on_white(colour, alpha)).max() <= 1


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_ends_upright(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    data = saved(RGB, kind, exif=exif, **options)
    reference = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    np.testing.assert_array_equal(decode(data), np.asarray(reference))


@pytest.mark.parametrize(
    "block",
    [
        b"",
        b"Exif\x00\x00",
        b"Exif\x00\x00II*\x00",
        b"Exif\x00\x00II*\x00\xff\xff\xff\x7f",
        b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\xff\xff" + bytes(20),
        b"Exif\x00\x00II*\x00\x08\x00\x00\x00\x01\x00\x12\x01\x03\x00\x01\x00\x00\x00\x63\x00\x00\x00",
        b"Exif\x00\x00II*\x00\x08\x00\x00\x00\x01\x00\x12\x01\x04\x00\x01\x00\x00\x00\x06\x00\x00\x00",
    ],
)
def test_an_exif_block_that_says_nothing_sensible_leaves_the_picture_as_it_is(block: bytes) -> None:
    chunk = block.removeprefix(b"Exif\x00\x00")
    data = png(8, 2, [row.tobytes() for row in COLOUR], (b"eXIf", chunk))
    np.testing.assert_array_equal(decode(data), COLOUR)


def test_the_first_frame_of_an_animation_is_the_picture() -> None:
    frames = [PALETTE, PALETTE.transpose(Image.Transpose.FLIP_LEFT_RIGHT)]
    for kind, options in (("GIF", {}), ("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True})):
        data = saved(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        np.testing.assert_array_equal(decode(data), np.asarray(PALETTE.convert("RGB")))


def test_the_identity_of_a_picture_is_its_size_and_its_pixels() -> None:
    one = np.zeros((4, 6, 3), np.uint8)
    other = one.copy()
    other[3, 5, 2] = 1
    identities = {pixels_sha256(pixels) for pixels in (one, other, one.reshape(6, 4, 3), one.reshape(2, 12, 3))}
    assert len(identities) == 4
    assert pixels_sha256(np.asfortranarray(one)) == pixels_sha256(one)
    assert pixels_sha256(one) == "95330ba7dd2d84c9cb5093305783d4dde39071e8463f9c8e7109d0d5b88319da"
