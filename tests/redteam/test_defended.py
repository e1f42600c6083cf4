"""Denoisers and classifiers as attacks differentiate them are what the product runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from smoothing_proxy.backends.labels import LabelMap
from smoothing_proxy.backends.registry import backend
from smoothing_proxy.denoisers.registry import denoiser
from smoothing_proxy.errors import ConfigError
from smoothing_proxy.redteam.defended import defended, differentiable_denoiser
from smoothing_proxy.redteam.networks import differentiable
from tests.redteam.digit_net import digit_module, digit_target, save_digit_program, test_digits

SIGMA = 0.25


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_digit_program(tmp_path_factory.mktemp("net") / "digits.pt2")


@pytest.mark.parametrize(
    ("spec", "shape", "tolerance"),
    [
        ("identity", (2, 3, 9, 11), 0.0),
        ("gaussian:1.5", (2, 3, 9, 11), 1e-5),
        ("gaussian:6", (1, 3, 5, 7), 1e-5),
        ("median:3", (2, 3, 9, 11), 0.0),
        ("median:7", (1, 3, 9, 11), 0.0),
        ("median:17", (1, 3, 20, 20), 0.0),
        ("wavelet:haar", (2, 3, 32, 32), 1e-5),
        ("wavelet:db2,level=2,mode=hard", (2, 3, 33, 30), 1e-5),
        ("wavelet:haar,rule=visu,color=rgb", (1, 3, 15, 16), 1e-5),
        ("wavelet:db2,threshold=0.1", (1, 3, 16, 16), 1e-5),
        ("digits,device=cpu,precision=float32", (2, 3, 8, 8), 1e-5),
    ],
)
def test_a_differentiable_denoiser_is_the_denoiser(spec: str, shape: tuple[int, ...], tolerance: float) -> None:
    noisy = torch.rand(shape, generator=torch.Generator().manual_seed(0)).requires_grad_()
    wanted = denoiser(spec).denoise(np.ascontiguousarray(noisy.detach().permute(0, 2, 3, 1).numpy()), SIGMA)
    clean = differentiable_denoiser(denoiser(spec), SIGMA)(noisy)
    np.testing.assert_allclose(clean.detach().permute(0, 2, 3, 1).numpy(), wanted, atol=tolerance or 1e-7)
    (gradient,) = torch.autograd.grad(clean.square().sum(), noisy)
    assert bool(gradient.abs().sum() > 0)


def test_the_mean_over_copies_is_the_share_of_the_votes() -> None:
    network, (pictures, labels) = digit_target().network, test_digits(4)
    smoothed = defended(network, denoiser("gaussian:0.7"), sigma=SIGMA, copies=300, seed=4)
    means = smoothed.logits(torch.from_numpy(pictures)).exp()
    np.testing.assert_allclose(means.sum(dim=1), 1.0, atol=1e-4)
    fresh = defended(network, denoiser("gaussian:0.7"), sigma=SIGMA, copies=300, seed=5)
    np.testing.assert_allclose(fresh.logits(torch.from_numpy(pictures)).exp(), means, atol=0.1)
    assert (means.argmax(dim=1).numpy() == labels).mean() >= 0.75


def test_a_filter_alone_adds_no_noise() -> None:
    network, (pictures, _) = digit_target().network, test_digits(2)
    filtered = defended(network, denoiser("median:3"), sigma=0.0, noise=False)
    once, twice = (filtered.logits(torch.from_numpy(pictures)) for _ in range(2))
    assert bool((once == twice).all())
    with pytest.raises(ConfigError, match="copies = 0"):
        defended(network, denoiser("identity"), sigma=0.1, copies=0)


def test_a_saved_program_is_opened_with_its_gradients(program: str) -> None:
    network = differentiable(program)
    pictures = torch.from_numpy(test_digits(3)[0])
    assert network.classes == tuple("0123456789")
    torch.testing.assert_close(network(pictures), digit_module()(pictures))
    leaf = pictures.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(network(leaf).max(), leaf)
    assert bool(gradient.abs().sum() > 0)


def test_what_a_network_sees_is_what_the_backend_shows_it(program: str) -> None:
    """Preprocessing that the options ask for, with sizes that need none of Pillow's own rounding."""
    pictures = torch.from_numpy(test_digits(2)[0])
    normalised = (pictures * 2 - 0.2) / torch.tensor([0.5, 0.6, 0.7]).reshape(1, 3, 1, 1)
    torch.testing.assert_close(
        differentiable(program, mean=0.2, std=(0.5, 0.6, 0.7), scale=2.0)(pictures), digit_module()(normalised)
    )


def test_pictures_of_another_size_are_fitted_nearly_as_the_backend_does(program: str) -> None:
    large = torch.rand(4, 3, 20, 26, generator=torch.Generator().manual_seed(2))
    network = differentiable(program, resize=9)
    import anyio

    from smoothing_proxy.images.codec import Encoding, encode, quantise

    opened = backend(program, resize=9, top=10)
    copies = [encode(one, Encoding("raw")) for one in quantise(large.permute(0, 2, 3, 1).numpy())]

    async def ask() -> list[dict[str, float]]:
        replies = await opened.classify(copies)
        await opened.aclose()
        return [{label.name: label.confidence for label in reply.labels} for reply in replies]  # type: ignore[union-attr]

    wanted = anyio.run(ask)
    shares = torch.softmax(network.logits(large), dim=1)
    for scores, row in zip(wanted, shares, strict=True):
        np.testing.assert_allclose([scores[name] for name in network.classes], row, atol=0.05)


def test_outputs_of_one_label_are_one_class(program: str) -> None:
    labels = LabelMap(groups={"round": ("0", "6", "8", "9")})
    network = differentiable(program, label_map=labels)
    assert network.classes == ("round", "1", "2", "3", "4", "5", "7")
    pictures = torch.from_numpy(test_digits(5)[0])
    plain = digit_module()(pictures)
    torch.testing.assert_close(network(pictures)[:, 0], plain[:, [0, 6, 8, 9]].amax(dim=1))


@pytest.mark.parametrize("name", ["local:model.onnx", "local:digits:read", "aws-rekognition"])
def test_without_gradients_the_attacks_that_work_are_named(name: str) -> None:
    with pytest.raises(ConfigError, match="hopskipjump, boundary, square, and transfer from a surrogate"):
        differentiable(name)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.pt2: no such file"):
        differentiable(f"local:{tmp_path / 'gone.pt2'}")
