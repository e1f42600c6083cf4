from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from smoothing_proxy.denoisers.architectures import build
from smoothing_proxy.denoisers.unet import UNet
from smoothing_proxy.errors import DenoiserError
from tests.denoisers.noisy_pictures import one_thread

NETWORKS = [
    ("dncnn", {"width": 8, "depth": 4}),
    ("unet", {"widths": [4, 8, 12], "blocks": 1}),
    ("unet", {"widths": [16, 32]}),
    ("unet", {"widths": [8]}),
]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.mark.parametrize(("architecture", "options"), NETWORKS)
@pytest.mark.parametrize("size", [(1, 1), (8, 8), (5, 7), (2, 13), (32, 32), (37, 50)])
def test_every_picture_size_keeps_its_shape(
    architecture: str, options: dict[str, Any], size: tuple[int, int]
) -> None:
    network = build(architecture, options).eval()
    with torch.inference_mode():
        assert network(torch.rand(2, 3, *size), 0.25).shape == (2, 3, *size)


@pytest.mark.parametrize(
    ("architecture", "weights"), [("unet", 1_044_291), ("dncnn", 558_403)], ids=["unet", "dncnn"]
)
def test_the_default_networks_have_the_documented_number_of_weights(architecture: str, weights: int) -> None:
    assert sum(tensor.numel() for tensor in build(architecture, {}).parameters()) == weights


def test_a_sigma_per_picture_gives_what_each_picture_gives_alone() -> None:
    torch.manual_seed(0)
    network = UNet(widths=(4, 8), blocks=1).eval()
    noisy, sigmas = torch.rand(3, 3, 8, 8), torch.tensor([0.1, 0.3, 0.9])
    with torch.inference_mode():
        together = network(noisy, sigmas)
        alone = torch.cat([network(noisy[i : i + 1], float(sigmas[i])) for i in range(3)])
    assert torch.allclose(together, alone, atol=1e-6)


def test_the_unet_is_told_sigma_and_the_dncnn_is_not() -> None:
    noisy = torch.rand(1, 3, 8, 8)
    with torch.inference_mode():
        for architecture, listens in (("unet", True), ("dncnn", False)):
            network = build(architecture, {}).eval()
            assert torch.equal(network(noisy, 0.1), network(noisy, 0.9)) is not listens


@pytest.mark.parametrize(("architecture", "options"), NETWORKS)
def test_a_few_steps_of_training_reduce_the_error_and_reach_every_weight(
    architecture: str, options: dict[str, Any]
) -> None:
    torch.manual_seed(0)
    network = build(architecture, options)
    clean = torch.rand(8, 3, 1, 1).expand(8, 3, 8, 8)
    noisy = clean + 0.25 * torch.randn(8, 3, 8, 8)
    before = {name: tensor.clone() for name, tensor in network.named_parameters()}
    losses = []
    for _ in range(30):
        loss = torch.mean((network(noisy, 0.25) - clean) ** 2)
        gradients = torch.autograd.grad(loss, list(network.parameters()))
        with torch.no_grad():
            for tensor, gradient in zip(network.parameters(), gradients, strict=True):
                tensor.sub_(1e-3 * gradient.sign())
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]
    assert not [name for name, tensor in network.named_parameters() if torch.equal(tensor, before[name])]


@pytest.mark.parametrize(
    ("architecture", "options", "said"),
    [
        ("unnet", {}, "unknown architecture 'unnet'; did you mean 'unet'?"),
        ("unet", {"width": [4]}, "unexpected keyword argument 'width'"),
        ("unet", {"widths": []}, "1 to 6 widths of 1..1024"),
        ("unet", {"widths": [8, 0]}, "1 to 6 widths of 1..1024"),
        ("unet", {"widths": ["8"]}, "'<=' not supported"),
        ("unet", {"widths": [8], "blocks": 17}, "blocks 1..16"),
        ("unet", {"channels": 0}, "channels >= 1"),
        ("dncnn", {"depth": 2}, "depth 3..64"),
        ("dncnn", {"width": 10**9}, "width 1..1024"),
    ],
)
def test_an_impossible_architecture_is_refused(architecture: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(DenoiserError, match=said):
        build(architecture, options)
