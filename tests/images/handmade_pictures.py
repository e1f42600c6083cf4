"""Small pictures, and files written by hand where no library writes them."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image

H, W = 12, 17
COLOUR = np.random.default_rng(0).integers(0, 256, (H, W, 3), dtype=np.uint8)
GREY = np.linspace(0, 255, H * W).astype(np.uint8).reshape(H, W)
DEEP = np.linspace(0, 65535, H * W).astype(np.uint16).reshape(H, W)
DEEP_COLOUR = np.random.default_rng(1).integers(0, 65536, (H, W, 3), dtype=np.uint16)
ALPHA = np.tile(np.linspace(0, 255, W).astype(np.uint8), (H, 1))


def three(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey[:, :, None], 3, axis=2)


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png_of(*chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG file of these chunks and the last one, which every PNG ends with."""
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in (*chunks, (b"IEND", b""))
    )


def png(bits: int, colour_type: int, rows: list[bytes], *chunks: tuple[bytes, bytes], width: int = W) -> bytes:
    """A PNG file of any kind of pixel; `rows` are packed, `chunks` come between header and pixels."""
    header = struct.pack(">IIBBBBB", width, len(rows), bits, colour_type, 0, 0, 0)
    body = zlib.compress(b"".join(b"\x00" + row for row in rows))
    return png_of((b"IHDR", header), *chunks, (b"IDAT", body))


def tiff(bits: int, photometric: int, content: bytes, height: int, width: int) -> bytes:
    """A little-endian TIFF file of one grey strip."""
    tags = [
        (256, width),
        (257, height),
        (258, bits),
        (259, 1),
        (262, photometric),
        (273, 0),
        (277, 1),
        (278, height),
    ]
    tags.append((279, len(content)))
    start = 8 + 2 + 12 * len(tags) + 4
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, start if tag == 273 else value) for tag, value in tags)
    return b"II*\x00" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + content


RGB = Image.fromarray(COLOUR)
PALETTE = RGB.quantize(32)
PALETTE_COLOUR = np.asarray(PALETTE.convert("RGB"))
