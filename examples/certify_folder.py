"""Certify every picture of a folder through a classifier of your own, from Python.

    python examples/certify_folder.py FOLDER

The classifier here is a toy, the mean brightness, so that the example runs anywhere; put yours in its place: any
function from uint8 [n, height, width, 3] to n labels, or `backend("local:model.tflite", labels="labels.txt")`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt

from smoothing_proxy import SmoothedClassifier, Smoothing, backend, denoiser
from smoothing_proxy.images.pixels import picture_files


def brightness(pixels: npt.NDArray[np.uint8]) -> list[str]:
    """pixels: uint8 [n, height, width, 3]. One label for each picture, from that picture alone."""
    return ["light" if picture.mean() > 127 else "dark" for picture in pixels]


def main(folder: Path) -> None:
    """Print a line for each picture."""
    smoothing = Smoothing(sigma=0.25, n0=50, n=500, working_size="longer=256")
    with SmoothedClassifier(backend(brightness), denoiser=denoiser("median:3"), smoothing=smoothing) as classifier:
        for path in picture_files(folder):
            certificate = classifier.certify(path)
            if certificate.label is None:
                print(f"{path.name}: abstains, {certificate.votes.ranked()[:2]}")
            else:
                print(f"{path.name}: {certificate.label}, unchanged within l2 {certificate.input_radius:.3f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
