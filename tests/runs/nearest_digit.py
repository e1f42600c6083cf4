"""A classifier for other processes to ask: the nearest of some known digits, with a bill.

Every copy that it is asked about is written to the file ASKED before it is answered, as a vendor bills on receipt.
"""

from __future__ import annotations

import hashlib
import os
import time

import numpy as np
import numpy.typing as npt

with np.load(os.environ["KNOWN_DIGITS"]) as known:
    PIXELS, LABELS = known["pixels"], known["labels"]
BILL = os.open(os.environ["ASKED"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def classify(pixels: npt.NDArray[np.uint8]) -> list[str]:
    """pixels: uint8 [n, 8, 8, 3] -> the label of the nearest known digit, for each."""
    lines = [hashlib.sha256(picture.tobytes()).hexdigest() + "\n" for picture in pixels]
    os.write(BILL, "".join(lines).encode())
    time.sleep(0.002)
    asked = pixels[..., 0].reshape(len(pixels), 1, 64).astype(np.float64)
    nearest = np.square(asked - PIXELS[None]).sum(axis=2).argmin(axis=1)
    return [str(label) for label in LABELS[nearest]]
