"""PGD through a randomised defence, on the expectation over what it does (Athalye et al. 2018).

Written here, since ART's PGD takes one loss, has no proper l2 start, and keeps no best step under noise.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from smoothing_proxy.redteam.attacks.base import Found, Job, network_of
from smoothing_proxy.redteam.attacks.gradient import StepsOptions
from smoothing_proxy.redteam.grid import Norm

__all__ = ["EotPgdOptions", "eot_pgd", "lengths", "losses", "projected"]

TINY = 1e-12


class EotPgdOptions(StepsOptions):
    """restarts: random starts; the step with the highest loss of all of them is kept. loss: "margin" is by how
    much the best other class leads, "ce" is cross entropy. gradients: mean of so many, each over the network's
    own copies, for one step.
    """

    restarts: int = Field(default=1, ge=1)
    loss: Literal["margin", "ce"] = "margin"
    gradients: int = Field(default=1, ge=1)
    batch_size: int = Field(default=16, ge=1)


def eot_pgd(job: Job) -> Found:
    """Ascent on the mean over the network's noisy copies, from random starts within eps, in linf or l2."""
    network, options = network_of(job), job.options
    stream = torch.Generator().manual_seed(job.seed)
    before, made = network.seen, []
    for start in range(0, len(job.pictures), options.batch_size):
        part = slice(start, start + options.batch_size)
        clean = torch.from_numpy(job.pictures[part]).to(network.device)
        labels = torch.from_numpy(job.labels[part]).to(network.device)
        made.append(_ascent(job, clean, labels, stream).cpu().numpy())
        job.done(len(made[-1]))
    mean = round((network.seen - before) / len(job.pictures))
    return Found(np.concatenate(made), np.full(len(job.pictures), mean))


def _ascent(job: Job, clean: Tensor, labels: Tensor, stream: torch.Generator) -> Tensor:
    """The pictures of the step with the highest loss, for each picture by itself."""
    options, eps, norm = job.options, job.radius, job.norm
    step = options.step(eps)
    best, highest = clean, torch.full((len(clean),), -torch.inf, device=clean.device)
    for _ in range(options.restarts):
        change = _random_start(clean, eps, norm, stream)
        for turn in range(options.steps + 1):
            pictures = torch.clamp(clean + change, 0.0, 1.0)
            loss, gradient = _loss_and_gradient(job, pictures, labels)
            better = loss > highest
            best = torch.where(better[:, None, None, None], pictures, best)
            highest = torch.where(better, loss, highest)
            if turn < options.steps:
                change = projected(pictures + step * _direction(gradient, norm) - clean, eps, norm)
    return best


def _loss_and_gradient(job: Job, pictures: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    network, options = network_of(job), job.options
    total, gradient = torch.zeros(len(pictures), device=pictures.device), torch.zeros_like(pictures)
    for _ in range(options.gradients):
        leaf = pictures.detach().requires_grad_()
        loss = losses(network(leaf), labels, options.loss)
        (one,) = torch.autograd.grad(loss.sum(), leaf)
        total, gradient = total + loss.detach(), gradient + one
    return total / options.gradients, gradient


def losses(logits: Tensor, labels: Tensor, loss: str) -> Tensor:
    """[n, k] and [n] to [n], higher where the label is further from being the answer."""
    if loss == "ce":
        return torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    own = logits.gather(1, labels[:, None])
    others = logits.scatter(1, labels[:, None], -torch.inf)
    lead: Tensor = others.amax(dim=1) - own[:, 0]
    return lead


def projected(change: Tensor, eps: float, norm: Norm) -> Tensor:
    """The nearest change of at most eps."""
    if norm == "linf":
        return change.clamp(-eps, eps)
    shrink: Tensor = (eps / lengths(change)).clamp_max(1.0)
    return change * shrink


def lengths(changes: Tensor) -> Tensor:
    """The l2 norm of each, above 0: [n, 3, h, w] to [n, 1, 1, 1]."""
    norms: Tensor = torch.linalg.vector_norm(changes, dim=(1, 2, 3), keepdim=True)
    return norms.clamp_min(TINY)


def _direction(gradient: Tensor, norm: Norm) -> Tensor:
    if norm == "linf":
        return gradient.sign()
    return gradient / lengths(gradient)


def _random_start(clean: Tensor, eps: float, norm: Norm, stream: torch.Generator) -> Tensor:
    """Uniform in the ball, which in l2 is nearly its surface."""
    if norm == "linf":
        return ((2 * torch.rand(clean.shape, generator=stream) - 1) * eps).to(clean.device)
    direction = torch.randn(clean.shape, generator=stream)
    shares = torch.rand(len(clean), 1, 1, 1, generator=stream) ** (1 / clean[0].numel())
    return (eps * shares * direction / lengths(direction)).to(clean.device)
