"""The demo's pictures and its black box: handwritten digits, and a support vector classifier.

The digits are the 8x8 test set of Alpaydin and Kaynak (1998), "Optical Recognition of Handwritten Digits", UCI
Machine Learning Repository, which scikit-learn carries. Every fifth is a test digit: neither the classifier nor
the denoiser has seen it.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from smoothing_proxy.errors import ConfigError

if TYPE_CHECKING:
    from smoothing_proxy.backends.base import Backend

__all__ = ["black_box", "export_test_digits"]

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


def black_box() -> Backend:
    """A support vector classifier (RBF kernel, scikit-learn's defaults), fitted to the digits that are no test."""
    from smoothing_proxy.backends.local.sklearn_file import sklearn_backend

    svm = _sklearn("sklearn.svm")
    pixels, labels = _digits()
    training = ~_is_test(len(labels))
    flat = pixels[training].reshape(-1, 64) / 255.0
    return sklearn_backend(svm.SVC().fit(flat, labels[training].astype(str)), name="digits-svc", channels=1)


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
