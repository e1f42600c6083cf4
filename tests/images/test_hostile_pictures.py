"""Whatever a file holds, out comes a canonical picture or an ImageError that names the file."""

from __future__ import annotations

import struct
import time
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from smoothing_proxy.errors import ImageError
from smoothing_proxy.images.pixels import Limits, decode, read
from tests.images.handmade_pictures import png_of, saved

PHOTO = Image.fromarray(
    np.add.outer(np.arange(43) * 3, np.arange(61) * 2)[:, :, None].astype(np.uint8)
    + np.random.default_rng(0).integers(0, 40, (43, 61, 3), dtype=np.uint8)
)
DEEP = Image.fromarray(np.asarray(PHOTO)[:, :, 0].astype(np.uint16) * 257)
TURNED = Image.Exif()
TURNED[0x0112] = 6


FILES = {
    "png": saved(PHOTO, "PNG"),
    "png with alpha": saved(PHOTO.convert("RGBA"), "PNG", exif=TURNED),
    "palette png": saved(PHOTO.convert("P"), "PNG", transparency=3),
    "16-bit png": saved(DEEP, "PNG"),
    "jpeg": saved(PHOTO, "JPEG", exif=TURNED),
    "progressive jpeg": saved(PHOTO, "JPEG", progressive=True),
    "cmyk jpeg": saved(PHOTO.convert("CMYK"), "JPEG"),
    "webp": saved(PHOTO, "WEBP"),
    "lossless webp": saved(PHOTO, "WEBP", lossless=True, exif=TURNED),
    "animated webp": saved(PHOTO, "WEBP", save_all=True, append_images=[PHOTO.rotate(90)]),
    "bmp": saved(PHOTO, "BMP"),
    "gif": saved(PHOTO.convert("P"), "GIF"),
    "animated gif": saved(PHOTO.convert("P"), "GIF", save_all=True, append_images=[PHOTO.rotate(90).convert("P")]),
    "tiff": saved(PHOTO, "TIFF"),
    "deflate tiff": saved(PHOTO, "TIFF", compression="tiff_adobe_deflate"),
    "lzw tiff": saved(PHOTO, "TIFF", compression="tiff_lzw"),
    "jpeg tiff": saved(PHOTO, "TIFF", compression="jpeg"),
    "fax tiff": saved(PHOTO.convert("1"), "TIFF", compression="group4"),
    "16-bit tiff": saved(DEEP, "TIFF"),
}


def mutated(data: bytes, random: np.random.Generator) -> bytes:
    """Cut short, bytes changed anywhere or near the start, a stretch taken out, or a number made extreme."""
    changed = bytearray(data)
    kind = random.integers(5)
    if kind == 0:
        del changed[random.integers(8, len(changed)) :]
    elif kind in (1, 2):
        reach = len(changed) if kind == 1 else min(200, len(changed))
        for at in random.integers(8, reach, size=random.integers(1, 9)):
            changed[at] = random.integers(256)
    elif kind == 3:
        first, last = np.sort(random.integers(8, len(changed), size=2))
        del changed[first:last]
    else:
        at = random.integers(8, len(changed) - 4)
        changed[at : at + 4] = random.choice(np.array([0, 1, 127, 255], np.uint8), size=4).tobytes()
    return bytes(changed)


@pytest.mark.filterwarnings("ignore:.*:UserWarning:PIL")
@pytest.mark.parametrize("kind", FILES)
def test_a_mutated_file_is_a_picture_or_an_image_error(kind: str) -> None:
    random = np.random.default_rng(sum(kind.encode()))
    refused: list[str] = []
    for _ in range(60):
        try:
            pixels = decode(mutated(FILES[kind], random), name="holiday.png")
        except ImageError as error:
            refused.append(str(error))
        else:
            assert pixels.dtype == np.uint8
            assert pixels.ndim == 3
            assert pixels.shape[2] == 3
            assert pixels.size <= 3 * Limits().pixels
            assert pixels.flags.c_contiguous
    assert refused
    assert all(message.startswith("holiday.png: ") for message in refused)


