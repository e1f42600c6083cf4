"""A classifier for the tests of what goes wrong in the middle of an attack; `reset` says when it does."""

from __future__ import annotations

import os
import signal
import threading

import numpy as np
import numpy.typing as npt

_LOCK = threading.Lock()
_SEEN = {"asked": 0, "fails": -1, "turns": -1, "interrupts": -1}


def reset(*, fails: int = -1, turns: int = -1, interrupts: int = -1) -> None:
    """fails: the number of the query that fails. turns: of that from which on every answer is another one.

    interrupts: of the query at which the user presses Ctrl-C. Queries are numbered from 0.
    """
    _SEEN.update(asked=0, fails=fails, turns=turns, interrupts=interrupts)


def asked() -> int:
    """How many queries there were."""
    return _SEEN["asked"]


def shade(pixels: npt.NDArray[np.uint8]) -> list[str]:
    """pixels: uint8 [n, h, w, 3] -> "light" or "dark" for each."""
    return [_one(picture) for picture in pixels]


def _one(picture: npt.NDArray[np.uint8]) -> str:
    with _LOCK:
        number, _SEEN["asked"] = _SEEN["asked"], _SEEN["asked"] + 1
    if number == _SEEN["interrupts"]:
        os.kill(os.getpid(), signal.SIGINT)
    if number == _SEEN["fails"]:
        raise RuntimeError("away")
    if 0 <= _SEEN["turns"] <= number:
        return "turned"
    return "light" if picture.mean() > 127 else "dark"
