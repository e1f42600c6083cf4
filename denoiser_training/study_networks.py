"""Classifiers of this package for `smoothing-proxy study`, which knows them as `package.module:function`.

Each returns a network, float32 [n, 3, h, w] on [0, 1] to logits, and the names of its classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import nn

from denoiser_training.classifier_card import read_classifier_card
from denoiser_training.config import SurrogateSettings
from denoiser_training.surrogates import Surrogate, load_surrogate
from denoiser_training.tflite_networks import read_tflite
from smoothing_proxy.errors import ConfigError, nearest

__all__ = ["card", "tflite", "weights"]

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

IMAGENET = tuple(str(index) for index in range(1000))
"""Classes by their index in the sorted synsets."""

CLASSES: Mapping[str, tuple[str, ...]] = {
    "cifar10": CIFAR10,
    "imagenet": IMAGENET,
    "imagenet-1001": ("background", *IMAGENET),
}


def card(path: str, input_px: int = 0) -> tuple[nn.Module, tuple[str, ...]]:
    """What `python -m denoiser_training classifier` left. path: of its card. input_px: as in SurrogateSettings.

    Raises ConfigError where the card or its weights are missing or damaged.
    """
    found, _ = read_classifier_card(Path(path))
    settings = SurrogateSettings(name=found.name, network="card", weights=Path(path), input_px=input_px)
    return load_surrogate(settings), found.classes


def weights(architecture: str, path: str, classes: str, input_px: int = 0) -> tuple[nn.Module, tuple[str, ...]]:
    """A network by name with weights of others. architecture: "cifar-resnet", "mobilenet-v1", ... and input_px: as
    network and input_px of SurrogateSettings.

    classes: "cifar10", "imagenet" (by index) or "imagenet-1001" (the same after a background).
    Raises ConfigError where weights are missing or fit no such network.
    """
    if classes not in CLASSES:
        raise ConfigError(f"unknown classes {classes!r}{nearest(classes, CLASSES)}")
    settings = SurrogateSettings(name=Path(path).stem, network=architecture, weights=Path(path), input_px=input_px)
    return load_surrogate(settings), CLASSES[classes]


def tflite(path: str, classes: str) -> tuple[nn.Module, tuple[str, ...]]:
    """A quantised network of others with its weights as reals, so that it may be differentiated; see read_tflite.

    classes: as of `weights`. Pictures of another size are resized to the file's.
    Raises ConfigError for a file that is no such network, or has another number of classes.
    """
    if classes not in CLASSES:
        raise ConfigError(f"unknown classes {classes!r}{nearest(classes, CLASSES)}")
    network = read_tflite(Path(path))
    made = Surrogate(Path(path).stem, network, input_px=network.side_px)
    if made.classes(network.side_px) != len(CLASSES[classes]):
        raise ConfigError(
            f"{path}: {made.classes(network.side_px)} outputs, and {classes} has {len(CLASSES[classes])}"
        )
    return made, CLASSES[classes]
