"""A U-Net that is told sigma: one network for a whole range of noise levels.

The shape is that of Ronneberger, Fischer, Brox, "U-Net", MICCAI 2015 (arXiv 1505.04597). Residual blocks, strided
convolutions, additive skips and the noise level as an input plane follow DRUNet: Zhang, Li, Zuo, Zhang, Van Gool,
Timofte, "Plug-and-Play Image Restoration with Deep Denoiser Prior", TPAMI 2021 (arXiv 2008.13751). There is no
normalisation layer, so that one picture's output cannot depend on another's.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from smoothing_proxy.errors import DenoiserError

__all__ = ["UNet"]


class UNet(nn.Module):
    """noisy - f(noisy, sigma), f at `len(widths)` resolutions, each half of the one above.

    channels: of the pictures, >= 1. widths: features per level, finest first, 1 to 6 levels of 1..1024.
    blocks: residual blocks per level on the way down and again on the way up, 1..16.
    Raises DenoiserError outside of these. The defaults have 1,044,291 weights, most at the coarsest level.
    """

    def __init__(self, channels: int = 3, widths: Sequence[int] = (32, 64, 128), blocks: int = 2) -> None:
        super().__init__()
        _check(channels, widths, blocks)
        pairs = list(pairwise(widths))
        self.multiple = 2 ** len(pairs)
        self.head = nn.Conv2d(channels + 1, widths[0], 3, padding=1)
        self.down = nn.ModuleList(_level(fine, blocks) for fine, _ in pairs)
        self.shrink = nn.ModuleList(nn.Conv2d(fine, coarse, 2, stride=2) for fine, coarse in pairs)
        self.bottom = _level(widths[-1], blocks)
        self.grow = nn.ModuleList(_grow(coarse, fine) for fine, coarse in pairs)
        self.up = nn.ModuleList(_level(fine, blocks) for fine, _ in pairs)
        self.tail = nn.Conv2d(widths[0], channels, 3, padding=1)

    def forward(self, noisy: Tensor, sigma: float | Tensor) -> Tensor:
        """noisy: float [n, channels, h, w], any h and w >= 1. Returns the same shape, unclipped.

        sigma: of the noise on the pictures' own [0, 1] scale: one number, or one per picture ([n]).
        """
        height, width = noisy.shape[-2:]
        edge = (0, -width % self.multiple, 0, -height % self.multiple)
        padded = functional.pad(noisy, edge, mode="replicate")
        noise = self._noise(torch.cat([padded, _plane(padded, sigma)], dim=1))
        return noisy - noise[..., :height, :width]

    def _noise(self, x: Tensor) -> Tensor:
        x = self.head(x)
        skips = []
        for level, shrink in zip(self.down, self.shrink, strict=True):
            x = level(x)
            skips.append(x)
            x = shrink(x)
        x = self.bottom(x)
        for level, grow, skip in reversed(list(zip(self.up, self.grow, skips, strict=True))):
            x = level(grow(x) + skip)
        noise: Tensor = self.tail(x)
        return noise


class ResidualBlock(nn.Module):
    """x + conv(relu(conv(x))): two 3x3 convolutions of `width` features.

    The second starts at a tenth of its usual size, so that a deep stack without normalisation starts near the
    identity.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        with torch.no_grad():
            self.second.weight.mul_(0.1)

    def forward(self, x: Tensor) -> Tensor:
        """x: [n, width, h, w]. Returns the same shape."""
        change: Tensor = self.second(functional.relu(self.first(x)))
        return x + change


def _level(width: int, blocks: int) -> nn.Sequential:
    return nn.Sequential(*(ResidualBlock(width) for _ in range(blocks)))


def _grow(coarse: int, fine: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(coarse, 4 * fine, 1), nn.PixelShuffle(2))


def _plane(pictures: Tensor, sigma: float | Tensor) -> Tensor:
    """[n, 1, h, w]: sigma on the scale of the pixels, which is what the noise in the other planes shows."""
    n, _, height, width = pictures.shape
    column = torch.as_tensor(sigma, dtype=pictures.dtype, device=pictures.device).reshape(-1, 1, 1, 1)
    return column.expand(n, 1, height, width)


def _check(channels: int, widths: Sequence[int], blocks: int) -> None:
    fits = channels >= 1 and 1 <= len(widths) <= 6 and all(1 <= width <= 1024 for width in widths)
    if not fits or not 1 <= blocks <= 16:
        raise DenoiserError(
            f"UNet(channels={channels}, widths={list(widths)}, blocks={blocks}): "
            "expected channels >= 1, 1 to 6 widths of 1..1024, blocks 1..16"
        )
