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

Levels: TypeAlias = npt.NDArray[np.float64]
"""In steps of 8 bits."""

LEVELS = 255.0

SLACK = 1e-6
"""Of a level, by which eps as a number of levels may fall short of a whole one."""

NEARLY = 1e-3
"""Of a level; a float32 picture on the grid is not further than this from it."""

TINY = 1e-12

HALVINGS = 50
"""Of an interval that a scale is looked for in."""


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

    clean: on the grid. eps: None has no limit. In linf, each pixel goes to the nearest level that eps allows. In
    l2, too, where that makes the change no smaller; else the change keeps its length, or eps: at l2 .25 a pixel of
    a photograph moves by a sixth of a level in the mean, and by nothing at all if each were rounded by itself.
    """
    base = np.rint(clean.astype(np.float64) * LEVELS)
    wanted = np.clip(pictures.astype(np.float64), 0.0, 1.0) * LEVELS - base
    if norm == "linf":
        moves = np.rint(wanted)
        if eps is not None:
            most = np.floor(eps * LEVELS + SLACK)
            moves = np.clip(moves, -most, most)
    else:
        limit = np.inf if eps is None else eps * LEVELS
        moves = np.stack([_whole(*pair, limit) for pair in zip(wanted, base, strict=True)])
    return ((base + moves) / LEVELS).astype(np.float32)


def _whole(wanted: Levels, base: Levels, limit: float) -> Levels:
    """wanted: moves from `base` in levels, [3, h, w]; whole ones along them, of an l2 norm of at most `limit`."""
    size, nearest = float(np.linalg.norm(wanted)), np.rint(wanted)
    if size <= np.linalg.norm(nearest) <= limit:
        return np.asarray(nearest)
    room = np.where(wanted > 0, LEVELS - base, base).ravel()
    whole = _longest(np.abs(wanted).ravel(), room, min(size, limit) ** 2)
    return np.asarray(np.sign(wanted) * whole.reshape(wanted.shape))


def _longest(lengths: Levels, room: Levels, most: float) -> Levels:
    """Whole numbers of at most `room` whose squares sum to at most `most`, that are as far along as can be.

    A pixel's step from k to k + 1 levels adds its length to the move along, and 2k + 1 to the sum: those steps are
    taken that give most for what they cost. Down to some bound on that, this is rounding the lengths at one scale.
    """
    low, high = 0.0, (np.sqrt(most) + 1.0) / max(float(lengths.max()), TINY)
    for _ in range(HALVINGS):
        scale = (low + high) / 2
        fits = np.square(np.minimum(np.rint(scale * lengths), room)).sum() <= most
        low, high = (scale, high) if fits else (low, scale)
    whole = np.minimum(np.rint(low * lengths), room)
    cost = 2.0 * whole + 1.0
    free = np.flatnonzero((whole < room) & (lengths > 0))
    free = free[np.argsort(-lengths[free] / cost[free], kind="stable")]
    whole[free[np.square(whole).sum() + np.cumsum(cost[free]) <= most]] += 1.0
    return np.asarray(whole)
