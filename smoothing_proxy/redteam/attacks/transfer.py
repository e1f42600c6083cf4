"""Attacks made on a surrogate that has gradients, and given to a target that need not have any."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from pydantic import Field

from smoothing_proxy.errors import ConfigError, nearest
from smoothing_proxy.redteam.attacks.base import Found, Job
from smoothing_proxy.redteam.networks import Network
from smoothing_proxy.redteam.targets import GradientTarget, Target
from smoothing_proxy.settings_file import Settings, parse_settings

__all__ = ["TransferOptions", "check_same_classes", "transfer"]


class TransferOptions(Settings):
    """attack: made on the surrogate, one that needs gradients. options: its own."""

    attack: str = "pgd"
    options: dict[str, Any] = Field(default={})


def transfer(job: Job) -> Found:
    """One query of the target for each picture, whatever the attack on the surrogate takes."""
    from smoothing_proxy.redteam.attacks.registry import attack_named

    kind = attack_named(job.options.attack)
    if kind.needs != "gradients":
        raise ConfigError(f"transfer: {kind.name} needs no surrogate; run it on the target itself")
    if job.norm not in kind.norms:
        raise ConfigError(f"transfer: {kind.name} works in {' and '.join(kind.norms)}, not in {job.norm}")
    if job.surrogate is None:
        raise ConfigError("transfer: needs a surrogate with gradients, such as local:FILE.pt2")
    check_same_classes(job.surrogate, job.target, job)
    places = [job.surrogate.classes.index(job.target.classes[label]) for label in job.labels]
    found = kind.run(
        replace(
            job,
            target=GradientTarget(job.surrogate),
            labels=np.array(places, np.int64),
            options=parse_settings(kind.options, job.options.options, source=f"transfer: {kind.name}"),
        )
    )
    return Found(found.pictures, np.zeros_like(found.queries))


def check_same_classes(surrogate: Network, target: Target, job: Job) -> None:
    """Raises ConfigError where the two do not speak of the same classes."""
    ours, theirs = surrogate.classes, target.classes
    if target.closed and len(ours) != len(theirs):
        raise ConfigError(f"{surrogate.name}: {len(ours)} classes, and {target.name} has {len(theirs)}")
    missing = sorted({theirs[label] for label in job.labels} - set(ours))
    if missing:
        raise ConfigError(
            f"{surrogate.name}: has no class {missing[0]!r}, which {target.name} has{nearest(missing[0], ours)}; "
            "name its outputs with labels = ..., or map them with a label map"
        )
