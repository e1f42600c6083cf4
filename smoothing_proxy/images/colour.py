"""What a decoder gives (grey, palette, 16-bit, CMYK, alpha, any ICC profile) as 8-bit sRGB on white.

Samples of more than 8 bits keep their 8 highest, grey and colour alike, as libpng and Pillow do; 0 stays 0, full
scale becomes 255, and no value is off by more than one level. Alpha is composited on white. Colour profiles are
followed with relative colorimetric intent and black point compensation, as browsers do; a profile that is broken
or made for another kind of picture is ignored.
"""

from __future__ import annotations

from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms
from PIL.ImageFile import ImageFile
from PIL.TiffImagePlugin import TiffImageFile

from smoothing_proxy.errors import ImageError

__all__ = ["to_srgb"]

_DEEP_GREY = frozenset({"I;16", "I;16L", "I;16B", "I;16N"})
_GREY = frozenset({"1", "L", "LA", "La"})
_PLAIN = {"1": "L", "YCbCr": "RGB"}
_BITS_PER_SAMPLE, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0


def to_srgb(picture: ImageFile, png_bits: int) -> npt.NDArray[np.uint8]:
    """picture: decoded. png_bits: bits per sample of a PNG file, 8 for others. Returns uint8 [h, w, 3].

    Raises ImageError where the values have no known scale.
    """
    colour, alpha = _bands(picture, png_bits)
    colour = _follow_profile(colour, picture.info.get("icc_profile"))
    if alpha is not None:
        white = Image.new("RGB", colour.size, "white")
        white.paste(colour, mask=alpha)
        colour = white
    return np.asarray(colour)


def _bands(picture: ImageFile, png_bits: int) -> tuple[Image.Image, Image.Image | None]:
    """Colour as L, RGB or CMYK, and alpha where the file has any."""
    mode = picture.mode
    if mode in _DEEP_GREY or (mode == "I" and picture.format == "PNG"):
        return _deep_grey(picture)
    if mode == "F":
        return _unit_floats(picture), None
    if mode in ("I", "LAB"):
        raise ImageError(
            f"{mode} pixels (32-bit or Lab) have no agreed 8-bit form; save the picture as 8-bit sRGB"
        )
    if mode in ("CMYK", "YCbCr") or (mode in ("1", "L", "RGB") and "transparency" not in picture.info):
        return (picture.convert(_PLAIN[mode]) if mode in _PLAIN else picture), None
    _scale_transparent_colour(picture, png_bits)
    layered = picture.convert("RGBA")
    return (layered.getchannel("R") if mode in _GREY else layered.convert("RGB")), layered.getchannel("A")


def _deep_grey(picture: ImageFile) -> tuple[Image.Image, Image.Image | None]:
    values, bits = np.asarray(picture).astype(np.int32), 16
    if isinstance(picture, TiffImageFile):
        bits = int(picture.tag_v2.get(_BITS_PER_SAMPLE, (16,))[0])
    if _is_negative(picture):
        values = (1 << bits) - 1 - values
    grey = Image.fromarray((values >> (bits - 8)).astype(np.uint8))
    transparent = picture.info.get("transparency")
    if transparent is None:
        return grey, None
    return grey, Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8))


def _unit_floats(picture: ImageFile) -> Image.Image:
    values = np.asarray(picture)
    if not (values.min() >= 0.0 and values.max() <= 1.0):
        raise ImageError(
            f"its numbers run from {values.min()} to {values.max()}; floating-point pixels must be in [0, 1]"
        )
    if _is_negative(picture):
        values = 1.0 - values
    return Image.fromarray(np.floor(values * np.float64(255) + 0.5).astype(np.uint8))


def _is_negative(picture: ImageFile) -> bool:
    """Whether it is a TIFF whose zero is white; Pillow turns those round up to 8 bits only."""
    return isinstance(picture, TiffImageFile) and picture.tag_v2.get(_PHOTOMETRIC) == _WHITE_IS_ZERO


def _scale_transparent_colour(picture: ImageFile, png_bits: int) -> None:
    """PNG names its transparent colour in the file's own depth; Pillow looks for it among 8-bit values."""
    colour = picture.info.get("transparency")
    if isinstance(colour, tuple) and png_bits == 16:
        picture.info["transparency"] = tuple(value >> 8 for value in colour)
    elif isinstance(colour, int) and picture.mode == "L" and png_bits < 8:
        picture.info["transparency"] = colour * 255 // ((1 << png_bits) - 1)


def _follow_profile(colour: Image.Image, icc_profile: bytes | None) -> Image.Image:
    """colour: L, RGB or CMYK. Returns RGB."""
    if not icc_profile:
        return colour.convert("RGB")
    try:
        profile = ImageCms.ImageCmsProfile(BytesIO(icc_profile))
        space = profile.profile.xcolor_space.strip()
        if space == "RGB" and colour.mode == "L":
            colour = colour.convert("RGB")
        if space != {"L": "GRAY"}.get(colour.mode, colour.mode):
            return colour.convert("RGB")
        return _to_srgb_profile(profile, colour)
    except (ImageCms.PyCMSError, OSError, TypeError, ValueError):
        return colour.convert("RGB")


def _to_srgb_profile(profile: ImageCms.ImageCmsProfile, colour: Image.Image) -> Image.Image:
    """Grey goes through a table of its 256 levels: littlecms's own shortcut for grey is off by up to 10 levels."""
    intent, flags = ImageCms.Intent.RELATIVE_COLORIMETRIC, ImageCms.Flags.BLACKPOINTCOMPENSATION
    if colour.mode == "L":
        flags |= ImageCms.Flags.NOOPTIMIZE
    transform = ImageCms.buildTransform(profile, ImageCms.createProfile("sRGB"), colour.mode, "RGB", intent, flags)
    if colour.mode != "L":
        return transform.apply(colour)
    levels = np.asarray(transform.apply(Image.fromarray(np.arange(256, dtype=np.uint8)[None])))[0]
    return Image.fromarray(levels[np.asarray(colour)])
