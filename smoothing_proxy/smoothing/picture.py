"""One picture, ready to be drawn from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from smoothing_proxy.errors import ImageError
from smoothing_proxy.images import geometry, noise, pixels
from smoothing_proxy.types import Certificate

__all__ = ["ImageLike", "Picture", "canonical", "place", "prepare"]

ImageLike: TypeAlias = str | Path | bytes | npt.NDArray[np.uint8]
"""A file, a file's bytes, or a uint8 [h, w, 3] RGB array."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture on the integer grid, with the entropy that its noise comes from.

    id: unique among the pictures of one journal. grid: int32 [h, w, 3] at the working size, scale 255 * 256.
    resize: from the user's picture to the working size. entropy: 16 bytes, from the operating system.
    """

    id: int
    grid: npt.NDArray[np.int32]
    resize: geometry.ResizeMap
    entropy: bytes

    @property
    def working_size(self) -> tuple[int, int]:
        """(height, width) where the noise is added."""
        return self.grid.shape[0], self.grid.shape[1]

    def place(self, certificate: Certificate) -> Certificate:
        """The certificate with the sizes that its radii speak of, and its radius in the user's own space."""
        return place(certificate, self.resize)


def place(certificate: Certificate, resize: geometry.ResizeMap) -> Certificate:
    """See Picture.place; `resize` led from the user's picture to the one that the certificate speaks of."""
    return replace(
        certificate,
        input_radius=geometry.input_radius(certificate.radius, resize),
        working_size=resize.working_size,
        input_size=resize.input_size,
    )


def canonical(image: ImageLike) -> npt.NDArray[np.uint8]:
    """The canonical picture, uint8 [h, w, 3] upright sRGB. Raises ImageError when there is no such picture."""
    if isinstance(image, str | Path):
        return pixels.read(Path(image))
    if isinstance(image, bytes):
        return pixels.decode(image)
    if not isinstance(image, np.ndarray):
        raise ImageError(f"expected a path, bytes or a uint8 array [height, width, 3], got {type(image).__name__}")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise ImageError(f"expected a uint8 array [height, width, 3], got {image.dtype} {list(image.shape)}")
    return np.ascontiguousarray(image)


def prepare(
    image: npt.NDArray[np.uint8], working_size: str, *, picture_id: int = 0, entropy: bytes | None = None
) -> Picture:
    """Resize a canonical picture and put it on the grid; entropy None takes fresh bits from the system."""
    resize = geometry.resize_map(image.shape[0], image.shape[1], geometry.WorkingSize.parse(working_size))
    grid = noise.pixels_to_grid(image) if resize.is_identity else noise.to_grid(resize.apply(image))
    return Picture(id=picture_id, grid=grid, resize=resize, entropy=entropy or noise.new_entropy())
