"""Denoisers by name, by path and by entry point. Loads no torch before a trained one is asked for."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, TypeAlias

from smoothing_proxy.denoisers.base import Denoiser
from smoothing_proxy.denoisers.card import PICKLE_SUFFIXES
from smoothing_proxy.denoisers.classical import Gaussian, Median, Wavelet
from smoothing_proxy.denoisers.identity import Identity
from smoothing_proxy.denoisers.shipped import shipped_cards
from smoothing_proxy.errors import ConfigError, nearest

__all__ = ["ENTRY_POINTS", "denoiser", "denoiser_names"]

ENTRY_POINTS = "smoothing_proxy.denoisers"
"""The entry-point group: a name, and a callable that takes what follows the colon (if anything) and options."""

Factory: TypeAlias = Callable[..., Denoiser]

BUILT_IN: dict[str, Factory] = {"identity": Identity, "wavelet": Wavelet, "gaussian": Gaussian, "median": Median}

FILES = (".json", ".safetensors", *PICKLE_SUFFIXES)

TRAILING_OPTIONS = re.compile(r"((?:,\w+=[^,]*)*)$")


def denoiser(spec: str, **options: Any) -> Denoiser:
    """The denoiser that `spec` names, with these options.

    spec: `name`, `name:argument` or a path, and then `,key=value` for each option: "identity", "median:5",
    "wavelet:db2,level=2,mode=hard", "digits,device=cpu", "runs/mine.json". A path leads to a card (.json) or to
    weights beside their card. Numbers arrive as numbers. options: more of the same, as Python values.
    Names are looked up here, then among the shipped cards, then in the entry points `smoothing_proxy.denoisers`.

    Raises ConfigError for an unknown name or option (with the nearest one) and for a value out of range;
    DenoiserError for weights that are missing, damaged or pickled.
    """
    head, written = _parse(spec)
    twice = written.keys() & options.keys()
    if twice:
        raise ConfigError(f"denoiser {spec!r}: {min(twice)} is also given as an option; give it once")
    name, factory, argument = _find(head)
    return _made(name, factory, argument, {**written, **options})


def denoiser_names() -> list[str]:
    """Every name that `denoiser` knows on this machine, sorted; some take an argument (`median:5`)."""
    return sorted({*BUILT_IN, *shipped_cards(), *(point.name for point in _entry_points())})


def _parse(spec: str) -> tuple[str, dict[str, Any]]:
    """What stands before the options, and the options: `median,window=5` is median and window 5."""
    tail = TRAILING_OPTIONS.search(spec)
    assert tail is not None, "the pattern matches the empty end"
    pairs = [part.partition("=") for part in tail.group(1).split(",")[1:]]
    if len({key for key, _, _ in pairs}) < len(pairs):
        raise ConfigError(f"denoiser {spec!r}: an option is given twice")
    return spec[: tail.start()], {key: _value(text) for key, _, text in pairs}


def _value(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _find(head: str) -> tuple[str, Factory, list[Any]]:
    """What to call things in messages, the factory, and its positional arguments."""
    if Path(head).suffix.lower() in FILES or "/" in head or os.sep in head:
        return head, _trained, [Path(head).expanduser(), head]
    name, colon, argument = head.partition(":")
    arguments = [_value(argument)] if colon else []
    if name in BUILT_IN:
        return name, BUILT_IN[name], arguments
    cards = shipped_cards()
    if name in cards:
        return name, _trained, [cards[name], name, *arguments]
    points = [point for point in _entry_points() if point.name == name]
    if not points:
        raise ConfigError(f"unknown denoiser {name!r}{nearest(name, denoiser_names())}")
    return name, _loaded(points), arguments


def _trained(path: Path, name: str, /, **options: Any) -> Denoiser:
    from smoothing_proxy.denoisers.torch_denoiser import load_denoiser

    return _made(name, load_denoiser, [path], {"name": name, **options})


def _made(name: str, factory: Factory, arguments: list[Any], options: dict[str, Any]) -> Denoiser:
    signature = inspect.signature(factory)
    try:
        signature.bind(*arguments, **options)
    except TypeError as error:
        unknown = [key for key in options if key not in signature.parameters]
        reason = f"unknown option {unknown[0]!r}{nearest(unknown[0], signature.parameters)}" if unknown else error
        raise ConfigError(f"denoiser {name!r}: {reason}") from None
    made = factory(*arguments, **options)
    if not isinstance(made, Denoiser):
        raise ConfigError(f"denoiser {name!r}: its factory made a {type(made).__name__}, not a Denoiser")
    return made


def _entry_points() -> list[EntryPoint]:
    return list(entry_points(group=ENTRY_POINTS))


def _loaded(points: list[EntryPoint]) -> Factory:
    point = points[0]
    values = sorted({other.value for other in points})
    if len(values) > 1:
        raise ConfigError(f"denoiser {point.name!r}: several packages offer it: {', '.join(values)}")
    try:
        factory = point.load()
    except Exception as error:
        raise ConfigError(f"denoiser {point.name!r}: its entry point {point.value!r} fails: {error}") from error
    if not callable(factory):
        raise ConfigError(f"denoiser {point.name!r}: its entry point {point.value!r} is not callable")
    found: Factory = factory
    return found
