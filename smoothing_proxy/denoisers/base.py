"""What a denoiser is to the rest of the house."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

__all__ = ["Denoiser", "FixedBatches"]


@runtime_checkable
class Denoiser(Protocol):
    """Removes Gaussian noise from a batch of pictures.

    The output for one picture must not depend on the other pictures of its batch: the proof speaks of a fixed
    function of one noisy picture.
    """

    @property
    def name(self) -> str:
        """As the user would write it: "identity", "wavelet:haar", "digits"."""
        ...

    @property
    def fingerprint(self) -> str:
        """Changes when the function changes: name and options, or the sha256 of the weights."""
        ...

    @property
    def batch_size(self) -> int:
        """How many pictures one call takes at best, >= 1; more are split inside, so memory stays bounded."""
        ...

    def check(self, sigma: float, height: int, width: int) -> None:
        """Raises DenoiserError when this noise level or picture size is not what the denoiser was made for."""
        ...

    def denoise(self, noisy: npt.NDArray[np.float32], sigma: float) -> npt.NDArray[np.float32]:
        """noisy: float32 [n, h, w, 3], pictures on [0, 1] plus noise, so outside of it too; not clipped.

        sigma: the noise's standard deviation on the [0, 1] pixel scale. Returns float32 [n, h, w, 3], unclipped.
        """
        ...


@runtime_checkable
class FixedBatches(Protocol):
    """A denoiser that computes as long for a few pictures as for several."""

    def rows(self, height: int, width: int) -> int:
        """Pictures of this size that it computes at a time, >= 1, filled up where there are fewer."""
        ...
