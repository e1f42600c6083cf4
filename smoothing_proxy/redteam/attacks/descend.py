"""The targeted attack of Jezequel: I <- I - a g / |g| until the wanted class is the answer.

g is the gradient, with respect to the picture, of the loss toward that class. What counts is how far it had to go:
the score of a defence is its accuracy times the final l2 distance.
"""

from __future__ import annotations

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import cross_entropy

from smoothing_proxy.errors import ConfigError
from smoothing_proxy.redteam.attacks.base import Batched, Found, Job, network_of
from smoothing_proxy.redteam.attacks.eot_pgd import lengths

__all__ = ["DescendOptions", "descend"]


class DescendOptions(Batched):
    """step: a, the l2 length of a step on the [0, 1] scale. steps: at most. aim: the wanted class, by its number;
    None, and a picture whose label that is, take the class after the picture's own, and the first after the last.
    """

    step: float = Field(default=0.02, gt=0.0)
    steps: int = Field(default=500, ge=1)
    aim: int | None = Field(default=None, ge=0)


def descend(job: Job) -> Found:
    """Pictures that are still not of the wanted class after the last step stay as they are by then.

    Each picture has an aim of its own (job.aims), or that of the options; a batch takes its steps together.
    """
    network, options = network_of(job), job.options
    aims = _aims(job)
    made, queries = job.pictures.copy(), np.zeros(len(job.pictures), np.int64)
    for start in range(0, len(job.pictures), options.batch_size):
        part = slice(start, start + options.batch_size)
        clean = torch.from_numpy(job.pictures[part]).to(network.device)
        pictures, steps = _descended(job, clean, aims[part].to(network.device))
        made[part], queries[part] = pictures.cpu().numpy(), steps.cpu().numpy()
        job.done(len(clean))
    return Found(made, queries, aims=aims.numpy())


def _aims(job: Job) -> Tensor:
    classes, aim = len(network_of(job).classes), job.options.aim
    labels = torch.from_numpy(job.labels)
    if job.aims is not None:
        return torch.from_numpy(job.aims)
    if aim is None:
        return (labels + 1) % classes
    if aim >= classes:
        raise ConfigError(f"descend: aim = {aim}, and {job.target.name} has {classes} classes, from 0")
    return torch.where(labels == aim, (labels + 1) % classes, torch.full_like(labels, aim))


def _descended(job: Job, clean: Tensor, aims: Tensor) -> tuple[Tensor, Tensor]:
    network, options = network_of(job), job.options
    pictures, steps = clean.clone(), torch.zeros(len(clean), dtype=torch.int64, device=clean.device)
    going = torch.arange(len(clean), device=clean.device)
    for turn in range(options.steps + 1):
        leaf = pictures[going].detach().requires_grad_()
        logits = network(leaf)
        steps[going] += 1
        still = logits.argmax(dim=1) != aims[going]
        if turn == options.steps or not still.any():
            break
        (gradient,) = torch.autograd.grad(cross_entropy(logits, aims[going], reduction="sum"), leaf)
        moved = torch.clamp(leaf.detach() - options.step * gradient / lengths(gradient), 0.0, 1.0)
        going, moved = going[still], moved[still]
        pictures[going] = moved
    return pictures, steps
