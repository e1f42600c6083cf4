"""Attacks on a classifier that answers by chance: none is led by luck, and none hides how weak a defence is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from smoothing_proxy.denoisers.registry import denoiser
from smoothing_proxy.redteam import defended as defences
from smoothing_proxy.redteam.attacks import ensemble
from smoothing_proxy.redteam.attacks.base import Found, Job
from smoothing_proxy.redteam.attacks.eot_pgd import losses
from smoothing_proxy.redteam.attacks.run import run_attack
from smoothing_proxy.redteam.defended import defended, differentiable_denoiser
from smoothing_proxy.redteam.grid import Pictures
from smoothing_proxy.redteam.networks import Network
from smoothing_proxy.redteam.targets import GradientTarget, Int64
from tests.redteam.digit_net import digit_module, digit_target, test_digits

SIGMA = 0.25
FILTER = "gaussian:0.6"


def _hardened(copies: int = 8, seed: int = 1) -> Network:
    return defended(digit_target().network, denoiser(FILTER), sigma=SIGMA, copies=copies, seed=seed)


def _leads(network: Network, pictures: Pictures, labels: Int64) -> Tensor:
    return losses(network.logits(torch.from_numpy(pictures)), torch.from_numpy(labels), "margin")


class _Loud(nn.Module):
    """Two classes, the second the likelier the brighter a picture; far more chance than brightness is in it."""

    def __init__(self) -> None:
        super().__init__()
        self.stream = torch.Generator().manual_seed(0)

    def forward(self, pictures: Tensor) -> Tensor:
        return self.at(pictures, self.stream)

    def steady(self, pictures: Tensor, number: int) -> Tensor:
        return self.at(pictures, torch.Generator().manual_seed(number))

    def at(self, pictures: Tensor, stream: torch.Generator) -> Tensor:
        lead = pictures.mean(dim=(1, 2, 3)) + 30 * torch.randn(len(pictures), generator=stream)
        return torch.stack([-lead, lead], dim=1)


@pytest.mark.parametrize("by_number", [True, False], ids=["common noise", "fresh noise"])
def test_the_step_that_is_kept_is_the_best_one_and_not_the_luckiest(*, by_number: bool) -> None:
    pictures, module = np.full((64, 3, 8, 8), 128 / 255, np.float32), _Loud().eval()
    network = Network(module, name="loud", classes="ab", noisy=True, steady=module.steady if by_number else None)
    options = {"steps": 4, "step_size": 0.5, "batch_size": 64}
    found = run_attack(
        "eot-pgd", GradientTarget(network), pictures, np.zeros(64, np.int64), eps=0.1, norm="linf", options=options
    )
    gained = (found.pictures - pictures).mean(axis=(1, 2, 3)) / 0.1
    assert gained.mean() > (0.9 if by_number else 0.6), "the luckiest of the five steps has 0.6 in the mean"


def test_looking_again_costs_little_beside_the_steps() -> None:
    pictures, labels = test_digits(4)
    found = run_attack("eot-pgd", GradientTarget(_hardened(2)), pictures, labels, eps=0.3, norm="l2")
    assert found.queries.max() <= 21 + 16 + 1, "21 with gradients, 16 forward only, and the last look"


def test_the_noise_of_a_number_is_the_same_for_every_picture_and_batch() -> None:
    network, pictures = _hardened(6), torch.from_numpy(test_digits(5)[0])
    together = network.with_noise(pictures, 7)
    torch.testing.assert_close(network.with_noise(pictures[3:4], 7), together[3:4])
    assert not torch.allclose(network.with_noise(pictures, 8), together)
    assert not torch.allclose(network(pictures), network(pictures))


def test_autoattack_never_looks_stronger_for_a_randomised_defence_than_eot_pgd(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where the library's parts come to nothing, and where they do what they can."""
    pictures, labels = test_digits(24)
    arguments = {"eps": 0.6, "norm": "l2", "seed": 2}
    alone = run_attack("eot-pgd", GradientTarget(_hardened()), pictures, labels, **arguments)  # type: ignore[arg-type]
    options = {"steps": 4, "square_queries": 0}
    whole = run_attack("autoattack", GradientTarget(_hardened()), pictures, labels, options=options, **arguments)  # type: ignore[arg-type]

    def nothing(job: Job, name: str, **settings: object) -> Found:
        return Found(job.pictures, np.zeros_like(job.labels))

    monkeypatch.setattr(ensemble, "made_by", nothing)
    bare = run_attack("autoattack", GradientTarget(_hardened()), pictures, labels, options=options, **arguments)  # type: ignore[arg-type]
    clean, *attacked = (
        _leads(_hardened(400, seed=9), one.pictures if one else pictures, labels)
        for one in (None, alone, whole, bare)
    )
    broken = [float((leads > 0).float().mean()) for leads in attacked]
    assert broken[0] > float((clean > 0).float().mean()) + 0.2, "else nothing is compared"
    assert min(broken[1:]) >= broken[0] - 0.05
    for leads in attacked[1:]:
        assert float((leads - attacked[0]).mean()) > -0.02


