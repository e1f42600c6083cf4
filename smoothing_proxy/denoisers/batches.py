"""Splitting a batch into bounded parts, and what every denoiser asks of its input."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from smoothing_proxy.errors import DenoiserError

__all__ = ["Pictures", "check_noise_level", "check_pictures", "in_parts", "rows_within"]

Pictures = npt.NDArray[np.float32]
"""Float32 [n, h, w, 3]."""


def check_pictures(name: str, noisy: Pictures) -> None:
    """Raises DenoiserError unless `noisy` is float32 [n, h, w, 3] with h, w >= 1. name: of the denoiser."""
    shape = noisy.shape
    if noisy.dtype != np.float32 or noisy.ndim != 4 or shape[3] != 3 or 0 in shape[1:]:
        raise DenoiserError(f"{name}: expected float32 [n, height, width, 3], got {noisy.dtype} {list(shape)}")


def check_noise_level(name: str, sigma: float) -> None:
    """Raises DenoiserError unless sigma is a number >= 0. name: of the denoiser."""
    if not 0 <= sigma < math.inf:
        raise DenoiserError(f"{name}: sigma is {sigma:g}; expected a standard deviation >= 0 on the [0, 1] scale")


def rows_within(height: int, width: int, *, most: int, pixels: int) -> int:
    """How many pictures of this size to take at once: at most `most` and about `pixels` in all, but >= 1."""
    return max(1, min(most, pixels // (height * width)))


def in_parts(noisy: Pictures, rows: int, part: Callable[[Pictures], Pictures]) -> Pictures:
    """`part` applied to at most `rows` pictures at a time; the results in the order of `noisy`."""
    out = np.empty_like(noisy)
    for start in range(0, len(noisy), rows):
        out[start : start + rows] = part(noisy[start : start + rows])
    return out
