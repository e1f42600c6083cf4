"""What a run's question is made of: draws of another question must never be counted for this one."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from smoothing_proxy.errors import RunMismatchError
from smoothing_proxy.smoothing.base_classifier import BaseClassifier
from smoothing_proxy.smoothing.settings import Smoothing

__all__ = [
    "check_same_question",
    "check_same_software",
    "describe_question",
    "described_entropy",
    "software_versions",
]

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
    smoothing: Smoothing,
    classifier: BaseClassifier,
    *,
    reference: str,
    insecure_seed: int | None = None,
    beside: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The settings, the denoiser, the classifier and the label map, as JSON values; no secrets.

    reference: where the labels that count as correct come from. beside: further entries, as JSON values.
    """
    return {
        "smoothing": {**asdict(smoothing), "target_radii": list(smoothing.target_radii)},
        "denoiser": {"name": classifier.denoiser.name, "fingerprint": classifier.denoiser.fingerprint},
        "backend": dict(classifier.backend.fingerprint),
        "price_usd": classifier.backend.price_usd,
        "labels": classifier.labels.fingerprint(),
        "encoding": asdict(classifier.encoding),
        "reference": reference,
        "entropy": described_entropy(insecure_seed),
        **(beside or {}),
    }


def described_entropy(insecure_seed: int | None) -> str:
    """Where a run's noise comes from, as its manifest says it."""
    return "operating system" if insecure_seed is None else f"insecure seed {insecure_seed}"


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
    """Raises RunMismatchError that names every setting that differs.

    A new price does not change the question, and without a folder-wide statement neither do more pictures.
    """
    asked = {**asked, "price_usd": recorded["price_usd"], "encoding": _as_recorded(recorded, asked)}
    differences = _differences(_of_one_size(recorded), _of_one_size(asked))
    if differences:
        raise RunMismatchError(
            "\n".join(
                [f"{where}: made with other settings; use another --out, or the same settings:", *differences]
            )
        )


def check_same_software(recorded: Mapping[str, str], *, where: str) -> None:
    """Raises RunMismatchError when what computes the copies has another version than at the run's start.

    For runs with pictures half done: their remaining draws would meet another f.
    """
    differences = _differences(recorded, software_versions())
    if differences:
        reason = "some of its pictures are half done, with other versions of the software"
        raise RunMismatchError(
            "\n".join([f"{where}: {reason}; install those again, or use another --out:", *differences])
        )


def _as_recorded(recorded: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, Any]:
    """The encoding without what a run of before did not know: how copies are made to fit.

    There a copy that did not fit was a vote for nothing, which can only have weakened the proof.
    """
    return {key: value for key, value in asked["encoding"].items() if key in recorded["encoding"]}


def _of_one_size(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest without the number of pictures, where that is no part of the question."""
    alone = {"method": "per-picture"}
    family = manifest.get("family", alone)
    return {**manifest, "family": alone if family["method"] == "per-picture" else family}


def _differences(recorded: Mapping[str, Any], present: Mapping[str, Any]) -> list[str]:
    before, now = dict(_flat(recorded)), dict(_flat(present))
    return [
        f"  {key}: {before.get(key, 'not set')} there, {now.get(key, 'not set')} here"
        for key in sorted({*before, *now})
        if before.get(key) != now.get(key)
    ]


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
