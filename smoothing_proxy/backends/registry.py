"""Classifiers by name. A new one is a line here, or an entry point of another distribution."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any, get_type_hints

from pydantic import PydanticUserError, TypeAdapter, ValidationError

from smoothing_proxy.backends.base import Backend
from smoothing_proxy.backends.local.forms import object_backend
from smoothing_proxy.errors import ConfigError, nearest

__all__ = ["ENTRY_POINTS", "backend", "backend_names", "takes_option"]

ENTRY_POINTS = "smoothing_proxy.backends"
"""The group in which other distributions offer backends: name -> factory.

A factory takes the backend's options as keyword arguments, and as its first argument what follows the colon, where
it can be written with one: `backend("mine:eu-west", timeout_s=5)` calls `factory("eu-west", timeout_s=5)`.
"""

_BUILT_IN = {
    "aws-rekognition": "smoothing_proxy.backends.aws_rekognition:AwsRekognition",
    "azure-vision": "smoothing_proxy.backends.azure_vision:AzureVision",
    "clarifai": "smoothing_proxy.backends.clarifai:Clarifai",
    "google-vision": "smoothing_proxy.backends.google_vision:GoogleVision",
    "json-api": "smoothing_proxy.backends.json_api:JsonApi",
    "local": "smoothing_proxy.backends.local.forms:local_backend",
    "openai-vision": "smoothing_proxy.backends.openai_vision:OpenAiVision",
    "scripted": "smoothing_proxy.backends.scripted:ScriptedBackend",
}


def backend(source: object, **options: Any) -> Backend:
    """The classifier named `source`: "local:model.tflite", "scripted", or one that an installed package offers.

    A function, a fitted scikit-learn estimator or a PyTorch module is taken as it is. `options` are the backend's
    own, as in its table of the configuration file. Raises ConfigError for an unknown name or option, a missing
    file or library, or a classifier that cannot be asked.
    """
    if not isinstance(source, str):
        return object_backend(source, **options)
    name, colon, target = source.partition(":")
    return _made(_factory(name), (target,) if colon else (), options, source)


def takes_option(source: str, option: str) -> bool:
    """Whether the backend named `source` lists this option. Raises ConfigError for an unknown name."""
    return option in inspect.signature(_factory(source.partition(":")[0])).parameters


def backend_names() -> tuple[str, ...]:
    """Every name that `backend` knows, sorted."""
    return tuple(sorted({*_BUILT_IN, *_offered()}))


def _factory(name: str) -> Callable[..., Any]:
    offered = _offered()
    if name in _BUILT_IN:
        point = EntryPoint(name, _BUILT_IN[name], ENTRY_POINTS)
    elif name in offered:
        point = offered[name]
    else:
        raise ConfigError(f"no backend is named {name!r}{nearest(name, backend_names())}")
    try:
        factory: Callable[..., Any] = point.load()
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"backend {name!r} ({point.value}) cannot be loaded: {error}") from error
    return factory


def _made(
    factory: Callable[..., Any], target: tuple[str, ...], options: Mapping[str, Any], source: str
) -> Backend:
    parameters = inspect.signature(factory).parameters.values()
    known = [p.name for p in parameters if p.kind in {p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD}]
    unknown = [option for option in options if option not in known]
    if unknown and not any(p.kind is p.VAR_KEYWORD for p in parameters):
        raise ConfigError(f"{source}: {unknown[0]}: unknown key{nearest(unknown[0], known)}")
    try:
        inspect.signature(factory).bind(*target, **options)
    except TypeError as error:
        raise ConfigError(f"{source}: {error}") from None
    for option, value in options.items():
        _check_type(factory, option, value, source)
    made = factory(*target, **options)
    if not isinstance(made, Backend):
        raise ConfigError(f"{source}: its factory makes a {type(made).__name__}, which is no backend")
    return made


def _check_type(factory: Callable[..., Any], option: str, value: Any, source: str) -> None:
    """Against the factory's own annotation. Raises ConfigError; what pydantic knows nothing of passes."""
    made_by = factory.__init__ if inspect.isclass(factory) else factory
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(get_type_hints(made_by)[option])
    except (KeyError, NameError, TypeError, PydanticUserError):
        return
    try:
        read = adapter.validate_python(value)
    except ValidationError as error:
        raise ConfigError(f"{source}: {option}: {error.errors()[0]['msg']}, not {value!r}") from None
    if isinstance(value, str) and isinstance(read, int | float):
        raise ConfigError(f"{source}: {option}: expected a number, not the text {value!r}")


def _offered() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=ENTRY_POINTS)}
