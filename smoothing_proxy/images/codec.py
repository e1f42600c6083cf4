"""Clip, quantise, encode, decode: the part of f between the denoiser and the classifier.

All of it comes after the noise, so it costs the proof nothing; it has to be a fixed function of the pixels, so
equal pictures give equal bytes.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from smoothing_proxy.errors import ConfigError, DenoiserError, ImageError, nearest

__all__ = ["QUALITIES", "EncodedImage", "Encoding", "Format", "decode", "encode", "quantise"]

Format = Literal["raw", "png", "jpeg"]

_LONGEST_JPEG_SIDE = 65_535
_MOST_PIXELS = 50_000_000

QUALITIES = (95, 85, 75, 60)
"""Of JPEG, that a copy is tried in, best first, where it is too large as it should be written."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """How copies are written for a classifier; str() gives the text that `parse` takes.

    format: "raw" passes the RGB bytes to a classifier on this machine. quality: of JPEG, 1..100, 4:4:4.
    min_side_px: pictures with a shorter side are enlarged to it after the denoiser, bilinearly and in proportion
    (the longer side rounded up); 0 leaves them.

    max_side_px, max_bytes: what the classifier takes at most, 0 for no limit; every copy is made to fit in one
    way. Longer sides are reduced to max_side_px, in proportion. A file beyond max_bytes is written as JPEG, in the
    first of QUALITIES, up to its own, that fits; where none does, with its sides halved and so on. That depends
    on the copy alone, so it is as much a part of f as the rest. Raw copies have no file to shrink.

    Raises ConfigError when a value is out of its range.
    """

    format: Format = "raw"
    quality: int = 95
    min_side_px: int = 0
    max_side_px: int = 0
    max_bytes: int = 0

    def __post_init__(self) -> None:
        if self.format not in get_args(Format):
            raise ConfigError(f"unknown picture format {self.format!r}{nearest(self.format, get_args(Format))}")
        if not 1 <= self.quality <= 100:
            raise ConfigError(f"JPEG quality is {self.quality}; it must be from 1 to 100")
        if not 0 <= self.min_side_px <= 10_000:
            raise ConfigError(f"the shortest side allowed is {self.min_side_px} px; it must be from 0 to 10000")
        if self.max_bytes < 0 or self.max_side_px < 0 or 0 < self.max_side_px < self.min_side_px:
            raise ConfigError(
                f"copies of at most {self.max_side_px} px a side and {self.max_bytes} bytes: expected 0 for no "
                f"limit, and no side below the shortest that is allowed, {self.min_side_px} px"
            )

    @classmethod
    def parse(cls, text: str, *, min_side_px: int = 0, max_side_px: int = 0, max_bytes: int = 0) -> Encoding:
        """text: "raw", "png", "jpeg" (quality 95) or "jpeg:80". Raises ConfigError on anything else."""
        name, colon, quality = text.partition(":")
        if colon and (name != "jpeg" or not re.fullmatch(r"[0-9]{1,3}", quality)):
            raise ConfigError(f"picture encoding {text!r}: expected 'raw', 'png', 'jpeg' or 'jpeg:95'")
        fit = {"min_side_px": min_side_px, "max_side_px": max_side_px, "max_bytes": max_bytes}
        return cls(name, int(quality or 95), **fit)  # type: ignore[arg-type] # checked when it is made

    def within(self, limits: Encoding) -> Encoding:
        """The same, within what another one allows as well."""
        return replace(
            self,
            min_side_px=max(self.min_side_px, limits.min_side_px),
            max_side_px=_lesser(self.max_side_px, limits.max_side_px),
            max_bytes=_lesser(self.max_bytes, limits.max_bytes),
        )

    def __str__(self) -> str:
        return f"jpeg:{self.quality}" if self.format == "jpeg" else self.format


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """data: the file's bytes, or for "raw" the RGB bytes of a uint8 [height, width, 3] array."""

    data: bytes
    format: Format
    height: int
    width: int


