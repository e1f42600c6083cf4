"""Each kind of attack turns a real undefended network: one that does not would flatter every defence."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from denoiser_training.study_networks import weights
from smoothing_proxy.redteam.attacks.run import run_attack
from smoothing_proxy.redteam.grid import Pictures
from smoothing_proxy.redteam.networks import Network
from smoothing_proxy.redteam.study.config import DataEntry
from smoothing_proxy.redteam.study.pictures import read_gallery
from smoothing_proxy.redteam.targets import GradientTarget, Int64

PICTURES = 4


@cache
def _network(shared: Path, name: str) -> Network:
    module, classes = weights(
        "cifar-resnet", str(shared / "cifar10-classifiers" / f"{name}.safetensors"), "cifar10"
    )
    return Network(module.eval().requires_grad_(requires_grad=False), name=name, classes=classes)


@cache
def _right(shared: Path) -> tuple[Pictures, Int64]:
    """CIFAR-10 pictures of several classes that ResNet-20 reads rightly, and their labels."""
    gallery = read_gallery(DataEntry(source=shared / "cifar10-jpeg" / "test.zip"), 8)
    labels = gallery.indices(_network(shared, "resnet20").classes, "resnet20")
    answers = GradientTarget(_network(shared, "resnet20")).ask(_bytes(gallery.pictures), labels).answers
    chosen = np.flatnonzero(answers == labels)[:PICTURES]
    assert len(chosen) == PICTURES
    return gallery.pictures[chosen], labels[chosen]


def _bytes(pictures: Pictures) -> Any:
    return np.rint(pictures.transpose(0, 2, 3, 1) * 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("name", "norm", "eps", "options", "queries", "turned"),
    [
        ("fgsm", "linf", 8 / 255, {}, 1, 0.5),
        ("bim", "linf", 8 / 255, {"steps": 10}, 1, 1.0),
        ("pgd", "l2", 0.5, {"steps": 10}, 1, 1.0),
        ("eot-pgd", "l2", 0.5, {"steps": 10}, 1, 1.0),
        ("deepfool", "l2", 0.5, {"steps": 10}, 1, 1.0),
        ("cw", "l2", 0.5, {"steps": 20, "searches": 3}, 1, 1.0),
        ("autoattack", "l2", 0.5, {"steps": 10}, 1, 1.0),
        ("autoattack", "linf", 4 / 255, {"steps": 10}, 1, 1.0),
        ("square", "linf", 8 / 255, {}, 300, 0.75),
        ("hopskipjump", "l2", 1.5, {}, 700, 0.5),
        ("boundary", "l2", 2.0, {}, 700, 0.5),
        ("transfer", "linf", 8 / 255, {"options": {"steps": 10}}, 1, 0.5),
    ],
)
def test_an_attack_turns_an_undefended_cifar_network(
    shared_data: Path, name: str, norm: str, eps: float, options: Mapping[str, Any], queries: int, turned: float
) -> None:
    pictures, labels = _right(shared_data)
    surrogate = _network(shared_data, "resnet32") if name == "transfer" else None
    found = run_attack(
        name,
        GradientTarget(_network(shared_data, "resnet20")),
        pictures,
        labels,
        eps=eps,
        norm=norm,
        options=options,
        max_queries=queries,
        surrogate=surrogate,
    )
    assert found.success.mean() >= turned
    assert (found.answers[found.success] != labels[found.success]).all()
    far = found.l2 if norm == "l2" else found.linf
    assert (far[found.success] <= eps * (1 + 1e-5)).all()
    if queries > 1:
        assert found.queries.max() <= queries
