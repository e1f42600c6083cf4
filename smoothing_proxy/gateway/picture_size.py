"""How large a picture is going to be, by its header, before a single pixel is unpacked."""

from __future__ import annotations

from smoothing_proxy.images.formats import open_header, sniff
from smoothing_proxy.images.geometry import WorkingSize
from smoothing_proxy.images.pixels import Limits

__all__ = ["working_pixels"]


def working_pixels(image: bytes, size: WorkingSize, limits: Limits) -> int:
    """Pixels at the size at which noise is added; 0 for what will be refused when it is decoded."""
    kind = sniff(image)
    if kind is None:
        return 0
    try:
        with open_header(image, kind) as picture:
            width, height = picture.size
    except Exception:  # noqa: BLE001 (Pillow raises anything; who decodes it says what is wrong)
        return 0
    if height * width > limits.pixels or max(height, width) > limits.side_px:
        return 0
    rows, columns = size.before_crop(height, width)
    return rows * columns if size.crop is None else size.crop**2
