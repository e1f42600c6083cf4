"""Classifiers' networks by name: with the weights that settings give, or as training starts from."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from denoiser_training.classifier_card import ClassifierCard, read_classifier_card
from denoiser_training.config import SurrogateSettings
from denoiser_training.networks import OURS, fresh, from_weights
from smoothing_proxy.errors import ConfigError, nearest

__all__ = ["load_network", "resolved", "starting_network", "stored_weights"]


def resolved(settings: SurrogateSettings) -> SurrogateSettings:
    """With network, weights and input_px as the card says, where the network is "card"; else the same.

    Raises ConfigError when the card or its weights are not what they should be.
    """
    if settings.network != "card":
        return settings
    if settings.weights is None:
        raise ConfigError(f'surrogate {settings.name!r}: network = "card" needs the card\'s path as its weights')
    card, weights = read_classifier_card(settings.weights)
    update = {"network": card.network, "weights": weights, "input_px": settings.input_px or _input_px(card)}
    return settings.model_copy(update=update)


def load_network(settings: SurrogateSettings) -> nn.Module:
    """float32 [n, 3, h, w] on [0, 1] to logits. Raises ConfigError when it cannot be had."""
    settings = resolved(settings)
    prefix, _, rest = settings.network.partition(":")
    if prefix == "torchvision" and rest:
        return _torchvision(settings, rest, None)
    if rest:
        return _factory(settings.name, prefix, rest, settings.weights)
    _check_ours(settings)
    return from_weights(settings.network, _tensors(settings), source=str(settings.weights))


def starting_network(settings: SurrogateSettings, classes: int, side: int, seed: int) -> nn.Module:
    """The network before its first step, for pictures of side x side and so many classes.

    Given weights that know other classes give all but their last layer. What is random is so by the seed and the
    name. Raises ConfigError when the network cannot be had, or knows fewer classes.
    """
    settings = resolved(settings)
    prefix, _, rest = settings.network.partition(":")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed + int.from_bytes(hashlib.sha256(settings.name.encode()).digest()[:4], "big"))
        if prefix == "torchvision" and rest:
            return _torchvision(settings, rest, classes)
        if rest:
            return _factory(settings.name, prefix, rest, settings.weights)
        _check_ours(settings)
        if settings.weights is None:
            return fresh(settings.network, classes, side, settings.options)
        return from_weights(settings.network, _tensors(settings), source=str(settings.weights), classes=classes)


def stored_weights(network: nn.Module) -> dict[str, Tensor]:
    """What a file of this network's weights holds, so that `load_network` finds them again."""
    inner = network.network if isinstance(network, _Normalised) else network
    return inner.state_dict()


def _input_px(card: ClassifierCard) -> int:
    """A network that sees all pixels at once takes one size only."""
    return card.input_px or (card.side_px if card.network == "mlp" else 0)


def _check_ours(settings: SurrogateSettings) -> None:
    if settings.network not in OURS:
        close = nearest(settings.network, (*OURS, "torchvision:NAME", "module:factory", "card"))
        raise ConfigError(f"surrogate {settings.name!r}: unknown network {settings.network!r}{close}")


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


def _torchvision(settings: SurrogateSettings, model: str, classes: int | None) -> nn.Module:
    """classes: to be trained for; None takes the weights as they are, or torchvision's own."""
    from torchvision import models  # type: ignore[import-untyped]

    known = models.list_models(module=models)
    if model not in known:
        raise ConfigError(
            f"surrogate {settings.name!r}: torchvision has no model {model!r}{nearest(model, known)}"
        )
    if settings.weights is None:
        chosen: dict[str, Any] = {"weights": "DEFAULT"} if classes is None else {"num_classes": classes}
        try:
            return _Normalised(models.get_model(model, **chosen))
        except (OSError, RuntimeError, ValueError, KeyError) as error:
            raise ConfigError(
                f"surrogate {settings.name!r}: torchvision's weights of {model!r} cannot be had ({error}); set "
                "weights to a state dict on this machine"
            ) from error
    state = _state(settings.name, settings.weights)
    with torch.device("meta"):
        outputs = _outputs(models.get_model(model, weights=None).state_dict(), state)
    network = models.get_model(model, weights=None, num_classes=classes or outputs)
    if classes not in (None, outputs):
        state = {**state, **_other_rows(network.state_dict(), state)}
    _put(settings.name, network, state, settings.weights)
    return _Normalised(network)


def _outputs(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> int:
    """Classes that the given weights know: rows of the only layers that differ from those for ImageNet's 1000."""
    rows = {len(given[key]) for key, t in own.items() if key in given and given[key].shape != t.shape}
    return rows.pop() if len(rows) == 1 else 1000


def _other_rows(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of `own` that differ from the given ones in their number of rows, and in nothing else."""
    both = {key: t for key, t in own.items() if key in given and t.shape != given[key].shape}
    return {key: t for key, t in both.items() if t.shape[1:] == given[key].shape[1:]}


class _Normalised(nn.Module):
    """torchvision's models take pictures normalised with ImageNet's mean and standard deviation."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor((0.485, 0.456, 0.406)).reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor((0.229, 0.224, 0.225)).reshape(1, 3, 1, 1), persistent=False)

    def forward(self, pictures: Tensor) -> Tensor:
        out = self.network((pictures - self.get_buffer("mean")) / self.get_buffer("std"))
        logits: Tensor = out[0] if isinstance(out, tuple) else out  # beside it, what helps some only in training
        return logits


def _factory(name: str, module: str, factory: str, weights: Path | None) -> nn.Module:
    """Whatever `module.factory()` returns: a module from float [n, 3, h, w] on [0, 1] to logits."""
    try:
        network = getattr(importlib.import_module(module), factory)()
    except Exception as error:  # a user's own code may raise anything
        reason = f"{type(error).__name__}: {error}"
        raise ConfigError(f"surrogate {name!r}: {module}:{factory}: {reason}") from error
    if not isinstance(network, nn.Module):
        raise ConfigError(
            f"surrogate {name!r}: {module}:{factory} returned {type(network).__name__}, not a Module"
        )
    if weights:
        _put(name, network, _state(name, weights), weights)
    return network


def _state(name: str, weights: Path) -> dict[str, Tensor]:
    """A checkpoint: safetensors, or a state dict that torch can load without running code."""
    try:
        if weights.suffix == ".safetensors":
            import safetensors.torch

            return safetensors.torch.load_file(weights)
        state: dict[str, Tensor] = torch.load(weights, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ConfigError(f"surrogate {name!r}: {weights}: {error}") from error
    return state


def _put(name: str, network: nn.Module, state: Mapping[str, Tensor], weights: Path) -> None:
    try:
        network.load_state_dict(state)
    except Exception as error:
        raise ConfigError(f"surrogate {name!r}: {weights}: {error}") from error
