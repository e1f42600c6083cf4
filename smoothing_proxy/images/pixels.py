"""The canonical picture: any of six file formats decoded to upright 8-bit sRGB.

This is the object that certificates speak of. A file is judged by its first bytes and its header before any pixel
is decoded, and nothing but ImageError comes out of a bad one.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

import numpy as np
import numpy.typing as npt

from smoothing_proxy.errors import ConfigError, ImageError
from smoothing_proxy.images.exif import upright
from smoothing_proxy.images.formats import PictureFormat, jpeg_scans, open_header, sniff, what_else

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

__all__ = [
    "DEFAULT_LIMITS",
    "PICTURE_SUFFIXES",
    "Limits",
    "Pixels",
    "decode",
    "picture_files",
    "pixels_sha256",
    "read",
]

Pixels: TypeAlias = npt.NDArray[np.uint8]
"""uint8 [h, w, 3], sRGB, upright, C-contiguous, read-only."""

PICTURE_SUFFIXES = frozenset({".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
"""Which files of a folder are taken for pictures, in lower case; what is in them decides about the format."""

_MOST_PIXELS = 89_478_485
"""Above this Pillow itself warns of a decompression bomb."""

_MOST_JPEG_SCANS = 128
"""A progressive JPEG needs about ten; thousands, a few bytes each, cost hours."""

_TILE_WIDTH, _TILE_LENGTH = 322, 323


@dataclass(frozen=True, slots=True)
class Limits:
    """What a file may ask for. file_bytes: its length. pixels: height x width. side_px: the longer side.

    Raises ConfigError when a limit is not positive, or when pixels is above what Pillow takes for a bomb.
    """

    file_bytes: int = 128 * 2**20
    pixels: int = 50_000_000
    side_px: int = 32_768

    def __post_init__(self) -> None:
        if min(self.file_bytes, self.pixels, self.side_px) < 1 or self.pixels > _MOST_PIXELS:
            raise ConfigError(f"{self}: each limit must be at least 1, and pixels at most {_MOST_PIXELS}")


DEFAULT_LIMITS = Limits()


def read(path: Path, *, limits: Limits = DEFAULT_LIMITS) -> Pixels:
    """The canonical picture in a file. Raises ImageError, naming the file, when it cannot be read or decoded."""
    try:
        if not path.is_file():
            raise ImageError(f"{path}: {'not a regular file' if path.exists() else 'no such file'}")
        with path.open("rb") as file:
            data = file.read(limits.file_bytes + 1)
    except OSError as error:
        raise ImageError(f"{path}: cannot be read: {error.strerror or error}") from error
    return decode(data, name=str(path), limits=limits)


def decode(data: bytes, *, name: str = "picture", limits: Limits = DEFAULT_LIMITS) -> Pixels:
    """The canonical picture in a PNG, JPEG, WebP, BMP, GIF or TIFF file's bytes: uint8 [h, w, 3].

    Of several frames or pages, the first. EXIF's orientation is applied, alpha composited on white, the embedded
    colour profile followed to sRGB (see `colour`). CMYK in JPEG is read as Adobe writes it, inverted.
    Raises ImageError, which begins with `name`, for anything else, a damaged file, and one above the limits.
    """
    if len(data) > limits.file_bytes:
        raise ImageError(f"{name}: the file is larger than the {limits.file_bytes} bytes allowed")
    if not data:
        raise ImageError(f"{name}: the file is empty")
    kind = sniff(data)
    if kind is None:
        raise ImageError(f"{name}: not a PNG, JPEG, WebP, BMP, GIF or TIFF file; {what_else(data)}")
    try:
        return _decode(data, kind, limits)
    except ImageError as error:
        raise ImageError(f"{name}: {error}") from error.__cause__
    except Exception as error:
        reason = str(error) or type(error).__name__
        raise ImageError(f"{name}: this {kind} file is damaged or not supported: {reason}") from error


def _decode(data: bytes, kind: PictureFormat, limits: Limits) -> Pixels:
    from smoothing_proxy.images.colour import to_srgb

    if kind == "JPEG" and jpeg_scans(data, _MOST_JPEG_SCANS) > _MOST_JPEG_SCANS:
        raise ImageError(f"a JPEG file with more than {_MOST_JPEG_SCANS} scans")
    with open_header(data, kind) as picture:
        _check_header(picture, limits)
        picture.load()
        png_bits = data[24] if kind == "PNG" and data[12:16] == b"IHDR" else 8
        pixels = upright(to_srgb(picture, png_bits), _exif(picture, kind))
    pixels.flags.writeable = False
    return pixels


def _check_header(picture: ImageFile, limits: Limits) -> None:
    width, height = picture.size
    if height * width > limits.pixels or max(height, width) > limits.side_px:
        raise ImageError(
            f"the picture is {height}x{width} px; allowed are {limits.pixels} px, and {limits.side_px} px a side"
        )
    tags: Any = getattr(picture, "tag_v2", {})
    tile = int(tags.get(_TILE_WIDTH, 1)) * int(tags.get(_TILE_LENGTH, 1))
    if tile > limits.pixels:
        raise ImageError(f"a TIFF tile of {tile} px; at most {limits.pixels} px are allowed")


def _exif(picture: ImageFile, kind: PictureFormat) -> bytes:
    """The EXIF block whose orientation is still to be applied; Pillow has turned a TIFF by itself."""
    block = picture.info.get("exif", b"")
    return block if kind != "TIFF" and isinstance(block, bytes) else b""


def pixels_sha256(pixels: Pixels) -> str:
    """The identity of a canonical picture: the sha256 of its size and its bytes, in hex."""
    height, width, _ = pixels.shape
    digest = hashlib.sha256(b"sRGB8 %dx%d:" % (height, width))
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


def picture_files(folder: Path) -> list[Path]:
    """Every picture below `folder` by its suffix, sorted by its path; hidden files and folders are left out.

    Raises ConfigError when the folder is missing, unreadable, or holds no picture.
    """
    try:
        if not folder.is_dir():
            raise ConfigError(f"{folder}: {'not a folder' if folder.exists() else 'no such folder'}")
    except OSError as error:
        _unreadable(error)
    found = [path for path in _visible_files(folder) if path.suffix.lower() in PICTURE_SUFFIXES]
    if not found:
        raise ConfigError(f"{folder}: no picture in it (looked for {', '.join(sorted(PICTURE_SUFFIXES))})")
    return sorted(found, key=lambda path: path.relative_to(folder).parts)


def _visible_files(folder: Path) -> list[Path]:
    files: list[Path] = []
    for parent, folders, names in os.walk(folder, onerror=_unreadable):
        folders[:] = [name for name in folders if not name.startswith(".")]
        files += [Path(parent, name) for name in names if not name.startswith(".")]
    return files


def _unreadable(error: OSError) -> NoReturn:
    raise ConfigError(f"{error.filename}: cannot be listed: {error.strerror}") from error
