"""The classifiers of a study: those that attacks know, and those that a function of the user's makes."""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import Any

import torch

from smoothing_proxy.backends.local.torch_module import torch_device, weights_sha256
from smoothing_proxy.backends.registry import backend
from smoothing_proxy.errors import ConfigError, SmoothingProxyError
from smoothing_proxy.redteam.networks import Network, differentiable
from smoothing_proxy.redteam.study.cells import digest
from smoothing_proxy.redteam.study.config import ClassifierEntry

__all__ = ["Opened", "open_network"]


class Opened:
    """network: on its device, its weights frozen. identity: changes when its answers may."""

    def __init__(self, network: Network, identity: str) -> None:
        self.network = network
        self.identity = identity


def open_network(entry: ClassifierEntry, device: str) -> Opened:
    """The classifier. Raises ConfigError where it cannot be had, with the classifier's name."""
    try:
        if entry.network.startswith("local:"):
            return _local(entry, device)
        return _made(entry, device)
    except SmoothingProxyError as error:
        raise ConfigError(f"classifier {entry.name!r}: {error}") from error


def _local(entry: ClassifierEntry, device: str) -> Opened:
    options: dict[str, Any] = {"device": device, **entry.options}
    asked = backend(entry.network, **options)
    return Opened(differentiable(entry.network, **options), digest(dict(asked.fingerprint), entry.options))


def _made(entry: ClassifierEntry, device: str) -> Opened:
    module, _, function = entry.network.partition(":")
    if not (module and function):
        raise ConfigError(
            f'network = {entry.network!r}: expected "local:..." or "package.module:function", a function that '
            "makes a torch module and its classes"
        )
    try:
        maker = getattr(import_module(module), function)
        inspect.signature(maker).bind(**entry.options)
    except (ImportError, AttributeError, TypeError) as error:
        raise ConfigError(f"{entry.network}: {error}") from error
    made, classes = maker(**entry.options)
    if not isinstance(made, torch.nn.Module):
        raise ConfigError(f"{entry.network}: made a {type(made).__name__}, not a torch module")
    made = made.requires_grad_(requires_grad=False).eval().to(torch_device(device))
    identity = digest(weights_sha256(made), type(made).__name__, list(classes), entry.options)
    return Opened(Network(made, name=entry.name, classes=tuple(classes)), identity)
