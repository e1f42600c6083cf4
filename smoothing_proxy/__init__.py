"""Certified robustness for image classifiers that you cannot change.

    from smoothing_proxy import SmoothedClassifier, Smoothing, backend, denoiser

Importing this package loads nothing: each name is fetched from its floor when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from smoothing_proxy.backends.base import Backend
    from smoothing_proxy.backends.labels import LabelMap
    from smoothing_proxy.backends.registry import backend
    from smoothing_proxy.backends.scripted import ScriptedBackend
    from smoothing_proxy.denoisers.base import Denoiser
    from smoothing_proxy.denoisers.registry import denoiser
    from smoothing_proxy.errors import SmoothingProxyError
    from smoothing_proxy.images.codec import Encoding
    from smoothing_proxy.smoothing.client import AsyncSmoothedClassifier
    from smoothing_proxy.smoothing.settings import PerLabel, Smoothing
    from smoothing_proxy.smoothing.sync_client import SmoothedClassifier
    from smoothing_proxy.types import (
        Certificate,
        ConfidenceInterval,
        Cost,
        LabelCertificate,
        LabelsCertificate,
        Prediction,
        Reply,
        ScoredLabel,
        TopKCertificate,
        Votes,
    )

__version__ = "0.1.0"

__all__ = [
    "AsyncSmoothedClassifier",
    "Backend",
    "Certificate",
    "ConfidenceInterval",
    "Cost",
    "Denoiser",
    "Encoding",
    "LabelCertificate",
    "LabelMap",
    "LabelsCertificate",
    "PerLabel",
    "Prediction",
    "Reply",
    "ScoredLabel",
    "ScriptedBackend",
    "SmoothedClassifier",
    "Smoothing",
    "SmoothingProxyError",
    "TopKCertificate",
    "Votes",
    "backend",
    "denoiser",
]

_HOME = {
    "AsyncSmoothedClassifier": "smoothing.client",
    "Backend": "backends.base",
    "Certificate": "types",
    "ConfidenceInterval": "types",
    "Cost": "types",
    "Denoiser": "denoisers.base",
    "Encoding": "images.codec",
    "LabelCertificate": "types",
    "LabelMap": "backends.labels",
    "LabelsCertificate": "types",
    "PerLabel": "smoothing.settings",
    "Prediction": "types",
    "Reply": "types",
    "ScoredLabel": "types",
    "ScriptedBackend": "backends.scripted",
    "SmoothedClassifier": "smoothing.sync_client",
    "Smoothing": "smoothing.settings",
    "SmoothingProxyError": "errors",
    "TopKCertificate": "types",
    "Votes": "types",
    "backend": "backends.registry",
    "denoiser": "denoisers.registry",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
