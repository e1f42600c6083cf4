"""Which way up: EXIF's orientation read from its block and applied to the pixels.

Read here rather than by Pillow, whose reader warns about blocks that are damaged elsewhere, so that a picture's
orientation would depend on the process's warning filters.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

__all__ = ["orientation", "upright"]

_ORIENTATION, _SHORT = 0x0112, 3
_TURNS: dict[int, Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.uint8]]] = {
    2: np.fliplr,
    3: lambda image: np.rot90(image, 2),
    4: np.flipud,
    5: lambda image: image.swapaxes(0, 1),
    6: lambda image: np.rot90(image, -1),
    7: lambda image: np.rot90(image, 2).swapaxes(0, 1),
    8: np.rot90,
}


def upright(image: npt.NDArray[np.uint8], exif: bytes) -> npt.NDArray[np.uint8]:
    """image: uint8 [h, w, 3] as stored. exif: the file's EXIF block or b"". Returns it upright, C-contiguous."""
    turn = _TURNS.get(orientation(exif))
    return np.ascontiguousarray(turn(image) if turn else image)


def orientation(exif: bytes) -> int:
    """The first IFD's tag 0x0112 (EXIF 2.32, 4.6.4 A); 1, which is upright, where the block does not say 1..8."""
    block = exif.removeprefix(b"Exif\x00\x00")
    order = {b"II*\x00": "<", b"MM\x00*": ">"}.get(block[:4])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(order + "I", block, 4)
        (entries,) = struct.unpack_from(order + "H", block, start)
        for index in range(entries):
            tag, kind, _, value = struct.unpack_from(order + "HHIH", block, start + 2 + 12 * index)
            if tag == _ORIENTATION and kind == _SHORT:
                return value if 1 <= value <= 8 else 1
    except struct.error:
        return 1
    return 1
