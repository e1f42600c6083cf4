"""What a run's question is made of: draws of another question must never be counted for this one."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from smoothing_proxy.errors import RunMismatchError
from smoothing_proxy.ledger.records import PictureRecord
from smoothing_proxy.smoothing.base_classifier import BaseClassifier
from smoothing_proxy.smoothing.settings import Smoothing

__all__ = ["check_same_pictures", "check_same_question", "describe_question", "software_versions"]

PACKAGES = (
    "smoothing-proxy",
    "numpy",
    "scipy",
    "statsmodels",
    "torch",
    "torchvision",
    "pillow",
    "opencv-python-headless",
)


def describe_question(
    smoothing: Smoothing, classifier: BaseClassifier, *, insecure_seed: int | None = None
) -> dict[str, Any]:
    """The settings, the denoiser, the classifier and the label map, as JSON values; no secrets."""
    return {
        "smoothing": asdict(smoothing),
        "denoiser": {"name": classifier.denoiser.name, "fingerprint": classifier.denoiser.fingerprint},
        "backend": dict(classifier.backend.fingerprint),
        "price_usd": classifier.backend.price_usd,
        "labels": classifier.labels.fingerprint(),
        "encoding": asdict(classifier.encoding),
        "entropy": "operating system" if insecure_seed is None else f"insecure seed {insecure_seed}",
    }


def software_versions() -> dict[str, str]:
    """The versions that figures depend on."""
    versions = {"python": platform.python_version(), "machine": platform.machine()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def check_same_question(recorded: Mapping[str, Any], asked: Mapping[str, Any], *, where: str) -> None:
    """Raises RunMismatchError that names every setting that differs."""
    before, now = dict(_flat(recorded)), dict(_flat(asked))
    differences = [
        f"  {key}: {before.get(key, 'not set')} there, {now.get(key, 'not set')} here"
        for key in sorted({*before, *now})
        if before.get(key) != now.get(key)
    ]
    if differences:
        raise RunMismatchError(
            "\n".join(
                [f"{where}: made with other settings; use another --out, or the same settings:", *differences]
            )
        )


def check_same_pictures(recorded: Sequence[PictureRecord], names: Sequence[str], *, where: str) -> None:
    """Raises RunMismatchError when a picture of the run is no longer asked for; further pictures are fine."""
    gone = sorted({record.name for record in recorded} - set(names))
    if gone:
        shown = ", ".join(gone[:5]) + (", ..." if len(gone) > 5 else "")
        raise RunMismatchError(
            f"{where}: {len(gone)} of its pictures are not among those asked for now ({shown}); "
            "use another --out, or the same folder and --limit"
        )


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
