"""The encoding that copies travel in, before a network: JPEG changes what a classifier sees."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from smoothing_proxy.images import codec
from smoothing_proxy.images.codec import Encoding
from smoothing_proxy.redteam.grid import to_pixels
from smoothing_proxy.redteam.networks import Network

__all__ = ["coded"]


def coded(network: Network, encoding: Encoding) -> Network:
    """The network behind the product's own encoder and decoder, as one differentiable function.

    Gradients pass the codec as if it were not there (BPDA, Athalye et al. 2018), and go through the enlargement to
    the encoding's shortest side. A network whose copies travel as they are is given back as it is.
    """
    if encoding.format != "jpeg" and encoding.min_side_px == 0:
        return network

    def seen(pictures: Tensor) -> Tensor:
        logits: Tensor = network(_travelled(pictures, encoding))
        return logits

    name = f"{network.name} by {encoding}"
    return Network(seen, name=name, classes=network.classes, device=network.device, noisy=network.noisy)


def _travelled(pictures: Tensor, encoding: Encoding) -> Tensor:
    """Float [n, 3, h, w] as they arrive, on [0, 1] and the 8-bit grid; larger where the encoding enlarges."""
    sent = to_pixels(np.nan_to_num(pictures.detach().cpu().float().numpy()))
    arrived = np.stack([codec.decode(codec.encode(one, encoding)) for one in sent])
    exact = torch.from_numpy(arrived).permute(0, 3, 1, 2).to(pictures) / 255.0
    if exact.shape != pictures.shape:
        size = (exact.shape[2], exact.shape[3])
        pictures = interpolate(pictures, size, mode="bilinear", align_corners=False)
    return pictures + (exact - pictures).detach()
