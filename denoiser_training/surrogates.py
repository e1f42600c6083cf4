"""Classifiers that may be differentiated: frozen, in eval mode, gradients only through them."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from denoiser_training.config import SurrogateSettings
from denoiser_training.networks import from_weights
from smoothing_proxy.errors import ConfigError, nearest

__all__ = ["Surrogate", "in_turn", "load_network", "load_surrogate"]

OURS = ("cifar-resnet", "mlp", "mobilenet-v1", "small-cnn")


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
        clipped = pictures.clamp(0, 1)
        if self.input_px and clipped.shape[2:] != (self.input_px, self.input_px):
            size = (self.input_px, self.input_px)
            clipped = functional.interpolate(clipped, size, mode="bilinear", antialias=True)
        logits: Tensor = self.network(clipped)
        return logits.float()

    def _device(self) -> torch.device:
        parameter = next(self.parameters(), None)
        return torch.device("cpu") if parameter is None else parameter.device

    def classes(self, crop_px: int) -> int:
        """How many it knows. Raises ConfigError when it cannot take pictures of this size."""
        try:
            with torch.no_grad():
                logits = self(torch.zeros(1, 3, crop_px, crop_px, device=self._device()))
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            raise ConfigError(
                f"surrogate {self.name!r} cannot take pictures of {crop_px}x{crop_px} px (set input_px): {error}"
            ) from error
        if logits.ndim != 2:
            raise ConfigError(f"surrogate {self.name!r}: expected logits [n, classes], got {list(logits.shape)}")
        return int(logits.shape[1])


def load_surrogate(settings: SurrogateSettings) -> Surrogate:
    """The classifier that `settings` name, frozen. Raises ConfigError when it cannot be had."""
    return Surrogate(settings.name, load_network(settings), input_px=settings.input_px, origin=_origin(settings))


def load_network(settings: SurrogateSettings) -> nn.Module:
    """The classifier itself: float [n, 3, h, w] on [0, 1] to logits. Raises ConfigError when it cannot be had."""
    prefix, _, rest = settings.network.partition(":")
    if prefix == "torchvision" and rest:
        return _torchvision(settings.name, rest, settings.weights)
    if rest:
        return _factory(settings.name, prefix, rest, settings.weights)
    if settings.network in OURS:
        return from_weights(settings.network, _tensors(settings), source=str(settings.weights))
    raise ConfigError(
        f"surrogate {settings.name!r}: unknown network {settings.network!r}"
        f"{nearest(settings.network, (*OURS, 'torchvision:NAME', 'module:factory'))}"
    )


def in_turn(surrogates: Sequence[Surrogate], per_step: int, step: int) -> Sequence[Surrogate]:
    """Those of this step: `per_step` of them, going round, as in Salman et al.; 0 takes all."""
    if per_step == 0 or per_step >= len(surrogates):
        return surrogates
    first = step * per_step
    return [surrogates[(first + i) % len(surrogates)] for i in range(per_step)]


def _tensors(settings: SurrogateSettings) -> dict[str, Tensor]:
    import safetensors
    import safetensors.torch

    if settings.weights is None:
        raise ConfigError(
            f"surrogate {settings.name!r}: weights are missing; a {settings.network} has none of its own"
        )
    try:
        return safetensors.torch.load_file(settings.weights)
    except (OSError, safetensors.SafetensorError) as error:
        raise ConfigError(f"surrogate {settings.name!r}: {settings.weights}: {error}") from error


def _torchvision(name: str, model: str, weights: Path | None) -> nn.Module:
    from torchvision import models  # type: ignore[import-untyped]

    known = models.list_models(module=models)
    if model not in known:
        raise ConfigError(f"surrogate {name!r}: torchvision has no model {model!r}{nearest(model, known)}")
    network: nn.Module = models.get_model(model, weights=None if weights else "DEFAULT")
    if weights:
        _load_state(name, network, weights)
    return _Normalised(network)


class _Normalised(nn.Module):
    """torchvision's models take pictures normalised with ImageNet's mean and standard deviation."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor((0.485, 0.456, 0.406)).reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor((0.229, 0.224, 0.225)).reshape(1, 3, 1, 1), persistent=False)

    def forward(self, pictures: Tensor) -> Tensor:
        logits: Tensor = self.network((pictures - self.get_buffer("mean")) / self.get_buffer("std"))
        return logits


def _factory(name: str, module: str, factory: str, weights: Path | None) -> nn.Module:
    """Whatever `module.factory()` returns: a module from float [n, 3, h, w] on [0, 1] to logits."""
    try:
        network = getattr(importlib.import_module(module), factory)()
    except (ImportError, AttributeError, TypeError) as error:
        raise ConfigError(f"surrogate {name!r}: {module}:{factory}: {error}") from error
    if not isinstance(network, nn.Module):
        raise ConfigError(
            f"surrogate {name!r}: {module}:{factory} returned {type(network).__name__}, not a Module"
        )
    if weights:
        _load_state(name, network, weights)
    return network


def _load_state(name: str, network: nn.Module, weights: Path) -> None:
    """A checkpoint: safetensors, or a state dict that torch can load without running code."""
    try:
        if weights.suffix == ".safetensors":
            import safetensors.torch

            state = safetensors.torch.load_file(weights)
        else:
            state = torch.load(weights, map_location="cpu", weights_only=True)
        network.load_state_dict(state)
    except Exception as error:
        raise ConfigError(f"surrogate {name!r}: {weights}: {error}") from error


def _origin(settings: SurrogateSettings) -> str:
    if settings.weights is None:
        return f"{settings.name} ({settings.network})"
    digest = hashlib.sha256(settings.weights.read_bytes()).hexdigest()
    return f"{settings.name} ({settings.network}, sha256 {digest[:16]})"
