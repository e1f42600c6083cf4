"""Which of the six formats a file is in, and its header read by that format's decoder alone.

Nothing is tried in turn: the first bytes decide, and only the one Pillow plugin that they name sees the file. No
pixel is decoded here.
"""

from __future__ import annotations

import re
from io import BytesIO
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

__all__ = ["PictureFormat", "jpeg_scans", "open_header", "sniff", "what_else"]

PictureFormat = Literal["PNG", "JPEG", "WebP", "BMP", "GIF", "TIFF"]

_MAGIC: tuple[tuple[bytes, PictureFormat], ...] = (
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"BM", "BMP"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II\x2a\x00", "TIFF"),
    (b"MM\x00\x2a", "TIFF"),
    (b"II\x2b\x00", "TIFF"),
    (b"MM\x00\x2b", "TIFF"),
)

_OTHERS = (
    (b"<", "it begins like SVG, HTML or XML text"),
    (b"version https://git-lfs", "it is a Git LFS pointer; fetch the file itself with `git lfs pull`"),
    (b"%PDF", "it is a PDF file"),
    (b"PK\x03\x04", "it is a ZIP archive"),
    (b"\x00\x00\x00\x0cjP", "it is a JPEG 2000 file; convert it to PNG"),
    (b"8BPS", "it is a Photoshop file; export it as PNG"),
)

_MARKER_WITH_LENGTH = re.compile(rb"\xff[\x02-\xcf\xd9-\xfe]", re.DOTALL)
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9


def sniff(data: bytes) -> PictureFormat | None:
    """The format that the first bytes name; None for anything else."""
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WebP"
    return next((kind for magic, kind in _MAGIC if data.startswith(magic)), None)


def what_else(data: bytes) -> str:
    """A guess at what a file in none of the six formats is, for an error message."""
    if data[4:8] == b"ftyp":
        return "it is a HEIC, AVIF or MP4 file; convert it to PNG or JPEG"
    text = data[:256].removeprefix(b"\xef\xbb\xbf").lstrip()
    guess = (what for start, what in _OTHERS if text.startswith(start))
    return next(guess, f"it begins with the bytes {data[:8].hex(' ')}")


def jpeg_scans(data: bytes, at_most: int) -> int:
    """How often a JPEG file goes over its picture (ITU T.81, B.1.1); counting stops above `at_most`.

    Only the picture's own scans: not those of a thumbnail in its metadata, nor of what follows its end.
    """
    at, scans = 2, 0
    while scans <= at_most and (marker := _MARKER_WITH_LENGTH.search(data, at)):
        kind = marker[0][1]
        if kind == _END_OF_IMAGE:
            break
        scans += kind == _START_OF_SCAN
        at = marker.end() + int.from_bytes(data[marker.end() : marker.end() + 2], "big")
    return scans


def open_header(data: bytes, kind: PictureFormat) -> ImageFile:
    """The file's header: size, mode and metadata. Raises whatever Pillow raises on a bad one."""
    stream = BytesIO(data)
    if kind == "PNG":
        from PIL.PngImagePlugin import PngImageFile

        return PngImageFile(stream)
    if kind == "JPEG":
        from PIL.JpegImagePlugin import JpegImageFile

        return JpegImageFile(stream)
    if kind == "WebP":
        from PIL.WebPImagePlugin import WebPImageFile

        return WebPImageFile(stream)
    if kind == "BMP":
        from PIL.BmpImagePlugin import BmpImageFile

        return BmpImageFile(stream)
    if kind == "GIF":
        from PIL.GifImagePlugin import GifImageFile

        return GifImageFile(stream)
    from PIL.TiffImagePlugin import TiffImageFile

    return TiffImageFile(stream)
