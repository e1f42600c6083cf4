"""Networks by name: what a card says into a module."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from smoothing_proxy.denoisers.dncnn import DnCNN
from smoothing_proxy.denoisers.unet import UNet
from smoothing_proxy.errors import DenoiserError, nearest

__all__ = ["ARCHITECTURES", "build"]

ARCHITECTURES: Mapping[str, Callable[..., nn.Module]] = {"dncnn": DnCNN, "unet": UNet}
"""Name to factory. A module's forward takes (noisy [n, 3, h, w], sigma: number or [n]) and keeps the shape."""


def build(architecture: str, options: Mapping[str, Any]) -> nn.Module:
    """A network with random weights. options: the factory's own keyword arguments, as a card writes them.

    Raises DenoiserError for an unknown name (with the nearest one) and for options that the factory refuses.
    """
    factory = ARCHITECTURES.get(architecture)
    if factory is None:
        raise DenoiserError(f"unknown architecture {architecture!r}{nearest(architecture, ARCHITECTURES)}")
    try:
        return factory(**options)
    except (TypeError, ValueError) as error:
        raise DenoiserError(f"architecture {architecture!r}: options {dict(options)!r}: {error}") from error
