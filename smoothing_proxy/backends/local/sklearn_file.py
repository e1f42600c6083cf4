"""scikit-learn classifiers: a .skops file, a pickle that the user vouches for, or an estimator made in Python."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, TypeAlias, final

import numpy as np
import numpy.typing as npt
from pydantic import Field

from smoothing_proxy.backends.local.loading import existing_file, optional_import, sha256_of
from smoothing_proxy.backends.local.local_backend import LocalBackend, LocalOptions
from smoothing_proxy.backends.local.preprocess import Preprocess
from smoothing_proxy.backends.local.scores import ScoredClasses, confidences
from smoothing_proxy.errors import ConfigError
from smoothing_proxy.settings_file import parse_settings

__all__ = ["SklearnFileOptions", "SklearnOptions", "SklearnScorer", "sklearn_backend", "sklearn_file_backend"]

UInt8: TypeAlias = npt.NDArray[np.uint8]


class SklearnOptions(Preprocess, LocalOptions):
    """The estimator is given the pixels of a picture as one row, in the order of its rows, then columns, then RGB.

    channels, scale, mean, std: as it was fitted (scikit-learn's own digits: channels = 1, size = 8, scale = 16).
    size: left out, the square that its number of features makes. labels: left out, its own classes.
    """


class SklearnFileOptions(SklearnOptions):
    """trusted_types: what a .skops file may contain beyond what skops trusts.

    allow_pickle: load .joblib and .pkl files, which run whatever code they contain.
    """

    trusted_types: tuple[str, ...] = Field(default=(), exclude=True)
    allow_pickle: bool = Field(default=False, exclude=True)


def sklearn_file_backend(path: str | Path, *, name: str = "", **options: object) -> LocalBackend:
    """The estimator in a .skops, .joblib or .pkl file; `options` as in SklearnFileOptions. Raises ConfigError."""
    name = name or f"local:{path}"
    settings = parse_settings(SklearnFileOptions, options, source=name)
    file = existing_file(path)
    return _backend(name, _loaded(file, settings), settings, sha256=sha256_of(file))


def sklearn_backend(estimator: object, *, name: str = "", **options: object) -> LocalBackend:
    """A fitted estimator made in Python; `options` as in SklearnOptions. Raises ConfigError.

    A run's manifest tells one fitted estimator from another by a hash of what it learned.
    """
    name = name or f"local:{type(estimator).__name__}"
    settings = parse_settings(SklearnOptions, options, source=name)
    learned = str(optional_import("joblib", "sklearn").hash(estimator, hash_name="sha1"))
    return _backend(name, estimator, settings, sha256=learned)


def _backend(name: str, estimator: Any, options: SklearnOptions, *, sha256: str = "") -> LocalBackend:
    if not hasattr(estimator, "classes_"):
        raise ConfigError(f"{name}: a {type(estimator).__name__} without classes_ is no fitted classifier")
    settings = options.filled(labels=tuple(str(label) for label in estimator.classes_))
    classes = ScoredClasses(name, SklearnScorer(estimator, settings), settings, output="probabilities")
    return LocalBackend(name, classes, settings, sha256=sha256)


@final
class SklearnScorer:
    """Confidences of an estimator's classes.

    From predict_proba, where it has that; else the softmax of decision_function, which keeps the order of the
    classes and says nothing about probabilities; else 1 for what predict answers.
    """

    def __init__(self, estimator: Any, options: SklearnOptions) -> None:
        self._estimator = estimator
        self._preprocess = options.filled(size=_square(estimator, options.channels))

    @property
    def picture_size(self) -> tuple[int, int] | None:
        """Height and width, px, that make the number of features that the estimator was fitted on."""
        return self._preprocess.size

    def scores(self, pixels: UInt8) -> npt.NDArray[np.float64]:
        """uint8 [n, h, w, 3] to confidences, float64 [n, k], k classes in the order of classes_."""
        rows = self._preprocess.normalise(pixels).reshape(len(pixels), -1)
        if hasattr(self._estimator, "predict_proba"):
            return np.asarray(self._estimator.predict_proba(rows), np.float64)
        if hasattr(self._estimator, "decision_function"):
            return confidences(_per_class(self._estimator.decision_function(rows)), "logits")
        predicted = np.asarray(self._estimator.predict(rows))
        return np.asarray(predicted[:, np.newaxis] == self._estimator.classes_, np.float64)


def _per_class(decisions: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Two classes share one decision value d; its softmax is the logistic function of d."""
    return decisions if decisions.ndim == 2 else np.stack([-decisions / 2, decisions / 2], axis=1)


def _square(estimator: Any, channels: int) -> tuple[int, int] | None:
    features = getattr(estimator, "n_features_in_", 0)
    side = math.isqrt(features // channels)
    return (side, side) if side and side * side * channels == features else None


def _loaded(path: Path, options: SklearnFileOptions) -> Any:
    if path.suffix != ".skops":
        return _unpickled(path, options)
    skops = optional_import("skops.io", "sklearn")
    try:
        unknown = set(skops.get_untrusted_types(file=path)) - set(options.trusted_types)
        if not unknown:
            return skops.load(path, trusted=list(options.trusted_types))
    except Exception as error:  # of zip, JSON, skops or the estimator itself
        raise ConfigError(f"{path}: cannot be loaded: {type(error).__name__}: {error}") from error
    listed = ", ".join(sorted(unknown))
    raise ConfigError(f"{path}: contains {listed}; if you trust the file, name them in `trusted_types`")


def _unpickled(path: Path, options: SklearnFileOptions) -> Any:
    if not options.allow_pickle:
        raise ConfigError(
            f"{path}: a pickle runs whatever code it contains; save the estimator with skops.io.dump as .skops, "
            "or set `allow_pickle = true` if you trust the file"
        )
    joblib = optional_import("joblib", "sklearn")
    try:
        return joblib.load(path)
    except Exception as error:  # unpickling may raise anything
        raise ConfigError(f"{path}: cannot be loaded: {type(error).__name__}: {error}") from error
