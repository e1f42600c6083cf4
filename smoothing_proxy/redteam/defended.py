"""A classifier behind a defence as one differentiable network, for attacks that know the defence.

An attack that ignores the defence proves nothing (Athalye, Carlini, Wagner 2018): it is to be made through it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from smoothing_proxy.denoisers.base import Denoiser
from smoothing_proxy.denoisers.classical import Gaussian, Median, Wavelet
from smoothing_proxy.denoisers.identity import Identity
from smoothing_proxy.errors import ConfigError
from smoothing_proxy.redteam import filters
from smoothing_proxy.redteam.networks import Network

__all__ = ["defended", "differentiable_denoiser"]

Denoising: TypeAlias = Callable[[Tensor], Tensor]
"""Float32 [n, 3, h, w] to the same shape, with gradients."""

MOST_PIXELS = 2**20
"""Noisy pixels in one pass, so that memory stays bounded whatever `copies` is: a U-Net keeps 1 kB of each for the
gradient. Where there are more, each pass is made again for its gradient (checkpoints), a third more work.
"""


def defended(
    network: Network, denoiser: Denoiser, *, sigma: float, copies: int = 8, noise: bool = True, seed: int = 0
) -> Network:
    """The base classifier behind noise and denoiser, in the expectation over the noise (EOT), as one network.

    noise: True gives the logarithm of the mean softmax over `copies` fresh noisy, denoised copies of each picture,
    other ones at every call; False gives the network behind the denoiser alone (a filter at inference). sigma: of
    the noise, and what the denoiser is told. Clipping and the rounding to 8 bits after the denoiser are as the
    product does them; rounding passes its gradient straight through. With the noise of a number, all pictures get
    the same `copies` noises, however many pictures are asked about together.
    Raises ConfigError for copies below 1, DenoiserError as the denoiser where sigma is not what it was made for.
    """
    if copies < 1:
        raise ConfigError(f"copies = {copies}: at least one is needed")
    clean = differentiable_denoiser(denoiser, sigma)
    name = f"{denoiser.name} before {network.name}"

    def filtered(pictures: Tensor) -> Tensor:
        logits: Tensor = network(_bytes(clean(pictures)))
        return logits

    if not noise:
        return Network(filtered, name=name, classes=network.classes, device=network.device)
    stream = torch.Generator(device=network.device).manual_seed(seed)

    def fresh(pictures: Tensor, some: int) -> Tensor:
        shape = (len(pictures) * some, *pictures.shape[1:])
        return torch.randn(shape, generator=stream, device=pictures.device, dtype=pictures.dtype)

    def mean(pictures: Tensor, drawn: Callable[[Tensor, int], Tensor]) -> Tensor:
        total: list[Tensor] = []
        parts = _parts(copies, pictures)
        for some in parts:
            noisy = pictures.repeat_interleave(some, dim=0) + sigma * drawn(pictures, some)
            logits = filtered(noisy) if len(parts) == 1 else checkpoint(filtered, noisy, use_reentrant=False)
            total.append(torch.log_softmax(logits, dim=1).reshape(len(pictures), some, -1))
        return torch.logsumexp(torch.cat(total, dim=1), dim=1) - math.log(copies)

    return Network(
        lambda pictures: mean(pictures, fresh),
        name=f"{name}, sigma {sigma:g}",
        classes=network.classes,
        device=network.device,
        noisy=True,
        steady=lambda pictures, number: mean(pictures, _numbered(number, pictures)),
    )


def _numbered(number: int, pictures: Tensor) -> Callable[[Tensor, int], Tensor]:
    """Draws one noise after the other, so that the parts that they are drawn in change nothing."""
    stream = torch.Generator(device=pictures.device).manual_seed(number)
    one = torch.empty_like(pictures[0])

    def drawn(pictures: Tensor, some: int) -> Tensor:
        draws = [torch.empty_like(one).normal_(generator=stream) for _ in range(some)]
        return torch.stack(draws).repeat(len(pictures), 1, 1, 1)

    return drawn


def differentiable_denoiser(denoiser: Denoiser, sigma: float) -> Denoising:
    """The denoiser with gradients: its own where it has them, else the identity's (BPDA).

    Networks run in the product's precision where that is float32 or bfloat16, whose gradients point the same way
    (cosines from .98) at half the price; one of float16, whose gradients may vanish, runs in float32.
    """
    if isinstance(denoiser, Identity):
        return lambda noisy: noisy
    if isinstance(denoiser, Gaussian):
        return lambda noisy: filters.gaussian(denoiser, noisy)
    if isinstance(denoiser, Median):
        return lambda noisy: filters.median(denoiser, noisy)
    if isinstance(denoiser, Wavelet):
        return lambda noisy: filters.wavelet(denoiser, noisy, sigma)
    module = getattr(denoiser, "module", None)
    if isinstance(module, torch.nn.Module):
        return _networks(module, sigma, getattr(denoiser, "dtype", torch.float32))
    return lambda noisy: filters.straight_through(lambda array: denoiser.denoise(array, sigma), noisy)


def _networks(module: torch.nn.Module, sigma: float, dtype: torch.dtype) -> Denoising:
    mixed = dtype == torch.bfloat16

    def clean(noisy: Tensor) -> Tensor:
        with torch.autocast(noisy.device.type, torch.bfloat16 if mixed else None, enabled=mixed):
            return torch.as_tensor(module(noisy, sigma)).float()

    return clean


def _bytes(pictures: Tensor) -> Tensor:
    """Clipped to [0, 1] and on the 8-bit grid, halves upward as images.codec rounds."""
    inside = pictures.clamp(0.0, 1.0)
    levels = torch.floor(inside.detach() * 255.0 + 0.5) / 255.0
    return inside + (levels - inside).detach()


def _parts(copies: int, pictures: Tensor) -> list[int]:
    """`copies` in parts that fit in memory together with as many pictures."""
    most = max(1, MOST_PIXELS // (len(pictures) * pictures.shape[2] * pictures.shape[3]))
    return [min(most, copies - start) for start in range(0, copies, most)]
