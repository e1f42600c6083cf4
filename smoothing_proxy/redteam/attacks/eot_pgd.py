"""PGD through a randomised defence, on the expectation over what it does (Athalye et al. 2018).

Written here, since ART's PGD takes one loss, has no proper l2 start, and keeps no best step under noise. The loss
of a step under noise is itself chance, and the highest of many is the luckiest of them: the last step and those
that looked best are looked at again, all with the same noise, and the best of these in the mean is kept.
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

__all__ = ["EotPgdOptions", "eot_pgd", "lengths", "losses", "mean_losses", "projected"]

TINY = 1e-12

JUDGING = 2**32
"""Added to the seed: the numbers of the noise that steps are compared under."""

CANDIDATES = 3
"""Steps of a noisy network with the highest losses that are looked at again, beside the last of each start."""

LOOKS = 4
"""At each of them, forward only, and at most one for every five steps: a fifth of the work."""


class EotPgdOptions(StepsOptions):
    """restarts: random starts; the best step of all of them is kept, see above. loss: "margin" is by how
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
    """The pictures of the best step, for each picture by itself."""
    options, eps, norm = job.options, job.radius, job.norm
    step, noisy = options.step(eps), network_of(job).noisy
    best, last = _Best(clean, CANDIDATES if noisy else 1), []
    for _ in range(options.restarts):
        change = _random_start(clean, eps, norm, stream)
        for turn in range(options.steps + 1):
            pictures = torch.clamp(clean + change, 0.0, 1.0)
            loss, gradient = _loss_and_gradient(job, pictures, labels)
            best.add(pictures, loss)
            if turn < options.steps:
                change = projected(pictures + step * _direction(gradient, norm) - clean, eps, norm)
        last.append(pictures)
    return _judged(job, [*last, *best.pictures], labels) if noisy else best.pictures[0]


class _Best:
    """The steps with the highest losses so far, of each picture by itself."""

    def __init__(self, clean: Tensor, kept: int) -> None:
        self.pictures = [clean] * kept
        self._losses = [torch.full((len(clean),), -torch.inf, device=clean.device)] * kept

    def add(self, pictures: Tensor, losses: Tensor) -> None:
        """Each place takes the better one, and hands the other on to the next."""
        for place in range(len(self.pictures)):
            kept, its = self.pictures[place], self._losses[place]
            better = losses > its
            wide = better[:, None, None, None]
            self.pictures[place], pictures = torch.where(wide, pictures, kept), torch.where(wide, kept, pictures)
            self._losses[place], losses = torch.where(better, losses, its), torch.where(better, its, losses)


def _judged(job: Job, candidates: list[Tensor], labels: Tensor) -> Tensor:
    """Of each picture the candidate with the highest loss in the mean of several looks, the same for all."""
    looks = max(1, min(LOOKS, job.options.steps // 5))
    found = torch.stack([mean_losses(job, one, labels, looks) for one in candidates])
    best = found.argmax(dim=0)
    return torch.stack(candidates)[best, torch.arange(len(best), device=best.device)]


def mean_losses(job: Job, pictures: Tensor, labels: Tensor, looks: int, loss: str = "") -> Tensor:
    """Of a network's answers in the mean of so many looks, the same noise for every picture. float [n].

    loss: "" takes that of the options.
    """
    network = network_of(job)
    with torch.no_grad():
        given = [network.with_noise(pictures, job.seed + JUDGING + look).double() for look in range(looks)]
        shares = torch.stack([torch.log_softmax(one, dim=1) for one in given])
    return losses(torch.logsumexp(shares, dim=0), labels, loss or job.options.loss)


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
