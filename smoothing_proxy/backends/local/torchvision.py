"""torchvision's classifiers by name, each with the preprocessing and the categories of its own weights."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import safetensors
import torch
from pydantic import Field
from safetensors.torch import load_file
from torchvision import models  # type: ignore[import-untyped]

from smoothing_proxy.backends.local.loading import existing_file
from smoothing_proxy.backends.local.local_backend import LocalBackend
from smoothing_proxy.backends.local.scores import ScoredClasses
from smoothing_proxy.backends.local.torch_module import TorchOptions, TorchScorer, torch_device, weights_sha256
from smoothing_proxy.errors import ConfigError, nearest
from smoothing_proxy.settings_file import parse_settings

__all__ = ["TorchvisionOptions", "torchvision_backend", "torchvision_scorer"]


class TorchvisionOptions(TorchOptions):
    """weights: torchvision's name for them, such as "IMAGENET1K_V2"; downloaded once, into PyTorch's cache.

    checkpoint: a .safetensors file to load instead; nothing is downloaded then. Preprocessing and categories stay
    those of `weights` unless they are set here: a checkpoint of another number of classes needs its `labels`.
    """

    weights: str = "DEFAULT"
    checkpoint: Path | None = Field(default=None, exclude=True)


def torchvision_backend(model: str, *, name: str = "", **options: object) -> LocalBackend:
    """A torchvision classifier such as "resnet18"; `options` as in TorchvisionOptions.

    Raises ConfigError for an unknown model or weights, a download that fails, or a checkpoint of another network.
    """
    name = name or f"local:torchvision/{model}"
    scorer, settings = torchvision_scorer(model, name=name, **options)
    classes = ScoredClasses(name, scorer, settings, output=settings.output)
    assert isinstance(scorer.network, torch.nn.Module)
    return LocalBackend(name, classes, settings, sha256=weights_sha256(scorer.network))


def torchvision_scorer(model: str, *, name: str, **options: object) -> tuple[TorchScorer, TorchvisionOptions]:
    """The network with its options as its weights fill them in. Raises as `torchvision_backend`."""
    asked = parse_settings(TorchvisionOptions, options, source=name)
    known = models.list_models(module=models)
    if model not in known:
        raise ConfigError(f"torchvision has no classifier {model!r}{nearest(model, known)}")
    weights = _weights(model, asked.weights)
    settings = asked.filled(labels=tuple(weights.meta["categories"]), **_preset(weights))
    device = torch_device(settings.device)
    network = _network(model, weights, settings).eval().to(device)
    return TorchScorer(network, settings, device=device), settings


def _weights(model: str, name: str) -> models.Weights:
    known = models.get_model_weights(model)
    try:
        return known[name]
    except KeyError:
        raise ConfigError(f"{model} has no weights {name!r}{nearest(name, known.__members__)}") from None


def _preset(weights: models.Weights) -> dict[str, Any]:
    """The preprocessing that the weights were evaluated with, as Preprocess writes it."""
    preset = weights.transforms()
    return {
        "size": preset.crop_size[0],
        "resize": preset.resize_size[0],
        "interpolation": preset.interpolation.value,
        "mean": preset.mean,
        "std": preset.std,
    }


def _network(model: str, weights: models.Weights, options: TorchvisionOptions) -> torch.nn.Module:
    if options.checkpoint is None:
        return _downloaded(model, weights)
    path = existing_file(options.checkpoint)
    network: torch.nn.Module = models.get_model(model, weights=None, num_classes=len(options.names() or ()))
    try:
        network.load_state_dict(load_file(path))
    except (RuntimeError, safetensors.SafetensorError) as error:
        raise ConfigError(f"{path}: is no checkpoint of {model} with these labels: {error}") from error
    return network


def _downloaded(model: str, weights: models.Weights) -> torch.nn.Module:
    try:
        network: torch.nn.Module = models.get_model(model, weights=weights)
    except (OSError, RuntimeError, pickle.UnpicklingError) as error:
        raise ConfigError(
            f"{model}: the weights cannot be fetched from {weights.url} ({error}); "
            "put the file into PyTorch's cache, or load a .safetensors file with `checkpoint`"
        ) from error
    return network
