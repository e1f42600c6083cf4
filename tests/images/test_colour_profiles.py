from __future__ import annotations

import struct

import numpy as np
import pytest
from PIL import Image, ImageCms

from smoothing_proxy.images.pixels import decode
from tests.images.handmade_pictures import COLOUR, GREY, PALETTE, RGB, saved, three


def test_a_grey_profile_is_followed_under_alpha_and_for_one_bit_too() -> None:
    opaque = Image.merge("LA", (Image.fromarray(GREY), Image.new("L", RGB.size, 255)))
    black_and_white = Image.fromarray(GREY > 99)
    for image, levels in ((opaque, GREY), (black_and_white, np.asarray(black_and_white.convert("L")))):
        pixels = decode(saved(image, "PNG", icc_profile=LINEAR_GREY))
        assert np.abs(pixels - srgb_of_linear(three(levels))).max() <= 1.5


def test_an_srgb_profile_changes_nothing() -> None:
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    np.testing.assert_array_equal(decode(saved(RGB, "PNG", icc_profile=icc)), COLOUR)


def icc_profile(space: bytes, tags: dict[bytes, bytes]) -> bytes:
    """A version 2 display profile (ICC.1:2001-04, clause 6) with the given tags."""
    table, body = struct.pack(">I", len(tags)), b""
    for name, content in tags.items():
        table += name + struct.pack(">II", 128 + 4 + 12 * len(tags) + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    header = struct.pack(">I4sI4s4s4s", 128 + len(table) + len(body), b"lcms", 0x02100000, b"mntr", space, b"XYZ ")
    header += struct.pack(">6H4s", 2001, 4, 1, 0, 0, 0, b"acsp") + bytes(28)
    header += struct.pack(">3i", 63190, 65536, 54061)
    return header.ljust(128, b"\x00") + table + body


def xyz(*values: float) -> bytes:
    return b"XYZ " + bytes(4) + struct.pack(">3i", *(round(value * 65536) for value in values))


def gamma(value: float) -> bytes:
    return b"curv" + bytes(4) + struct.pack(">IH", 1, round(value * 256))


WHITE = {b"wtpt": xyz(0.9642, 1.0, 0.8249)}
LINEAR_SRGB = icc_profile(
    b"RGB ",
    WHITE
    | {b"rXYZ": xyz(0.43607, 0.22249, 0.01392), b"gXYZ": xyz(0.38515, 0.71687, 0.09708)}
    | {b"bXYZ": xyz(0.14307, 0.06061, 0.7141)}
    | {b"rTRC": gamma(1.0), b"gTRC": gamma(1.0), b"bTRC": gamma(1.0)},
)
LINEAR_GREY = icc_profile(b"GRAY", WHITE | {b"kTRC": gamma(1.0)})


def srgb_of_linear(values: np.ndarray) -> np.ndarray:
    """IEC 61966-2-1."""
    linear = values / 255
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (saved(RGB, "PNG", icc_profile=LINEAR_SRGB), srgb_of_linear(COLOUR)),
        (saved(RGB, "TIFF", icc_profile=LINEAR_SRGB), srgb_of_linear(COLOUR)),
        (saved(RGB, "WEBP", lossless=True, icc_profile=LINEAR_SRGB), srgb_of_linear(COLOUR)),
        (saved(Image.fromarray(GREY), "PNG", icc_profile=LINEAR_GREY), srgb_of_linear(three(GREY))),
        (saved(Image.fromarray(GREY), "PNG", icc_profile=LINEAR_SRGB), srgb_of_linear(three(GREY))),
        (saved(PALETTE, "PNG", icc_profile=LINEAR_SRGB), srgb_of_linear(np.asarray(PALETTE.convert("RGB")))),
        (saved(RGB, "PNG", icc_profile=LINEAR_GREY), COLOUR),
        (saved(RGB, "PNG", icc_profile=b"no profile at all"), COLOUR),
        (saved(RGB, "PNG", icc_profile=LINEAR_SRGB[:200]), COLOUR),
    ],
    ids=[
        "rgb png",
        "tiff",
        "webp",
        "grey",
        "grey, rgb profile",
        "palette",
        "wrong kind",
        "no profile",
        "truncated",
    ],
)
def test_an_embedded_profile_is_followed_to_srgb_and_a_broken_one_ignored(
    data: bytes, expected: np.ndarray
) -> None:
    assert np.abs(decode(data) - expected).max() <= 1.5
