"""DnCNN: a plain stack of convolutions that predicts the noise; one network per noise level.

Zhang, Zuo, Chen, Meng, Zhang, "Beyond a Gaussian Denoiser", IEEE TIP 2017 (arXiv 1608.03981), section III: the
denoiser of Salman et al. 2020. The U-Net (unet.py) is the other choice: it sees more of the picture, is told
sigma, and is faster.
"""

from __future__ import annotations

from itertools import chain

from torch import Tensor, nn

from smoothing_proxy.errors import DenoiserError

__all__ = ["DnCNN"]


class DnCNN(nn.Module):
    """noisy - f(noisy), f: `depth` 3x3 convolutions, all but the first and the last with batch normalisation.

    channels: of the pictures, >= 1. width: features per layer, 1..1024. depth: convolutions, 3..64; the receptive
    field is 2 * depth + 1 pixels. Raises DenoiserError outside of these. The paper's colour network is 3, 64, 17:
    558,403 weights.
    """

    def __init__(self, channels: int = 3, width: int = 64, depth: int = 17) -> None:
        super().__init__()
        if channels < 1 or not 1 <= width <= 1024 or not 3 <= depth <= 64:
            raise DenoiserError(
                f"DnCNN(channels={channels}, width={width}, depth={depth}): "
                "expected channels >= 1, width 1..1024, depth 3..64"
            )
        middle = chain.from_iterable(_normalised(width) for _ in range(depth - 2))
        self.layers = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1),
            nn.ReLU(inplace=True),
            *middle,
            nn.Conv2d(width, channels, 3, padding=1),
        )

    def forward(self, noisy: Tensor, sigma: float | Tensor) -> Tensor:
        """noisy: [n, channels, h, w], any h and w >= 1. sigma: unused. Returns the same shape, unclipped."""
        noise: Tensor = self.layers(noisy)
        return noisy - noise


def _normalised(width: int) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(width, width, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
    return convolution, nn.BatchNorm2d(width), nn.ReLU(inplace=True)