def quantise(images: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """images: float32 [n, h, w, 3], clipped to [0, 1] -> uint8 [n, h, w, 3], nearest, halves upward.

    Raises DenoiserError on NaN or infinity: such a copy must not be shown to a classifier as if it were a picture.
    """
    pixels = np.empty(images.shape, dtype=np.uint8)
    for image, out in zip(images, pixels, strict=True):
        if not np.isfinite(image).all():
            raise DenoiserError("the denoiser returned values that are not finite")
        scaled = np.clip(image, 0.0, 1.0)
        scaled *= 255.0
        scaled += 0.5
        out[...] = scaled
    return pixels


def encode(pixels: npt.NDArray[np.uint8], encoding: Encoding) -> EncodedImage:
    """pixels: uint8 [h, w, 3] -> one copy as the classifier takes it.

    Raises ImageError on another shape or type, when the picture is too long for the format once enlarged, and when
    nothing makes it fit: a side would be too short then.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.size == 0:
        raise ImageError(f"{pixels.dtype} {list(pixels.shape)} where uint8 [h, w, 3] is expected")
    pixels = _reduce(_enlarge(pixels, encoding.min_side_px), encoding)
    copy = _written(pixels, encoding.format, encoding.quality)
    if encoding.format == "raw" or _fits(copy, encoding):
        return copy
    return _squeezed(pixels, encoding)


def decode(copy: EncodedImage) -> npt.NDArray[np.uint8]:
    """uint8 [height, width, 3], read-only; for "raw" a view of the copy's own bytes.

    Raises ImageError when the bytes are no picture, or one of another size.
    """
    shape = (copy.height, copy.width, 3)
    if copy.format == "raw":
        if len(copy.data) != math.prod(shape):
            raise ImageError(f"{len(copy.data)} raw bytes where {list(shape)} is expected")
        return np.frombuffer(copy.data, dtype=np.uint8).reshape(shape)

    from smoothing_proxy.images import pixels

    image = pixels.decode(copy.data, name="encoded copy")
    if image.shape != shape:
        raise ImageError(f"an encoded copy of shape {list(image.shape)} where {list(shape)} is expected")
    return image


def _enlarge(pixels: npt.NDArray[np.uint8], min_side_px: int) -> npt.NDArray[np.uint8]:
    height, width, _ = pixels.shape
    short = min(height, width)
    if short >= min_side_px:
        return pixels
    import cv2

    size = (-(-width * min_side_px // short), -(-height * min_side_px // short))
    if math.prod(size) > _MOST_PIXELS:
        raise ImageError(
            f"a picture of {height}x{width} px cannot be enlarged to {min_side_px} px on its shorter side"
        )
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_LINEAR_EXACT), dtype=np.uint8)


def _lesser(one: int, other: int) -> int:
    """Of two limits, of which 0 is none."""
    return min(one, other) if one and other else max(one, other)


def _fits(copy: EncodedImage, encoding: Encoding) -> bool:
    return not encoding.max_bytes or len(copy.data) <= encoding.max_bytes


def _squeezed(pixels: npt.NDArray[np.uint8], encoding: Encoding) -> EncodedImage:
    """As JPEG, of the largest sides and the best quality that fit."""
    best = encoding.quality if encoding.format == "jpeg" else max(QUALITIES)
    while True:
        for quality in QUALITIES:
            if quality <= best and _fits(copy := _written(pixels, "jpeg", quality), encoding):
                return copy
        pixels = _halved(pixels, encoding)


def _reduce(pixels: npt.NDArray[np.uint8], encoding: Encoding) -> npt.NDArray[np.uint8]:
    """Sides down to the longest that is allowed; by halves first, since bilinear skips pixels beyond."""
    most = encoding.max_side_px
    while most and max(pixels.shape) >= 2 * most:
        pixels = _halved(pixels, encoding)
    height, width, _ = pixels.shape
    long = max(height, width)
    if not most or long <= most:
        return pixels
    return _resized(pixels, max(1, height * most // long), max(1, width * most // long), encoding)


def _halved(pixels: npt.NDArray[np.uint8], encoding: Encoding) -> npt.NDArray[np.uint8]:
    height, width, _ = pixels.shape
    return _resized(pixels, (height + 1) // 2, (width + 1) // 2, encoding)


def _resized(pixels: npt.NDArray[np.uint8], height: int, width: int, encoding: Encoding) -> npt.NDArray[np.uint8]:
    import cv2

    if min(height, width) < max(2, encoding.min_side_px):
        raise ImageError(
            f"no encoding makes a copy of {pixels.shape[1]}x{pixels.shape[0]} px fit: sides from "
            f"{encoding.min_side_px} to {encoding.max_side_px or 'any'} px and {encoding.max_bytes or 'any'} "
            "bytes are taken; crop the picture, or make the working size smaller"
        )
    return np.asarray(cv2.resize(pixels, (width, height), interpolation=cv2.INTER_LINEAR_EXACT), dtype=np.uint8)


def _written(pixels: npt.NDArray[np.uint8], kind: Format, quality: int) -> EncodedImage:
    height, width, _ = pixels.shape
    if kind == "raw":
        return EncodedImage(pixels.tobytes(), kind, height, width)
    data = _png(pixels) if kind == "png" else _jpeg(pixels, quality)
    return EncodedImage(data, kind, height, width)


def _png(pixels: npt.NDArray[np.uint8]) -> bytes:
    """PNG, 8-bit RGB, by OpenCV's fastest setting: noisy copies hold little that a slower one could squeeze."""
    import cv2

    options = [cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE]
    _, data = cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), options)
    return data.tobytes()


def _jpeg(pixels: npt.NDArray[np.uint8], quality: int) -> bytes:
    """Baseline JPEG without chroma subsampling. OpenCV's writer, since it runs beside other threads."""
    import cv2

    if max(pixels.shape) > _LONGEST_JPEG_SIDE:
        raise ImageError(
            f"a picture of {list(pixels.shape)} is too long for JPEG; the longest side is {_LONGEST_JPEG_SIDE} px"
        )
    options = [
        cv2.IMWRITE_JPEG_QUALITY,
        quality,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    ]
    _, data = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), options)
    return data.tobytes()
