"""A small classifier for the command line's tests: which third of the grey scale a picture is in."""

from __future__ import annotations

import time

import numpy as np
import numpy.typing as npt

SHADES = ("dark", "grey", "light")


def shade(pixels: npt.NDArray[np.uint8]) -> list[str]:
    """pixels: uint8 [n, h, w, 3] -> a shade for each."""
    thirds = np.minimum(pixels.mean(axis=(1, 2, 3)) // 86, 2).astype(int)
    return [SHADES[third] for third in thirds]


def slow_shade(pixels: npt.NDArray[np.uint8]) -> list[str]:
    """The same, 20 ms a request."""
    time.sleep(0.02)
    return shade(pixels)


def broken(pixels: npt.NDArray[np.uint8]) -> list[str]:
    """Never answers."""
    raise RuntimeError("the model file is gone")
