"""What a denoiser is trained for: small losses, and their weighted sum.

Salman, Sun, Yang, Kapoor, Kolter, "Denoised Smoothing", NeurIPS 2020 (arXiv 2003.01908), section 3.2: MSE, and
stability of a classifier's answer. Stability alone does not transfer to a classifier that was not looked
through; starting from MSE, or summing both, does.

Jeong and Shin, "Consistency Regularization for Certified Robustness of Smoothed Classifiers", NeurIPS 2020 (arXiv
2006.04062): answers that agree between noisy copies of one picture make its radius larger. There the classifier
learns to; here the denoiser does, before classifiers that stay as they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from denoiser_training.config import ObjectiveSettings
from smoothing_proxy.errors import ConfigError

__all__ = [
    "MSE",
    "Charbonnier",
    "Clf",
    "Consistency",
    "Entropy",
    "Objective",
    "Scene",
    "SoftStab",
    "Stab",
    "WeightedSum",
]


@dataclass(frozen=True)
class Scene:
    """One batch as the objectives see it; the classifiers are asked when, and only if, one of them needs it.

    clean, denoised: float32 [n, 3, h, w]; clean on [0, 1], denoised not clipped. labels: [n], or None.
    surrogates: pictures to logits [n, classes]; they clip by themselves. copies: noisy copies of each picture, a
    divisor of n: rows i and i + n / copies are of the same one.
    """

    clean: Tensor
    denoised: Tensor
    labels: Tensor | None = None
    surrogates: Sequence[Callable[[Tensor], Tensor]] = ()
    copies: int = 1

    @cached_property
    def clean_logits(self) -> list[Tensor]:
        """Of each surrogate, without gradients."""
        with torch.no_grad():
            return [surrogate(self.clean) for surrogate in self.surrogates]

    @cached_property
    def denoised_logits(self) -> list[Tensor]:
        """Of each surrogate, with gradients to the denoised pictures."""
        return [surrogate(self.denoised) for surrogate in self.surrogates]

    @cached_property
    def log_answers(self) -> list[Tensor]:
        """Of each surrogate, log probabilities [copies, n / copies, classes] of the denoised pictures."""
        answers = [functional.log_softmax(logits, 1) for logits in self.denoised_logits]
        return [answer.reshape(self.copies, -1, answer.shape[1]) for answer in answers]


class Objective(Protocol):
    """A batch to a scalar that training makes small."""

    def __call__(self, scene: Scene) -> Tensor:
        """A scalar with gradients."""
        ...


@dataclass(frozen=True)
class MSE:
    """Mean squared error of a pixel."""

    def __call__(self, scene: Scene) -> Tensor:
        """Mean of (D(x + noise) - x)^2."""
        return functional.mse_loss(scene.denoised, scene.clean)


@dataclass(frozen=True)
class Charbonnier:
    """sqrt(error^2 + epsilon^2), a smooth L1. epsilon: on the [0, 1] pixel scale."""

    epsilon: float = 1e-3

    def __call__(self, scene: Scene) -> Tensor:
        """Mean of sqrt((D(x + noise) - x)^2 + epsilon^2)."""
        return ((scene.denoised - scene.clean).square() + self.epsilon**2).sqrt().mean()


@dataclass(frozen=True)
class Stab:
    """Cross entropy against the surrogate's own hard label on the clean picture."""

    def __call__(self, scene: Scene) -> Tensor:
        """Mean over surrogates F and pictures of CE(F(D(x + noise)), argmax F(x))."""
        pairs = zip(scene.denoised_logits, scene.clean_logits, strict=True)
        return _mean([functional.cross_entropy(logits, clean.argmax(1)) for logits, clean in pairs])


@dataclass(frozen=True)
class SoftStab:
    """KL(clean || denoised) of the surrogate's probabilities."""

    def __call__(self, scene: Scene) -> Tensor:
        """Mean over surrogates F and pictures of KL(softmax F(x) || softmax F(D(x + noise)))."""
        pairs = zip(scene.denoised_logits, scene.clean_logits, strict=True)
        return _mean([_divergence(functional.log_softmax(c, 1), functional.log_softmax(d, 1)) for d, c in pairs])


@dataclass(frozen=True)
class Clf:
    """Cross entropy against the true label, through the surrogates. Needs labels."""

    def __call__(self, scene: Scene) -> Tensor:
        """Mean over surrogates F and pictures of CE(F(D(x + noise)), y)."""
        assert scene.labels is not None
        return _mean([functional.cross_entropy(logits, scene.labels) for logits in scene.denoised_logits])


@dataclass(frozen=True)
class Consistency:
    """How far the answers to a picture's noisy copies are from their mean (Jeong and Shin 2020, equation 8)."""

    def __call__(self, scene: Scene) -> Tensor:
        """Mean over surrogates F, pictures and copies of KL(p || F(D(x + noise))), where p is the copies' mean."""
        return _mean([_divergence(_mean_answer(answer), answer) for answer in scene.log_answers])


@dataclass(frozen=True)
class Entropy:
    """How undecided the mean answer to a picture's noisy copies is (Jeong and Shin 2020, equation 9)."""

    def __call__(self, scene: Scene) -> Tensor:
        """Mean over surrogates and pictures of -sum p log p, where p is the mean probability over copies."""
        means = [_mean_answer(answer) for answer in scene.log_answers]
        return _mean([-(mean.exp() * mean).sum(-1).mean() for mean in means])


OBJECTIVES: Mapping[str, Callable[[], Objective]] = {
    "mse": MSE,
    "charbonnier": Charbonnier,
    "stab": Stab,
    "soft_stab": SoftStab,
    "clf": Clf,
    "consistency": Consistency,
    "entropy": Entropy,
}


@dataclass(frozen=True)
class WeightedSum:
    """Sum of weight x objective. parts: name to (weight, objective)."""

    parts: Mapping[str, tuple[float, Objective]]

    @classmethod
    def of(cls, settings: ObjectiveSettings) -> WeightedSum:
        """The objectives that the settings give a weight above 0."""
        return cls({name: (weight, OBJECTIVES[name]()) for name, weight in settings.weights().items()})

    def __call__(self, scene: Scene) -> Tensor:
        """The sum."""
        return self.losses(scene)["loss"]

    def losses(self, scene: Scene) -> dict[str, Tensor]:
        """The sum as "loss", and each part without its weight, for the journal."""
        parts = {name: (weight, objective(scene)) for name, (weight, objective) in self.parts.items()}
        total = torch.stack([weight * value for weight, value in parts.values()]).sum()
        return {"loss": total, **{name: value.detach() for name, (_, value) in parts.items()}}


def check_labels(
    settings: ObjectiveSettings, labels: Tensor | None, counts: Mapping[str, int], known: int
) -> None:
    """Raises ConfigError when clf is asked for and the labels cannot serve it.

    counts: classes per surrogate. known: classes of the data.
    """
    if not settings.clf:
        return
    if labels is None:
        raise ConfigError("objective clf needs true labels: put the pictures into one sub-folder per class")
    for name, count in counts.items():
        if count != known:
            raise ConfigError(f"objective clf: surrogate {name!r} knows {count} classes, the data has {known}")


def _divergence(target: Tensor, given: Tensor) -> Tensor:
    """Mean of KL(target || given), both log probabilities [..., classes]."""
    return (target.exp() * (target - given)).sum(-1).mean()


def _mean_answer(answers: Tensor) -> Tensor:
    """answers: log probabilities [copies, n, classes]. Returns the log of the mean probability, [n, classes]."""
    return answers.logsumexp(0) - math.log(len(answers))


def _mean(values: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(values)).mean()
