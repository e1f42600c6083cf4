"""Pictures as an attack ends with them: on the 8-bit grid, since whoever sends a picture sends bytes.

An attack's result is rounded before anything is said of it, and its distances are those of the rounded picture.
Where the attack was allowed eps, the rounded picture keeps to it: at eps .007, which is 1.8 levels of 255, no
pixel moves by two levels.
"""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from smoothing_proxy.errors import ConfigError, nearest

__all__ = ["Norm", "Pictures", "check_norm", "distances", "rounded", "to_pictures", "to_pixels"]

Norm: TypeAlias = Literal["linf", "l2"]

Pictures: TypeAlias = npt.NDArray[np.float32]
"""Float32 [n, 3, h, w] in [0, 1]."""

LEVELS = 255.0

SLACK = 1e-6
"""Of a level, by which eps as a number of levels may fall short of a whole one."""

NEARLY = 1e-3
"""Of a level; a float32 picture on the grid is not further than this from it."""


def check_norm(norm: str) -> Norm:
    """The norm. Raises ConfigError unless it is "linf" or "l2"."""
    if norm not in get_args(Norm):
        raise ConfigError(f"norm {norm!r}{nearest(norm, get_args(Norm))}")
    return norm  # type: ignore[return-value]  # it is one of the two


def to_pictures(pixels: npt.NDArray[np.uint8]) -> Pictures:
    """uint8 [n, h, w, 3] to float32 [n, 3, h, w] in [0, 1]."""
    return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)).astype(np.float32) / np.float32(LEVELS)


def to_pixels(pictures: Pictures) -> npt.NDArray[np.uint8]:
    """float32 [n, 3, h, w], clipped to [0, 1], to the nearest uint8 [n, h, w, 3]."""
    levels = np.rint(np.clip(pictures, 0.0, 1.0) * np.float32(LEVELS)).astype(np.uint8)
    return np.ascontiguousarray(levels.transpose(0, 2, 3, 1))


def distances(pictures: Pictures, clean: Pictures, norm: Norm) -> npt.NDArray[np.float64]:
    """Of each picture from the clean one, float64 [n], on the [0, 1] scale; exact where both are on the grid."""
    levels = np.abs(pictures.astype(np.float64) - clean).reshape(len(clean), -1) * LEVELS
    whole = np.rint(levels)
    difference = (whole if np.abs(levels - whole).max(initial=0.0) < NEARLY else levels) / LEVELS
    if norm == "linf":
        return np.asarray(difference.max(axis=1))
    return np.asarray(np.sqrt(np.square(difference).sum(axis=1)))


def rounded(pictures: Pictures, clean: Pictures, norm: Norm, eps: float | None) -> Pictures:
    """The pictures on the 8-bit grid, clipped to [0, 1], and no further than eps from the clean ones in `norm`.

    clean: on the grid. eps: None rounds to the nearest. Within linf, each pixel goes to the nearest level that eps
    allows. Within l2, pixels go toward the clean picture, and then back to the nearest level, those first that
    lose most, as far as eps allows.
    """
    base = np.rint(clean.astype(np.float64) * LEVELS)
    wanted = np.clip(pictures.astype(np.float64), 0.0, 1.0) * LEVELS - base
    moves = np.rint(wanted)
    if eps is not None:
        if norm == "linf":
            most = np.floor(eps * LEVELS + SLACK)
            moves = np.clip(moves, -most, most)
        else:
            moves = np.stack([_within_l2(one, eps * LEVELS) for one in wanted])
    return ((base + moves) / LEVELS).astype(np.float32)


def _within_l2(wanted: npt.NDArray[np.float64], limit: float) -> npt.NDArray[np.float64]:
    """wanted: moves in levels, [3, h, w]; whole moves near them whose l2 norm is at most `limit`."""
    size = np.linalg.norm(wanted)
    if size > limit:
        wanted = wanted * (limit / size)
    lengths = np.abs(wanted).ravel()
    low = np.floor(lengths)
    up = np.flatnonzero(lengths - low >= 0.5)
    up = up[np.argsort(low[up] - lengths[up], kind="stable")]
    spent = np.square(low).sum() + np.cumsum(2.0 * low[up] + 1.0)
    low[up[spent <= limit**2]] += 1.0
    return np.asarray(np.sign(wanted) * low.reshape(wanted.shape))
