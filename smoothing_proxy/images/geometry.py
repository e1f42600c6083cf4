"""Resizing as a linear map with a known norm: a radius at the working size becomes a radius at the input size.

The map is separable: one matrix acts along the height, one along the width, on each colour alike.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from smoothing_proxy.errors import ConfigError, ImageError
from smoothing_proxy.images.noise import GRID_SCALE

if TYPE_CHECKING:
    from scipy.sparse import csr_array

    Operator = csr_array[np.float64, tuple[int, int]]

__all__ = ["MAX_SIDE_PX", "MAX_WORKING_PX", "ResizeMap", "WorkingSize", "input_radius", "resize_map"]

MAX_SIDE_PX = 8192
"""The largest side that a working size may name."""

MAX_WORKING_PX = 50_000_000
"""The largest picture that a working size may lead to."""

_FORMS = "'original', '224x224' (height x width), 'shorter=256', 'shorter=256,crop=224' or 'longer=640'"
_COMBINATIONS = {(), ("height", "width"), ("shorter",), ("shorter", "crop"), ("longer",)}
_PATTERN = re.compile(
    "original|(?P<height>N)x(?P<width>N)|shorter=(?P<shorter>N)(,crop=(?P<crop>N))?|longer=(?P<longer>N)".replace(
        "N", r"[0-9]{1,9}"
    )
)
_BLOCK_VALUES = 1 << 22


@dataclass(frozen=True, slots=True)
class WorkingSize:
    """At which size noise is added and the denoiser works. All in pixels; nothing set keeps the picture's size.

    height and width: exactly this size, whatever the picture's shape. shorter: the shorter side becomes this
    long, in both directions, the longer one in proportion and rounded down, as classifiers' own preprocessing
    does. crop: then the square in the middle. longer: the longer side becomes at most this long; smaller
    pictures stay as they are. Raises ConfigError for other combinations and for sides not in 1..MAX_SIDE_PX.
    """

    height: int | None = None
    width: int | None = None
    shorter: int | None = None
    crop: int | None = None
    longer: int | None = None

    def __post_init__(self) -> None:
        sides = self._sides()
        if tuple(sides) not in _COMBINATIONS:
            raise ConfigError(f"a working size of {sides}: expected {_FORMS}")
        for name, value in sides.items():
            if not 1 <= value <= MAX_SIDE_PX:
                raise ConfigError(f"working size {self}: {name} is not in 1..{MAX_SIDE_PX} px")
        if self.crop is not None and self.shorter is not None and self.crop > self.shorter:
            raise ConfigError(f"working size {self}: the crop is larger than the shorter side")

    @classmethod
    def parse(cls, text: str) -> WorkingSize:
        """The inverse of str(). Raises ConfigError on anything that is not one of the five forms."""
        match = _PATTERN.fullmatch(text)
        if match is None:
            raise ConfigError(f"working size {text!r}: expected {_FORMS}")
        return cls(**{name: int(value) for name, value in match.groupdict().items() if value is not None})

    def __str__(self) -> str:
        if self.height is not None:
            return f"{self.height}x{self.width}"
        return ",".join(f"{name}={value}" for name, value in self._sides().items()) or "original"

    def _sides(self) -> dict[str, int]:
        named = {name: getattr(self, name) for name in ("height", "width", "shorter", "crop", "longer")}
        return {name: value for name, value in named.items() if value is not None}

    def before_crop(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) that a picture of this size is resized to."""
        if self.height is not None and self.width is not None:
            return self.height, self.width
        if self.shorter is not None:
            return _in_proportion(height, width, self.shorter, min(height, width))
        if self.longer is not None and max(height, width) > self.longer:
            return _in_proportion(height, width, self.longer, max(height, width))
        return height, width


