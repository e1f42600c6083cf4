"""Gaussian noise in exact integers: the sum of picture and noise tells nothing that the proof does not allow.

Adding floating-point noise to a floating-point picture leaks the picture through rounding, and the certificate
is then false (Jin et al., arXiv 2205.10159; Voracek and Hein, ICLR 2023). So both are integers on one grid of
GRID_SCALE steps per unit: the noise is drawn without looking at the picture, their sum is exact, and whatever
comes after is a function of the sum. Rounding a Gaussian centred on a grid point to the grid is a function of
that Gaussian, so the theorem of Cohen, Rosenfeld and Kolter (2019) holds as it stands.

One approximation is left: float64 and the ziggurat's 52-bit layers move the probability of a grid value by about
2**-52 at each of its two edges, which is below 2e-5 in total variation for all the values of a 224 x 224 picture
at sigma 0.25 together.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from smoothing_proxy.errors import ConfigError, ImageError

__all__ = [
    "ENTROPY_BYTES",
    "GRID_SCALE",
    "MAX_SIGMA",
    "gaussian",
    "insecure_entropy",
    "new_entropy",
    "noisy_batch",
    "pixels_to_grid",
    "to_grid",
]

GRID_SCALE = 255 * 256
"""Grid steps per unit of the [0, 1] pixel scale; the pixel p of 0..255 is the grid value 256 p exactly."""

MAX_SIGMA = 16.0
"""numpy's ziggurat builds its tail from 53-bit uniforms, so |z| < 12.3 always, and a grid value plus its noise
stays below 2**24, where float32 holds every integer."""

ENTROPY_BYTES = 16

_BLOCK = 1 << 16
"""Values made at a time: a float64 block of half a MiB stays in the cache, whatever the picture's size."""


def new_entropy() -> bytes:
    """16 unpredictable bytes from the operating system: one picture's noise."""
    return secrets.token_bytes(ENTROPY_BYTES)


def insecure_entropy(seed: int, identity: bytes) -> bytes:
    """16 bytes that anyone who knows the seed and the picture's identity can compute.

    For the reproducible mode only: an adversary who can predict the noise is not covered by the proof.
    """
    return hashlib.sha256(b"insecure entropy %d:" % seed + identity).digest()[:ENTROPY_BYTES]


def pixels_to_grid(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.int32]:
    """pixels: uint8 [h, w, 3] -> int32 [h, w, 3] in [0, GRID_SCALE], exact. Raises ImageError on another shape."""
    _check_picture(pixels, np.uint8)
    return pixels.astype(np.int32) * 256


def to_grid(image: npt.NDArray[np.float64]) -> npt.NDArray[np.int32]:
    """image: float64 [h, w, 3] in [0, 1] -> int32 [h, w, 3], the nearest grid values, halves upward.

    Raises ImageError on another shape or type, and on a value outside [0, 1] or NaN.
    """
    _check_picture(image, np.float64)
    if not (image.min() >= 0.0 and image.max() <= 1.0):
        raise ImageError(f"values from {image.min()} to {image.max()} where a picture has [0, 1]")
    return np.floor(image * GRID_SCALE + 0.5).astype(np.int32)


def gaussian(entropy: bytes, draw: int, shape: Sequence[int], sigma: float) -> npt.NDArray[np.int32]:
    """The noise of one draw: int32 of `shape`, floor(sigma GRID_SCALE z + 1/2) with z standard normal in float64.

    floor(v + 1/2), not rint: it commutes with integer shifts, so rounding the noise and adding the picture is the
    same as rounding their sum; rint's ties to even would look at the parity of the picture.

    entropy: 16 bytes. draw: in [0, 2**64). sigma: in [0, MAX_SIGMA], on the [0, 1] pixel scale.
    The result is a function of these alone: Philox4x64 keyed by the entropy, with the draw's number in the
    highest word of its counter, so that two draws share no part of their streams.
    Raises ConfigError when an argument is out of its range.
    """
    noise = np.empty(tuple(shape), dtype=np.int32)
    flat = noise.reshape(-1)
    for part, block in _blocks(entropy, draw, flat.size, sigma):
        flat[part] = block
    return noise


def noisy_batch(
    grid: npt.NDArray[np.int32], entropy: bytes, draws: Sequence[int], sigma: float
) -> npt.NDArray[np.float32]:
    """One noisy copy per draw: float32 [len(draws), h, w, 3], (grid + gaussian(draw)) / GRID_SCALE, not clipped.

    grid: int32 [h, w, 3] in [0, GRID_SCALE], from `pixels_to_grid` or `to_grid`. The sums are exact integers; the
    division rounds, which is a function of the sum. A copy depends on its own draw's number only.
    Raises ConfigError as `gaussian` does, ImageError when the grid has another shape, type or range.
    """
    _check_picture(grid, np.int32)
    if grid.min() < 0 or grid.max() > GRID_SCALE:
        raise ImageError(f"grid values from {grid.min()} to {grid.max()} where [0, {GRID_SCALE}] is allowed")
    copies = np.empty((len(draws), *grid.shape), dtype=np.float32)
    centre = grid.reshape(-1)
    for copy, draw in zip(copies.reshape(len(draws), -1), draws, strict=True):
        for part, block in _blocks(entropy, draw, centre.size, sigma):
            np.add(block, centre[part], out=block)
            np.divide(block, GRID_SCALE, out=copy[part], casting="same_kind")
    return copies


def _blocks(entropy: bytes, draw: int, size: int, sigma: float) -> Iterator[tuple[slice, npt.NDArray[np.float64]]]:
    """One draw's integers as float64, part by part; each block is overwritten by the next."""
    _check_noise(entropy, draw, sigma)
    key = int.from_bytes(entropy, "little")
    normal = np.random.Generator(np.random.Philox(key=key, counter=draw << 192))
    scale = sigma * GRID_SCALE
    buffer = np.empty(min(size, _BLOCK))
    for start in range(0, size, _BLOCK):
        block = buffer[: size - start]
        normal.standard_normal(out=block)
        np.multiply(block, scale, out=block)
        np.add(block, 0.5, out=block)
        np.floor(block, out=block)
        yield slice(start, start + block.size), block


def _check_noise(entropy: bytes, draw: int, sigma: float) -> None:
    if not 0.0 <= sigma <= MAX_SIGMA:
        raise ConfigError(f"sigma is {sigma}; it must be from 0 to {MAX_SIGMA:g}, on the [0, 1] pixel scale")
    if len(entropy) != ENTROPY_BYTES:
        raise ConfigError(f"the entropy of a picture is {ENTROPY_BYTES} bytes, not {len(entropy)}")
    if not 0 <= draw < 1 << 64:
        raise ConfigError(f"draw number {draw} is not in [0, 2**64)")


def _check_picture(array: npt.NDArray[np.generic], dtype: type[np.generic]) -> None:
    if array.dtype != dtype or array.ndim != 3 or array.shape[2] != 3 or array.size == 0:
        raise ImageError(f"{array.dtype} {list(array.shape)} where {dtype.__name__} [h, w, 3] is expected")
