"""AutoAttack (Croce, Hein 2020): several attacks, each on the pictures that stood up to those before.

APGD on the cross entropy, APGD on the ratio of logits, DeepFool and Square, of ART. ART's own AutoAttack needs one
more library and has no say over how long its parts take. The published "standard" is restarts = 5, steps = 100,
square_queries = 5000, and has FAB in DeepFool's place.

Through a randomised defence these parts are weak: each looks at a step once, and takes chance for an answer.
There eot-pgd is the first part, with its usual steps at least, and what another part makes replaces its picture
only where the label is further behind under the same noise: the ensemble is no weaker than eot-pgd by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field

from smoothing_proxy.redteam.attacks.art_library import art_norm
from smoothing_proxy.redteam.attacks.base import Batched, Found, Job, network_of
from smoothing_proxy.redteam.attacks.black_box import SquareOptions, square
from smoothing_proxy.redteam.attacks.eot_pgd import EotPgdOptions, eot_pgd, mean_losses
from smoothing_proxy.redteam.attacks.gradient import made_by
from smoothing_proxy.redteam.attacks.nearest import DeepFoolOptions, deepfool
from smoothing_proxy.redteam.attacks.registry import L2_SQUARE_PX
from smoothing_proxy.redteam.grid import Pictures, rounded
from smoothing_proxy.redteam.targets import Int64

__all__ = ["AutoAttackOptions", "autoattack"]

RATIO_CLASSES = 3
"""The ratio of logits takes the three largest."""

LOOKS = 8
"""At a picture, through a noisy network: one alone would call many of them changed that are not."""

EOT_STEPS = 20
"""Those of eot-pgd by itself."""


class AutoAttackOptions(Batched):
    """steps, restarts: of each APGD, and of eot-pgd, which takes 20 steps at least. square_queries: for each
    picture that is left by then; 0 does without.
    """

    steps: int = Field(default=30, ge=2)
    restarts: int = Field(default=1, ge=1)
    square_queries: int = Field(default=200, ge=0)


def autoattack(job: Job) -> Found:
    """The first of the parts that changes the answer counts, for each picture by itself.

    Of a picture that stands up to all of them, what came nearest to it: whoever looks again may find it changed.
    """
    made, queries = job.pictures.copy(), np.zeros(len(job.pictures), np.int64)
    highest = np.full(len(job.pictures), -np.inf)
    left = np.arange(len(job.pictures))
    for part in _parts(job):
        if len(left) == 0:
            break
        rest = _rest(job, left)
        found = part(rest)
        queries[left] += found.queries
        pictures = rounded(found.pictures, rest.pictures, job.norm, job.eps)
        leads = _leads(rest, pictures)
        better = leads > highest[left]
        made[left[better]], highest[left[better]] = found.pictures[better], leads[better]
        left = left[~(leads > 0)]
    job.done(len(job.pictures))
    return Found(made, queries)


def _rest(job: Job, left: Int64) -> Job:
    return replace(
        job,
        pictures=job.pictures[left],
        labels=job.labels[left],
        subjects=job.subjects[left],
        done=lambda _: None,
    )


def _parts(job: Job) -> list[Callable[[Job], Found]]:
    losses = ["cross_entropy"]
    if len(network_of(job).classes) >= RATIO_CLASSES:
        losses.append("difference_logits_ratio")
    parts: list[Callable[[Job], Found]] = [_expectation] if network_of(job).noisy else []
    parts += [_apgd(loss) for loss in losses]
    parts.append(lambda rest: deepfool(replace(rest, options=DeepFoolOptions(batch_size=rest.options.batch_size))))
    if job.options.square_queries and (job.norm == "linf" or min(job.pictures.shape[2:]) >= L2_SQUARE_PX):
        most = job.options.square_queries
        parts.append(lambda rest: square(replace(rest, options=SquareOptions(), max_queries=most)))
    return parts


def _expectation(job: Job) -> Found:
    options = job.options
    steps, batch = max(options.steps, EOT_STEPS), min(options.batch_size, EotPgdOptions().batch_size)
    return eot_pgd(replace(job, options=EotPgdOptions(steps=steps, restarts=options.restarts, batch_size=batch)))


def _apgd(loss: str) -> Callable[[Job], Found]:
    def run(job: Job) -> Found:
        return made_by(
            job,
            "AutoProjectedGradientDescent",
            norm=art_norm(job.norm),
            eps=job.radius,
            eps_step=2 * job.radius,
            max_iter=job.options.steps,
            nb_random_init=job.options.restarts,
            loss_type=loss,
        )

    return run


def _leads(job: Job, pictures: Pictures) -> npt.NDArray[np.float64]:
    """By how much the best other class leads each label; of a noisy network in the mean of several looks."""
    network, size = network_of(job), job.options.batch_size
    looks = LOOKS if network.noisy else 1
    given, labels = (torch.from_numpy(one).to(network.device) for one in (pictures, job.labels))
    found = [
        mean_losses(job, given[start : start + size], labels[start : start + size], looks, "margin").cpu().numpy()
        for start in range(0, len(given), size)
    ]
    return np.concatenate(found)
