"""The library that most attacks come from: the Adversarial Robustness Toolbox (ART).

Of the three that users know it is the one that is kept (1.20 in 2025, a release every few months) and that has all
of these attacks: foolbox's last release is of 2024, and torchattacks holds on to an old `requests`. ART takes
seconds to import, so it is imported when an attack is run, and it writes `~/.art/config.json` when it is imported,
so that it is shown another home for that moment.
"""

from __future__ import annotations

import importlib.util
import os
import random
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from smoothing_proxy.errors import ConfigError
from smoothing_proxy.redteam.grid import Norm, Pictures
from smoothing_proxy.redteam.networks import Network

__all__ = ["art_norm", "black_box", "evasion", "gradient_classifier", "seeded"]


@cache
def _art(part: str) -> Any:
    """A module of ART. Raises ConfigError that names the extra where it is not installed."""
    try:
        _load_config_elsewhere()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(part)
    except ImportError as error:
        raise ConfigError(
            "this attack comes from the Adversarial Robustness Toolbox: pip install 'smoothing-proxy[attacks]' "
            f"({error})"
        ) from error


def _load_config_elsewhere() -> None:
    """Run ART's module of settings in a home that is gone afterwards."""
    found = importlib.util.find_spec("art")
    if "art.config" in sys.modules or found is None or not found.submodule_search_locations:
        return
    path = Path(found.submodule_search_locations[0], "config.py")
    if not path.is_file():
        return
    spec = importlib.util.spec_from_file_location("art.config", path)
    assert spec is not None
    assert spec.loader is not None
    config = importlib.util.module_from_spec(spec)
    home = os.environ.get("HOME")
    with tempfile.TemporaryDirectory() as elsewhere:
        os.environ["HOME"] = elsewhere
        try:
            spec.loader.exec_module(config)
        finally:
            _restore_home(home)
    sys.modules["art.config"] = config


def _restore_home(home: str | None) -> None:
    if home is None:
        del os.environ["HOME"]
    else:
        os.environ["HOME"] = home


def evasion(name: str) -> Any:
    """One of ART's attacks by its class name. Raises ConfigError where ART is not installed."""
    return getattr(_art("art.attacks.evasion"), name)


def art_norm(norm: Norm) -> float:
    """As ART writes it."""
    return np.inf if norm == "linf" else 2


def gradient_classifier(network: Network, shape: tuple[int, ...]) -> Any:
    """The network as ART's attacks take it. shape: (3, height, width)."""
    from torch import nn

    return _art("art.estimators.classification").PyTorchClassifier(
        model=network,
        loss=nn.CrossEntropyLoss(),
        input_shape=shape,
        nb_classes=len(network.classes),
        clip_values=(0.0, 1.0),
        device_type="gpu" if network.device.type == "cuda" else "cpu",
    )


def black_box(ask: Callable[[Pictures], Any], shape: tuple[int, ...]) -> Any:
    """Two classes, "the label" and "another one", as ART's attacks ask about them. shape: (3, height, width)."""
    return _art("art.estimators.classification").BlackBoxClassifierNeuralNetwork(
        predict_fn=lambda pictures: ask(np.asarray(pictures, np.float32)),
        input_shape=shape,
        nb_classes=2,
        channels_first=True,
        clip_values=(0.0, 1.0),
    )


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """ART draws from the global generators of NumPy, Python and PyTorch: seeds them, and puts them back after."""
    import torch

    numpy_state, python_state = np.random.get_state(), random.getstate()  # noqa: NPY002 (ART's own generator)
    with torch.random.fork_rng():
        np.random.seed(seed % 2**32)  # noqa: NPY002
        random.seed(seed)
        torch.manual_seed(seed)
        try:
            yield
        finally:
            np.random.set_state(numpy_state)  # noqa: NPY002
            random.setstate(python_state)
