"""Clip, quantise, encode, decode: the part of f between the denoiser and the classifier. (Interface first.)"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["EncodedImage", "Encoding"]

Format = Literal["raw", "png", "jpeg"]


@dataclass(frozen=True, slots=True)
class Encoding:
    """format: "raw" passes the RGB bytes to a classifier on this machine. quality: of JPEG, 1..100, 4:4:4.

    min_side_px: pictures with a shorter side are enlarged to it after the denoiser; 0 leaves them.
    """

    format: Format = "raw"
    quality: int = 95
    min_side_px: int = 0


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """data: the file's bytes, or for "raw" the RGB bytes of a uint8 [height, width, 3] array."""

    data: bytes
    format: Format
    height: int
    width: int
