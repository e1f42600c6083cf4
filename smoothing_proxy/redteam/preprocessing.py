"""A backend's preprocessing as a differentiable function."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from smoothing_proxy.backends.local.preprocess import Preprocess

__all__ = ["Fitted"]

LUMA = (19595 / 65536, 38470 / 65536, 7471 / 65536)
"""ITU-R 601, as `Preprocess` has it in integers."""


class _Covering(Preprocess):
    def covering(self, height: int, width: int) -> tuple[int, int]:
        """What a picture of this size is resized to before it is cropped."""
        return self._covering(height, width)


class Fitted(nn.Module):
    """float32 [n, 3, h, w] in [0, 1] to what a network sees, as `Preprocess.normalise` does it on bytes.

    Equal to it where the picture has the network's size; where it is resized, the backend rounds to 8 bits between
    its two passes, and this does not.
    """

    def __init__(self, preprocess: Preprocess) -> None:
        super().__init__()
        self._preprocess = _Covering(**preprocess.model_dump(include=set(Preprocess.model_fields)))

    def forward(self, pictures: Tensor) -> Tensor:
        """See the class."""
        settings = self._preprocess
        values = self._sized(pictures)
        if settings.channels == 1:
            values = (values * values.new_tensor(LUMA).reshape(1, 3, 1, 1)).sum(dim=1, keepdim=True)
        mean, std = (values.new_tensor(part).reshape(1, -1, 1, 1) for part in (settings.mean, settings.std))
        return (values * settings.scale - mean) / std

    def _sized(self, pictures: Tensor) -> Tensor:
        settings, size = self._preprocess, (pictures.shape[2], pictures.shape[3])
        if settings.size is None or size == settings.size:
            return pictures
        if settings.mode == "stretch":
            return self._resized(pictures, settings.size)
        return _centre(self._resized(pictures, settings.covering(*size)), settings.size)

    def _resized(self, pictures: Tensor, size: tuple[int, int]) -> Tensor:
        mode = self._preprocess.interpolation
        resized: Tensor = interpolate(pictures, size, mode=mode, antialias=True, align_corners=False)
        return torch.clamp(resized, 0.0, 1.0)


def _centre(pictures: Tensor, size: tuple[int, int]) -> Tensor:
    top, left = (round((have - want) / 2.0) for have, want in zip(pictures.shape[2:], size, strict=True))
    return pictures[:, :, top : top + size[0], left : left + size[1]]
