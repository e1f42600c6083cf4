"""FGSM, BIM and PGD: steps along the sign, or the direction, of the loss's gradient, within eps."""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import Field

from smoothing_proxy.redteam.attacks.art_library import art_norm, evasion, gradient_classifier, seeded
from smoothing_proxy.redteam.attacks.base import Batched, Found, Job, network_of

__all__ = ["PgdOptions", "StepsOptions", "bim", "fgsm", "made_by", "pgd"]


class StepsOptions(Batched):
    """steps: gradients that are taken. step_size: of each, as a share of eps; None takes 2.5 over the steps."""

    steps: int = Field(default=20, ge=1)
    step_size: float | None = Field(default=None, gt=0.0)

    def step(self, eps: float) -> float:
        """A step's length in the attack's norm."""
        return eps * (2.5 / self.steps if self.step_size is None else self.step_size)


class PgdOptions(StepsOptions):
    """restarts: random starts within eps, of which the first that changes the answer counts; 0 starts at the
    picture itself.
    """

    restarts: int = Field(default=1, ge=0)


def fgsm(job: Job) -> Found:
    """One step of length eps (Goodfellow, Shlens, Szegedy 2015)."""
    return made_by(job, "FastGradientMethod", norm=art_norm(job.norm), eps=job.radius, eps_step=job.radius)


def bim(job: Job) -> Found:
    """Steps of FGSM from the picture itself, kept within eps (Kurakin, Goodfellow, Bengio 2017)."""
    step = job.options.step(job.radius)
    return made_by(job, "BasicIterativeMethod", eps=job.radius, eps_step=step, max_iter=job.options.steps)


def pgd(job: Job) -> Found:
    """The same from random starts (Madry et al. 2018)."""
    options = job.options
    return made_by(
        job,
        "ProjectedGradientDescent",
        norm=art_norm(job.norm),
        eps=job.radius,
        eps_step=options.step(job.radius),
        max_iter=options.steps,
        num_random_init=options.restarts,
    )


def made_by(job: Job, name: str, **settings: Any) -> Found:
    """What ART's attack of this name makes of the pictures, a batch at a time."""
    network = network_of(job)
    classifier = gradient_classifier(network, job.pictures.shape[1:])
    if name not in _QUIET:
        settings["verbose"] = False
    attack = evasion(name)(classifier, batch_size=job.options.batch_size, **settings)
    before, made = network.seen, []
    with seeded(job.seed):
        for start in range(0, len(job.pictures), job.options.batch_size):
            part = slice(start, start + job.options.batch_size)
            made.append(attack.generate(x=job.pictures[part].copy(), y=job.labels[part]))
            job.done(len(made[-1]))
    mean = round((network.seen - before) / len(job.pictures))
    return Found(np.concatenate(made).astype(np.float32), np.full(len(job.pictures), mean))


_QUIET = ("FastGradientMethod",)