def test_gradients_in_bfloat16_point_where_those_in_float32_do() -> None:
    made = {}
    for precision in ("float32", "bfloat16"):
        clean = differentiable_denoiser(denoiser(f"digits,device=cpu,precision={precision}"), SIGMA)
        noisy = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
        out = clean(noisy)
        assert out.dtype == torch.float32
        (made[precision],) = torch.autograd.grad(digit_module()(out)[:, 3].sum(), noisy)
    assert bool((made["float32"] != made["bfloat16"]).any()), "the faster one is used"
    cosines = torch.nn.functional.cosine_similarity(made["float32"].flatten(1), made["bfloat16"].flatten(1))
    assert float(cosines.min()) > 0.97


def test_many_copies_are_differentiated_in_parts_to_the_same_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    pictures, found = torch.from_numpy(test_digits(3)[0]), []
    for most in (2**20, 3 * 64 * 2):
        monkeypatch.setattr(defences, "MOST_PIXELS", most)
        leaf = pictures.clone().requires_grad_()
        found.append(torch.autograd.grad(_hardened(5).with_noise(leaf, 3)[:, 0].sum(), leaf)[0])
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("name", ["pgd", "autoattack"])
def test_a_network_that_gives_probabilities_is_attacked_as_its_logits_are(name: str) -> None:
    """Sure of its answers, it leaves no gradient to a softmax of its softmax."""
    pictures, labels = test_digits(24)
    sure = nn.Sequential(digit_module(), _Times(3.0))
    shares = nn.Sequential(sure, nn.Softmax(dim=1))
    found = [
        run_attack(
            name,
            GradientTarget(Network(module.eval(), name="digits", classes="0123456789")),
            pictures,
            labels,
            eps=0.5,
            norm="l2",
            options={} if name == "pgd" else {"square_queries": 0},
        ).accuracy
        for module in (sure, shares)
    ]
    assert found[0] < 0.6
    assert abs(found[1] - found[0]) < 0.05


class _Times(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, logits: Tensor) -> Tensor:
        return logits * self.factor


def test_logits_are_left_as_they_are() -> None:
    network = Network(_Times(1.0), name="same", classes="ab")
    logits = torch.tensor([[0.3, 0.9], [0.5, 0.2]])
    assert bool((network(logits) == logits).all())
    other = Network(_Times(1.0), name="same", classes="ab")
    shares = torch.tensor([[0.3, 0.7], [1.0, 0.0]])
    torch.testing.assert_close(torch.softmax(other(shares), dim=1), shares)


def test_each_picture_of_a_batch_descends_to_a_class_of_its_own() -> None:
    pictures, labels = test_digits(10)
    aims = (labels + np.arange(1, 11)) % 10
    aims = np.where(aims == labels, (labels + 3) % 10, aims)
    calls = []
    module = digit_module()
    module_of_all = Network(lambda one: calls.append(len(one)) or module(one), name="digits", classes="0123456789")  # type: ignore[func-returns-value]
    found = run_attack("descend", GradientTarget(module_of_all), pictures, labels, aims=aims)
    assert (found.answers == aims).all()
    assert len(calls) <= found.queries.max() + 10, "as many passes as the slowest picture takes, and a few looks"
    for place in range(10):
        part = slice(place, place + 1)
        alone = run_attack(
            "descend", digit_target(), pictures[part], labels[part], options={"aim": int(aims[place])}
        )
        np.testing.assert_allclose(alone.unrounded, found.unrounded[part], atol=1e-4)
