"""DeepFool and the attack of Carlini and Wagner: the nearest picture, in l2, with another answer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from pydantic import Field

from smoothing_proxy.redteam.attacks.base import Batched, Found, Job, network_of
from smoothing_proxy.redteam.attacks.gradient import made_by

__all__ = ["CarliniWagnerOptions", "DeepFoolOptions", "carlini_wagner", "deepfool"]


class DeepFoolOptions(Batched):
    """steps: linearisations at most. overshoot: share of the way that is gone further. classes: the most likely
    ones whose boundaries are looked at.
    """

    steps: int = Field(default=30, ge=1)
    overshoot: float = Field(default=0.02, ge=0.0)
    classes: int = Field(default=10, ge=2)


class CarliniWagnerOptions(Batched):
    """steps: of Adam in each search. searches: of the constant between distance and loss. learning_rate: of Adam.

    confidence: by how much the other logit has to lead.
    """

    steps: int = Field(default=30, ge=1)
    searches: int = Field(default=5, ge=1)
    learning_rate: float = Field(default=0.01, gt=0.0)
    confidence: float = Field(default=0.0, ge=0.0)
    initial_constant: float = Field(default=1.0, gt=0.0)


def deepfool(job: Job) -> Found:
    """Moosavi-Dezfooli, Fawzi, Frossard 2016.

    ART's leaves the class that the network answers, whatever the label is: a picture that is wrong already would
    be made right. It stays as it is.
    """
    network, options = network_of(job), job.options
    classes = min(options.classes, len(network.classes))
    found = made_by(job, "DeepFool", max_iter=options.steps, epsilon=options.overshoot, nb_grads=classes)
    answers = network.logits(torch.from_numpy(job.pictures), options.batch_size).argmax(dim=1).numpy()
    wrong = (answers != job.labels) & (not network.noisy)
    return replace(found, pictures=np.where(wrong[:, None, None, None], job.pictures, found.pictures))


def carlini_wagner(job: Job) -> Found:
    """Carlini, Wagner 2017, in l2."""
    options = job.options
    return made_by(
        job,
        "CarliniL2Method",
        max_iter=options.steps,
        binary_search_steps=options.searches,
        learning_rate=options.learning_rate,
        confidence=options.confidence,
        initial_const=options.initial_constant,
    )