@pytest.mark.filterwarnings("ignore:.*:UserWarning:PIL")
@pytest.mark.parametrize("kind", FILES)
def test_a_file_cut_in_half_is_refused(kind: str) -> None:
    data = FILES[kind]
    with pytest.raises(ImageError, match="damaged or not supported"):
        decode(data[: len(data) // 2])


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "the file is empty"),
        (b"\x89PN", "begins with the bytes 89 50 4e"),
        (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', "SVG, HTML or XML"),
        (b"\xef\xbb\xbf\n <!DOCTYPE html><html>", "SVG, HTML or XML"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
        (b"\x00\x00\x00\x18ftypheic\x00\x00", "HEIC, AVIF or MP4"),
        (b"%PDF-1.7\n", "a PDF file"),
        (b"PK\x03\x04rest", "a ZIP archive"),
        (b"8BPS\x00\x01", "a Photoshop file"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a PNG, JPEG, WebP, BMP, GIF or TIFF file"),
        (b"P6 2 2 255 ............", "not a PNG"),
        (b"\x00\x00\x01\x00\x01\x00", "not a PNG"),
        (b"MZ\x90\x00", "not a PNG"),
        (b"\x89PNG\r\n\x1a\n", "this PNG file is damaged"),
        (b"\xff\xd8\xff\xe0", "this JPEG file is damaged"),
        (b"BM" + bytes(60), "this BMP file is damaged"),
        (b"GIF89a", "this GIF file is damaged"),
        (b"II*\x00\x08\x00\x00\x00", "this TIFF file is damaged"),
        (b"RIFF\x04\x00\x00\x00WEBP", "this WebP file is damaged"),
    ],
)
def test_what_is_no_picture_is_refused_with_what_it_looks_like(content: bytes, why: str, tmp_path: Path) -> None:
    (tmp_path / "logo.png").write_bytes(content)
    with pytest.raises(ImageError, match=why) as error:
        read(tmp_path / "logo.png")
    assert str(error.value).startswith(str(tmp_path / "logo.png"))


def png(width: int, height: int, *chunks: tuple[bytes, bytes]) -> bytes:
    return png_of((b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), *chunks)


def patched(data: bytes, at: int, layout: str, *values: int) -> bytes:
    changed = bytearray(data)
    struct.pack_into(layout, changed, at, *values)
    return bytes(changed)


def tiff_with(data: bytes, tag: int, value: int) -> bytes:
    """The little-endian TIFF with one 32-bit value in its first directory changed."""
    (start,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, start)
    at = next(
        at for at in range(start + 2, start + 2 + 12 * count, 12) if data[at : at + 2] == struct.pack("<H", tag)
    )
    return patched(data, at + 2, "<HII", 4, 1, value)


def tiled_tiff(side: int) -> bytes:
    """A 16 x 16 grey picture whose one tile claims to be side x side."""
    tags = [
        (256, 16),
        (257, 16),
        (258, 8),
        (259, 8),
        (262, 1),
        (277, 1),
        (322, side),
        (323, side),
        (324, 200),
        (325, 9),
    ]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    header = b"II*\x00" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)
    return header.ljust(200, b"\x00") + zlib.compress(bytes(1 << 16))


ROWS = zlib.compress(bytes(1000), 9)
PROGRESSIVE = FILES["progressive jpeg"]
LAST_SCAN = PROGRESSIVE[PROGRESSIVE.rindex(b"\xff\xda") : -2]
SOF = FILES["jpeg"].index(b"\xff\xc0")
BOMBS = {
    "png of 2 billion pixels": (png(50_000, 50_000, (b"IDAT", ROWS)), "50000x50000 px"),
    "png of one endless row": (png(2**31 - 1, 1, (b"IDAT", ROWS)), "1x2147483647 px"),
    "png that inflates a thousandfold": (png(8000, 6500, (b"IDAT", ROWS)), "6500x8000 px"),
    "jpeg": (patched(FILES["jpeg"], SOF + 5, ">HH", 65_535, 65_535), "65535x65535 px"),
    "gif": (patched(FILES["gif"], 6, "<HH", 65_535, 65_535), "65535x65535 px"),
    "bmp": (patched(FILES["bmp"], 18, "<ii", 40_000, 40_000), "40000x40000 px"),
    "webp": (patched(FILES["webp"], 26, "<HH", 16_383, 16_383), "px|exceeds limit"),
    "tiff": (tiff_with(tiff_with(FILES["tiff"], 256, 90_000), 257, 90_000), "90000x90000 px"),
    "tiff with a huge tile": (tiled_tiff(1 << 20), "a TIFF tile of"),
    "jpeg of 300 scans": (PROGRESSIVE[:-2] + LAST_SCAN * 300 + PROGRESSIVE[-2:], "more than 128 scans"),
    "profile that inflates to 64 MiB": (
        png(9, 9, (b"iCCP", b"a\x00\x00" + zlib.compress(bytes(1 << 26), 9)), (b"IDAT", ROWS)),
        "too large",
    ),
    "text that inflates to 64 MiB": (
        png(9, 9, (b"zTXt", b"a\x00\x00" + zlib.compress(bytes(1 << 26), 9)), (b"IDAT", ROWS)),
        "too large",
    ),
}


@pytest.mark.parametrize(("data", "why"), BOMBS.values(), ids=BOMBS)
def test_a_bomb_is_refused_by_its_header_in_no_time_and_no_memory(data: bytes, why: str) -> None:
    tracemalloc.start()
    began = time.process_time()
    with pytest.raises(ImageError, match=why):
        decode(data)
    seconds = time.process_time() - began
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert seconds < 2
    assert peak < 16 * 2**20


def test_a_film_behind_a_jpeg_is_not_taken_for_its_scans() -> None:
    data = FILES["jpeg"] + b"\xff\xda\x00\x02" * 1000
    np.testing.assert_array_equal(decode(data), decode(FILES["jpeg"]))


def test_a_progressive_jpeg_of_a_hundred_scans_is_still_a_picture() -> None:
    data = PROGRESSIVE[:-2] + LAST_SCAN * 100 + PROGRESSIVE[-2:]
    assert decode(data).shape == (43, 61, 3)


@pytest.mark.parametrize(
    ("limits", "why"),
    [
        (Limits(file_bytes=100), "larger than the 100 bytes allowed"),
        (Limits(pixels=43 * 61 - 1), "the picture is 43x61 px; allowed are 2622 px"),
        (Limits(side_px=60), "60 px a side"),
    ],
)
def test_each_limit_is_kept(limits: Limits, why: str, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(FILES["png"])
    with pytest.raises(ImageError, match=why):
        decode(FILES["png"], limits=limits)
    with pytest.raises(ImageError, match=why):
        read(tmp_path / "a.png", limits=limits)
    just_enough = Limits(file_bytes=len(FILES["png"]), pixels=43 * 61, side_px=61)
    assert read(tmp_path / "a.png", limits=just_enough).shape == (43, 61, 3)


def test_a_tiff_whose_directories_form_a_loop_is_its_first_page() -> None:
    data = saved(PHOTO, "TIFF")
    (start,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, start)
    looped = patched(data, start + 2 + 12 * count, "<I", start)
    np.testing.assert_array_equal(decode(looped), np.asarray(PHOTO))


@pytest.mark.parametrize(
    ("image", "why"),
    [
        (Image.fromarray(np.full((4, 4), 70_000, np.int32)), "no agreed 8-bit form"),
        (Image.fromarray(np.full((4, 4), 1.5, np.float32)), r"must be in \[0, 1\]"),
        (Image.fromarray(np.full((4, 4), np.nan, np.float32)), r"must be in \[0, 1\]"),
        (Image.new("LAB", (4, 4)), "no agreed 8-bit form"),
    ],
    ids=["32-bit", "float above 1", "NaN", "Lab"],
)
def test_a_tiff_whose_numbers_have_no_known_scale_is_refused(image: Image.Image, why: str) -> None:
    with pytest.raises(ImageError, match=why):
        decode(saved(image, "TIFF"), name="scan.tif")