def _in_proportion(height: int, width: int, wanted: int, side: int) -> tuple[int, int]:
    return max(1, height * wanted // side), max(1, width * wanted // side)


@dataclass(frozen=True, slots=True, eq=False)
class ResizeMap:
    """R: resizes an input picture to the working size.

    rows: sparse float64 [out_h, in_h]. cols: sparse float64 [out_w, in_w]. Rows of both are >= 0 and sum to 1.
    norm: at least the spectral norm of R, which is the product of the two largest singular values.
    is_selection: every working pixel is one input pixel (same size, or only cropped).
    """

    rows: Operator
    cols: Operator
    norm: float
    is_selection: bool

    @property
    def input_size(self) -> tuple[int, int]:
        """(height, width) of the pictures that the map takes."""
        return self.rows.shape[1], self.cols.shape[1]

    @property
    def working_size(self) -> tuple[int, int]:
        """(height, width) of the pictures that the map makes."""
        return self.rows.shape[0], self.cols.shape[0]

    @property
    def is_identity(self) -> bool:
        """The working picture is the input picture."""
        return self.is_selection and self.input_size == self.working_size

    def apply(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
        """pixels: uint8 [in_h, in_w, 3] -> float64 [out_h, out_w, 3] in [0, 1].

        Each value is within 1e-11 of R's; the clip to [0, 1] brings two pictures no further apart.
        Raises ImageError when the picture has another size.
        """
        height, width = self.input_size
        if pixels.shape != (height, width, 3):
            raise ImageError(f"a picture of shape {list(pixels.shape)} where {[height, width, 3]} is expected")
        if self.is_identity:
            return pixels / 255.0
        tall = self._along_height(pixels.reshape(height, -1))
        wide = tall.reshape(-1, width, 3).transpose(1, 0, 2).reshape(width, -1)
        image = np.asarray(self.cols @ wide).reshape(-1, len(tall), 3).transpose(1, 0, 2) / 255.0
        return np.ascontiguousarray(np.clip(image, 0.0, 1.0))

    def _along_height(self, columns: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
        """columns: uint8 [in_h, k] -> float64 [out_h, k]; a part at a time, so float64 never holds the input."""
        result = np.empty((self.rows.shape[0], columns.shape[1]))
        step = max(1, _BLOCK_VALUES // columns.shape[0])
        for start in range(0, columns.shape[1], step):
            part = slice(start, start + step)
            result[:, part] = self.rows @ columns[:, part].astype(np.float64)
        return result


@lru_cache(maxsize=32)
def resize_map(height: int, width: int, working_size: WorkingSize) -> ResizeMap:
    """The map from pictures of height x width px to the working size: bilinear, antialiased when it shrinks.

    It is the triangle filter of Pillow's BILINEAR (and of torchvision's antialiased resize), in float64 and
    without Pillow's rounding to 8 bits. Raises ImageError when the working picture would be above MAX_WORKING_PX.
    """
    tall, wide = working_size.before_crop(height, width)
    out_h, out_w = (tall, wide) if working_size.crop is None else (working_size.crop, working_size.crop)
    if out_h * out_w > MAX_WORKING_PX:
        raise ImageError(
            f"a picture of {height}x{width} px at working size {working_size} would become {out_h}x{out_w} px, "
            f"above {MAX_WORKING_PX} px"
        )
    rows, cols = _resampling(height, tall, out_h), _resampling(width, wide, out_w)
    is_selection = (height, width) == (tall, wide)
    return ResizeMap(rows, cols, 1.0 if is_selection else _norm(rows) * _norm(cols), is_selection)


def input_radius(radius: float, resize: ResizeMap) -> float:
    """The radius around the input picture that a radius around the working picture proves, rounded down.

    Let S = GRID_SCALE and d = out_h out_w 3. The working picture on the grid is G(x) = R x + e(x), where e is the
    rounding of d values, each by at most 1/(2 S), so ||e(x)|| <= sqrt(d) / (2 S). For two input pictures
        ||G(x) - G(x')|| <= ||R|| ||x - x'|| + sqrt(d) / S,
    so the label stays while ||x - x'|| < (radius - sqrt(d) / S) / ||R||. Where R only selects pixels, grid values
    are exact, ||R|| <= 1 and the radius is kept. The factor 1 + 1e-5 on the second term pays for `apply`'s own
    error.
    """
    if resize.is_selection:
        return radius
    height, width = resize.working_size
    rounding = math.sqrt(height * width * 3) / GRID_SCALE * (1.0 + 1e-5)
    return math.nextafter(max(0.0, radius - rounding) / resize.norm, 0.0)


def _resampling(size: int, resized: int, kept: int) -> Operator:
    """Triangle-filter weights of the `kept` middle rows of the map from `size` to `resized` values."""
    from scipy.sparse import csr_array

    if size == resized:
        position = np.arange(resized)[:, None]
        weights = np.ones((resized, 1))
    else:
        scale = size / resized
        support = max(scale, 1.0)
        centre = (np.arange(resized)[:, None] + 0.5) * scale
        taps = min(size, math.ceil(2 * support) + 1)
        first = np.clip(np.floor(centre - support + 0.5).astype(np.int64), 0, size - taps)
        position = first + np.arange(taps)
        weights = np.clip(1.0 - np.abs(position + 0.5 - centre) / support, 0.0, None)
        weights /= weights.sum(axis=1, keepdims=True)
    top = round((resized - kept) / 2)
    position, weights = position[top : top + kept], weights[top : top + kept]
    bounds = np.arange(kept + 1) * weights.shape[1]
    return csr_array((weights.ravel(), position.ravel(), bounds), shape=(kept, size))


def _norm(operator: Operator) -> float:
    """The largest singular value, rounded up by far more than LAPACK's error."""
    from scipy.linalg import eigvals_banded

    out_size, in_size = operator.shape
    gram = operator @ operator.T if out_size <= in_size else operator.T @ operator
    entries = gram.tocoo()
    size, band = gram.shape[0], int(np.abs(entries.row - entries.col).max())
    diagonals = np.stack([np.pad(gram.diagonal(k), (0, k)) for k in range(band + 1)])
    largest = eigvals_banded(diagonals, lower=True, select="i", select_range=(size - 1, size - 1))[0]
    return math.sqrt(float(largest)) * (1.0 + 1e-9)
