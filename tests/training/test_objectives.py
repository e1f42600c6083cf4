from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from denoiser_training.config import ObjectiveSettings
from denoiser_training.objectives import (
    MSE,
    Charbonnier,
    Clf,
    Consistency,
    Entropy,
    Objective,
    Scene,
    SoftStab,
    Stab,
    WeightedSum,
    check_labels,
)
from denoiser_training.surrogates import Surrogate
from smoothing_proxy.errors import ConfigError


class TwoClasses(nn.Module):
    """Logits (s, 0), s the sum over a one-pixel picture's channels times a weight."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))

    def forward(self, pictures: Tensor) -> Tensor:
        s = self.weight * pictures.sum(dim=(1, 2, 3))
        return torch.stack([s, torch.zeros_like(s)], dim=1)


CLEAN, DENOISED = torch.full((1, 3, 1, 1), 0.5), torch.full((1, 3, 1, 1), 0.25)
S_CLEAN, S_DENOISED = 1.5, 0.75


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def scene(weights: tuple[float, ...] = (1.0,), denoised: Tensor = DENOISED) -> Scene:
    return Scene(CLEAN, denoised, torch.tensor([1]), [Surrogate(f"s{w}", TwoClasses(w)) for w in weights])


P = 1 / (1 + math.exp(-S_CLEAN))
KL = P * (softplus(-S_DENOISED) - softplus(-S_CLEAN)) + (1 - P) * (softplus(S_DENOISED) - softplus(S_CLEAN))


@pytest.mark.parametrize(
    ("objective", "expected"),
    [
        (MSE(), 0.0625),
        (Charbonnier(epsilon=0.1), math.hypot(0.25, 0.1)),
        (Stab(), softplus(-S_DENOISED)),
        (SoftStab(), KL),
        (Clf(), softplus(S_DENOISED)),
        (WeightedSum({"mse": (100.0, MSE()), "stab": (2.0, Stab())}), 6.25 + 2 * softplus(-S_DENOISED)),
    ],
)
def test_an_objective_is_its_formula(objective: Objective, expected: float) -> None:
    assert float(objective(scene())) == pytest.approx(expected, rel=1e-5)


def test_several_surrogates_count_alike() -> None:
    both = float(Stab()(scene((1.0, -2.0))))
    assert both == pytest.approx((float(Stab()(scene((1.0,)))) + float(Stab()(scene((-2.0,))))) / 2)


def copies(*sums: float) -> Scene:
    """Two pictures, two noisy copies of each; sums: of the channels of the denoised ones, in the batch's order."""
    denoised = (torch.tensor(sums) / 3).reshape(4, 1, 1, 1).expand(4, 3, 1, 1)
    return Scene(torch.zeros(4, 3, 1, 1), denoised, None, [Surrogate("s", TwoClasses(2.0))], copies=2)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def entropy(p: float) -> float:
    return -p * math.log(p) - (1 - p) * math.log(1 - p)


def divergence(p: float, q: float) -> float:
    return p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))


def test_consistency_and_entropy_are_of_the_mean_answer_to_the_copies_of_one_picture() -> None:
    sums = (0.3, 1.2, 2.4, 1.8)
    p = [sigmoid(2 * s) for s in sums]
    means = [(p[0] + p[2]) / 2, (p[1] + p[3]) / 2]
    apart = sum(divergence(means[i % 2], p[i]) for i in range(4)) / 4
    assert float(Consistency()(copies(*sums))) == pytest.approx(apart, rel=1e-4)
    assert float(Entropy()(copies(*sums))) == pytest.approx(sum(map(entropy, means)) / 2, rel=1e-4)
    assert float(Consistency()(copies(0.3, 2.4, 0.3, 2.4))) == pytest.approx(0, abs=1e-6)
    assert float(Consistency()(copies(0.3, 0.3, 2.4, 2.4))) > 0.1


@pytest.mark.parametrize("objective", [Consistency(), Entropy()])
def test_gradients_of_what_compares_copies_reach_each_of_them(objective: Objective) -> None:
    seen = copies(0.3, 1.2, 2.4, 1.8)
    denoised = seen.denoised.clone().requires_grad_()
    objective(replace(seen, denoised=denoised)).backward()  # type: ignore[no-untyped-call]
    assert denoised.grad is not None
    assert bool((denoised.grad.abs().sum(dim=(1, 2, 3)) > 0).all())


@pytest.mark.parametrize("objective", [Stab(), SoftStab(), Clf()])
def test_gradients_reach_the_denoised_pictures_and_never_the_surrogate(objective: Objective) -> None:
    denoised = DENOISED.clone().requires_grad_()
    seen = scene(denoised=denoised)
    objective(seen).backward()  # type: ignore[no-untyped-call]
    assert denoised.grad is not None
    assert float(denoised.grad.abs().sum()) > 0
    assert isinstance(seen.surrogates[0], Surrogate)
    assert all(parameter.grad is None for parameter in seen.surrogates[0].parameters())


def test_settings_choose_the_parts_of_a_sum() -> None:
    chosen = WeightedSum.of(ObjectiveSettings(mse=100, soft_stab=1))
    losses = chosen.losses(scene())
    assert set(losses) == {"loss", "mse", "soft_stab"}
    assert float(losses["loss"]) == pytest.approx(6.25 + KL, rel=1e-5)
    assert float(losses["mse"]) == pytest.approx(0.0625)


def test_a_surrogate_is_asked_only_when_an_objective_needs_it() -> None:
    class Unwilling(nn.Module):
        def forward(self, _: Tensor) -> Tensor:
            raise AssertionError

    MSE()(Scene(CLEAN, DENOISED, None, [Surrogate("s", Unwilling())]))


def test_clf_without_labels_or_with_other_classes_is_refused() -> None:
    asks = ObjectiveSettings(clf=1)
    with pytest.raises(ConfigError, match="sub-folder per class"):
        check_labels(asks, None, {"s": 10}, 0)
    with pytest.raises(ConfigError, match="'s' knows 1001 classes, the data has 10"):
        check_labels(asks, torch.zeros(1), {"s": 1001}, 10)
    check_labels(asks, torch.zeros(1), {"s": 10}, 10)
    check_labels(ObjectiveSettings(stab=1), None, {"s": 1001}, 0)
