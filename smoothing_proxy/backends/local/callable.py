"""Any Python function as a classifier, by reference `package.module:function` or passed as it is."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, TypeAlias, final

import numpy as np
import numpy.typing as npt

from smoothing_proxy.backends.local.loading import sha256_of
from smoothing_proxy.backends.local.local_backend import Answer, LocalBackend
from smoothing_proxy.backends.local.scores import Output, ScoredOptions, ScoreReader
from smoothing_proxy.errors import ConfigError, MalformedReplyError, nearest
from smoothing_proxy.settings_file import parse_settings
from smoothing_proxy.types import ScoredLabel

__all__ = ["CallableClassifier", "CallableOptions", "Function", "callable_backend"]

UInt8: TypeAlias = npt.NDArray[np.uint8]

Function: TypeAlias = Callable[[UInt8], Any]
"""uint8 [n, h, w, 3] to one label each, one dict of label -> confidence each, or an array of scores [n, k].

A label that is None, like an empty dict, is a vote for nothing. An answer must depend on no other picture.
"""


class CallableOptions(ScoredOptions):
    """labels: the names of the scores' k columns; a function that answers labels itself needs none."""

    output: Output = "probabilities"


def callable_backend(function: str | Function, *, name: str = "", **options: object) -> LocalBackend:
    """A function as a classifier; `options` as in CallableOptions. It is called in one thread.

    A run's manifest tells one state of the function from another by the file that it is written in; set `version`
    for what it depends on beyond that. Raises ConfigError when there is no such module or function.
    """
    called = function if isinstance(function, str) else getattr(function, "__qualname__", type(function).__name__)
    name = name or f"local:{called}"
    settings = parse_settings(CallableOptions, options, source=name)
    resolved = _imported(function) if isinstance(function, str) else function
    return LocalBackend(name, CallableClassifier(resolved, settings), settings, sha256=_source_sha256(resolved))


@final
class CallableClassifier:
    """Reads what a function answers; anything that is no answer is a MalformedReplyError."""

    def __init__(self, function: Function, options: CallableOptions) -> None:
        names = options.names()
        self._function = function
        self._top = options.top
        self._reader = names and ScoreReader(names, output=options.output, top=options.top)

    def classify(self, pixels: UInt8) -> list[Answer]:
        """uint8 [n, h, w, 3] to n answers. Raises MalformedReplyError when the whole answer has a wrong shape."""
        answer = self._function(pixels)
        if not isinstance(answer, Sequence | np.ndarray) or isinstance(answer, str):
            answer = _as_array(answer)
        if len(answer) != len(pixels):
            raise MalformedReplyError(f"{len(answer)} answers to {len(pixels)} pictures")
        if all(item is None or isinstance(item, str | Mapping) for item in answer):
            return [self._one(item) for item in answer]
        if self._reader:
            return self._reader.answers(_as_array(answer), len(pixels))
        raise MalformedReplyError(
            f"answers {type(answer[0]).__name__} for a picture: a label, a dict of confidences, or scores "
            "together with `labels` are needed"
        )

    def _one(self, answer: str | Mapping[str, float] | None) -> Answer:
        if answer is None:
            return ()
        if isinstance(answer, str):
            return (ScoredLabel(str(answer), 1.0),)
        faults = [label for label, value in answer.items() if not _is_confidence(label, value)]
        if faults:
            fault = f"{faults[0]!r}: {answer[faults[0]]!r}"
            return MalformedReplyError(f"answers {fault}, a label with a confidence in [0, 1] is needed")
        labels = (ScoredLabel(str(label), float(value)) for label, value in answer.items())
        return tuple(sorted(labels, key=lambda label: (-label.confidence, label.name))[: self._top])


def _is_confidence(label: object, value: object) -> bool:
    if not isinstance(label, str) or not isinstance(value, int | float | np.integer | np.floating):
        return False
    return 0.0 <= float(value) <= 1.0


def _as_array(answer: Any) -> npt.NDArray[Any]:
    try:
        array = np.asarray(answer)
    except (ValueError, TypeError, RuntimeError) as error:
        raise MalformedReplyError(
            f"answers {type(answer).__name__}, which is no array of scores: {error}"
        ) from None
    if array.ndim == 0 or array.dtype.kind not in "biuf":
        raise MalformedReplyError(f"answers {type(answer).__name__}, one item for each picture is needed")
    return array


def _imported(reference: str) -> Function:
    module_name, _, attribute = reference.partition(":")
    module = _module(module_name, reference)
    found: object = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise ConfigError(f"{reference}: {module_name} has no {part!r}{nearest(part, _public(found))}")
        found = getattr(found, part)
    if not callable(found):
        raise ConfigError(f"{reference}: is a {type(found).__name__}, a function is needed")
    return found


def _module(name: str, reference: str) -> object:
    """The module; one in the working folder is found as well, after all that are installed."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        return import_module(name)
    except Exception as error:  # a user's module may raise anything
        raise ConfigError(f"{reference}: cannot import {name}: {type(error).__name__}: {error}") from error


def _source_sha256(function: Function) -> str:
    """Of the file that the function, or its object's class, is written in; "" where there is none."""
    for written in (function, type(function)):
        try:
            return sha256_of(Path(inspect.getsourcefile(inspect.unwrap(written)) or ""))
        except (TypeError, OSError):
            continue
    return ""


def _public(module: object) -> list[str]:
    return [name for name in dir(module) if not name.startswith("_")]
