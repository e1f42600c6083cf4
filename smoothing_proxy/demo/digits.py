"""The demo's pictures and its black box: handwritten digits, and a support vector classifier.

The digits are the 8x8 test set of Alpaydin and Kaynak (1998), "Optical Recognition of Handwritten Digits", UCI
Machine Learning Repository, which scikit-learn carries. Every fifth is a test digit: neither the classifier nor
the denoiser has seen it.
"""

from __future__ import annotations

import csv
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from smoothing_proxy.errors import ConfigError

__all__ = ["SIDE", "export_test_digits", "margins", "read_digits", "sampled_at", "unseen_digit"]

SIDE = 8
TEST_EVERY = 5


def export_test_digits(folder: Path, count: int) -> dict[str, str]:
    """Write the first `count` test digits as 8x8 PNG files, and labels.csv beside them; returns file -> label."""
    from PIL import Image

    pixels, labels = _digits()
    folder.mkdir(parents=True, exist_ok=True)
    reference = {}
    for number in np.flatnonzero(_is_test(len(labels)))[:count]:
        name = f"digit-{number:04d}.png"
        Image.fromarray(pixels[number]).save(folder / name)
        reference[name] = str(labels[number])
    with (folder.parent / "labels.csv").open("w", encoding="utf-8", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["file", "label"])
        table.writerows(reference.items())
    return reference


def read_digits(pixels: npt.NDArray[np.uint8]) -> list[str]:
    """The black box: a support vector classifier (RBF kernel, scikit-learn's defaults) that knows 8x8 digits.

    pixels: uint8 [n, h, w, 3], any size from 8 pixels a side; it looks at the centres of 8 x 8 cells. It was
    fitted to the digits that are no test.
    """
    height, width = pixels.shape[1:3]
    grey = pixels[:, sampled_at(height)[:, None], sampled_at(width)[None, :]].mean(axis=3)
    answers: list[str] = _fitted().predict(grey.reshape(-1, SIDE * SIDE) / 255.0).tolist()
    return answers


def sampled_at(side_px: int) -> npt.NDArray[np.int64]:
    """int [8]: the rows, or columns, of a picture of this height or width that the black box looks at."""
    return (np.arange(SIDE) * 2 + 1) * side_px // (2 * SIDE)


def margins(grey: npt.NDArray[np.float64]) -> tuple[list[str], npt.NDArray[np.float64]]:
    """The classes, and the black box's decision function, [n, 10]; it answers the class of the largest value.

    grey: [n, 64] on [0, 1]. A vendor does not show it: it is here for whoever attacks his own classifier.
    """
    fitted = _fitted()
    return [str(name) for name in fitted.classes_], fitted.decision_function(grey)


def unseen_digit(number: int) -> tuple[npt.NDArray[np.uint8], str]:
    """A test digit, uint8 [8, 8], and its label. Raises ConfigError for a number that is none of theirs."""
    pixels, labels = _digits()
    if not (0 <= number < len(labels) and _is_test(len(labels))[number]):
        raise ConfigError(
            f"digit {number} is no test digit: expected a multiple of {TEST_EVERY} below {len(labels)}"
        )
    return pixels[number], str(labels[number])


@cache
def _fitted() -> Any:
    svm = _sklearn("sklearn.svm")
    pixels, labels = _digits()
    training = ~_is_test(len(labels))
    return svm.SVC().fit(pixels[training].reshape(-1, SIDE * SIDE) / 255.0, labels[training].astype(str))


def _is_test(count: int) -> npt.NDArray[np.bool_]:
    chosen: npt.NDArray[np.bool_] = np.arange(count) % TEST_EVERY == 0
    return chosen


def _digits() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """All digits: uint8 [1797, 8, 8] and their labels 0..9; scikit-learn's grey levels 0..16 become 0..255."""
    digits = _sklearn("sklearn.datasets").load_digits()
    return (digits.images * (255 / 16)).round().astype(np.uint8), digits.target


def _sklearn(module: str) -> Any:
    from importlib import import_module

    try:
        return import_module(module)
    except ImportError:
        raise ConfigError(
            "the demo's digits come from scikit-learn: pip install 'smoothing-proxy[demo]'"
        ) from None
