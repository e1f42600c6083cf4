"""Classifiers that may be differentiated: frozen, in eval mode, gradients only through them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from denoiser_training.classifier_networks import load_network, resolved
from denoiser_training.config import SurrogateSettings
from denoiser_training.faults import out_of_memory
from smoothing_proxy.errors import ConfigError

__all__ = ["Surrogate", "fitted", "in_turn", "load_surrogate"]


class Surrogate(nn.Module):
    """A frozen classifier. name: as in the config. origin: what the card says about it.

    input_px: pictures of another size are resized to this side; 0 takes them as they come.
    """

    def __init__(self, name: str, network: nn.Module, *, input_px: int = 0, origin: str = "") -> None:
        super().__init__()
        self.name, self.origin, self.input_px = name, origin or name, input_px
        self.network = network.requires_grad_(requires_grad=False)
        self.eval()

    def train(self, mode: bool = True) -> Surrogate:  # noqa: FBT001  (torch's signature)
        """Stays in eval mode: batch norm in train mode would couple the pictures of a batch."""
        del mode
        return super().train(mode=False)

    def forward(self, pictures: Tensor) -> Tensor:
        """Float [n, 3, h, w], clipped to [0, 1] as the codec does, to float32 logits [n, classes]."""
        logits: Tensor = self.network(fitted(pictures.clamp(0, 1), self.input_px))
        return logits.float()

    def _device(self) -> torch.device:
        parameter = next(self.parameters(), None)
        return torch.device("cpu") if parameter is None else parameter.device

    def classes(self, crop_px: int) -> int:
        """How many it knows. Raises ConfigError when it cannot take pictures of this size."""
        try:
            with torch.no_grad():
                logits = self(torch.zeros(1, 3, crop_px, crop_px, device=self._device()))
        except (RuntimeError, ValueError, TypeError, IndexError, AssertionError) as error:
            if out_of_memory(error):
                raise
            raise ConfigError(
                f"surrogate {self.name!r} cannot take pictures of {crop_px}x{crop_px} px (set input_px): {error}"
            ) from error
        if logits.ndim != 2:
            raise ConfigError(f"surrogate {self.name!r}: expected logits [n, classes], got {list(logits.shape)}")
        return int(logits.shape[1])


def fitted(pictures: Tensor, input_px: int) -> Tensor:
    """Float [n, 3, h, w], resized to input_px x input_px unless that is 0."""
    if not input_px or pictures.shape[2:] == (input_px, input_px):
        return pictures
    return functional.interpolate(pictures, (input_px, input_px), mode="bilinear", antialias=True)


def load_surrogate(settings: SurrogateSettings) -> Surrogate:
    """The classifier that `settings` name, frozen. Raises ConfigError when it cannot be had."""
    settings = resolved(settings)
    return Surrogate(settings.name, load_network(settings), input_px=settings.input_px, origin=_origin(settings))


def in_turn(surrogates: Sequence[Surrogate], per_step: int, step: int) -> Sequence[Surrogate]:
    """Those of this step: `per_step` of them, going round, as in Salman et al.; 0 takes all."""
    if per_step == 0 or per_step >= len(surrogates):
        return surrogates
    first = step * per_step
    return [surrogates[(first + i) % len(surrogates)] for i in range(per_step)]


def _origin(settings: SurrogateSettings) -> str:
    if settings.weights is None:
        return f"{settings.name} ({settings.network})"
    digest = hashlib.sha256(settings.weights.read_bytes()).hexdigest()
    return f"{settings.name} ({settings.network}, sha256 {digest[:16]})"
