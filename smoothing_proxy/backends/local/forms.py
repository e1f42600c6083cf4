"""Which kind of local classifier a target names: by its suffix, or by its form. Loads only the kind asked for."""

from __future__ import annotations

from importlib import import_module
from pathlib import PurePath
from typing import Any

from smoothing_proxy.backends.local.local_backend import LocalBackend
from smoothing_proxy.errors import ConfigError

__all__ = ["local_backend", "object_backend"]

_HERE = "smoothing_proxy.backends.local"
_BY_SUFFIX = {
    ".joblib": "sklearn_file:sklearn_file_backend",
    ".onnx": "onnx_file:onnx_backend",
    ".pickle": "sklearn_file:sklearn_file_backend",
    ".pkl": "sklearn_file:sklearn_file_backend",
    ".pt": "torch_file:torch_file_backend",
    ".pt2": "torch_file:torch_file_backend",
    ".pth": "torch_file:torch_file_backend",
    ".skops": "sklearn_file:sklearn_file_backend",
    ".tflite": "tflite:tflite_backend",
}


def local_backend(target: str, **options: object) -> LocalBackend:
    """The classifier that `target` names: a file, `torchvision/NAME`, or `package.module:function`.

    Raises ConfigError for a target of no known form, or as the kind of classifier does.
    """
    name = f"local:{target}"
    suffix = PurePath(target).suffix.lower()
    if suffix in _BY_SUFFIX:
        return _opened(_BY_SUFFIX[suffix], target, {"name": name, **options})
    if target.startswith("torchvision/"):
        return _opened(
            "torchvision:torchvision_backend", target.removeprefix("torchvision/"), {"name": name, **options}
        )
    module, colon, function = target.partition(":")
    if colon and module and function:
        return _opened("callable:callable_backend", target, {"name": name, **options})
    raise ConfigError(
        f"{name}: names no classifier; write local:torchvision/NAME, local:package.module:function, or local:FILE "
        f"with a FILE of {' '.join(_BY_SUFFIX)}"
    )


def object_backend(thing: object, **options: object) -> LocalBackend:
    """A classifier made in Python: a fitted scikit-learn estimator, a PyTorch module, or a function.

    Raises ConfigError for an object of another kind.
    """
    if hasattr(thing, "predict") and hasattr(thing, "get_params"):
        return _opened("sklearn_file:sklearn_backend", thing, options)
    if hasattr(thing, "state_dict") and hasattr(thing, "eval"):
        return _opened("torch_module:module_backend", thing, options)
    if callable(thing):
        return _opened("callable:callable_backend", thing, options)
    raise ConfigError(f"a {type(thing).__name__} is no classifier: give a name, a function or a fitted estimator")


def _opened(where: str, target: object, options: dict[str, object]) -> LocalBackend:
    module, _, function = where.partition(":")
    opener: Any = getattr(import_module(f"{_HERE}.{module}"), function)
    backend = opener(target, **options)
    assert isinstance(backend, LocalBackend)
    return backend
