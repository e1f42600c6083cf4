"""No denoiser: the base classifier sees the noise as it is. The baseline of every comparison."""

from __future__ import annotations

from dataclasses import dataclass

from smoothing_proxy.denoisers.batches import Pictures, check_noise_level, check_pictures

__all__ = ["Identity"]


@dataclass(frozen=True, slots=True)
class Identity:
    """Returns what it was given."""

    name = "identity"
    fingerprint = "identity"
    batch_size = 64

    def check(self, sigma: float, height: int, width: int) -> None:
        """Every size; raises DenoiserError unless sigma is a number >= 0."""
        check_noise_level(self.name, sigma)

    def denoise(self, noisy: Pictures, sigma: float) -> Pictures:
        """The same array, unclipped. Raises DenoiserError for another dtype or shape than Denoiser states."""
        check_pictures(self.name, noisy)
        return noisy
