from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy.special import ndtr, ndtri
from torch import Tensor, nn

from denoiser_training.certify import Certifier, answers
from denoiser_training.evaluate_config import CertifySettings
from denoiser_training.surrogates import Surrogate
from smoothing_proxy.denoisers.classical import Median
from smoothing_proxy.denoisers.identity import Identity
from smoothing_proxy.images.codec import quantise
from smoothing_proxy.images.noise import noisy_batch, pixels_to_grid
from smoothing_proxy.types import Votes

CPU = torch.device("cpu")
ENTROPY = bytes(range(16))
GREY: npt.NDArray[np.uint8] = np.full((8, 8, 3), 128, np.uint8)


class Plane(nn.Module):
    """Class 1 where <x, 1> / |1| is above `level`: an l2 distance in pixels on [0, 1]."""

    def __init__(self, level: float) -> None:
        super().__init__()
        self.level = level

    def forward(self, pictures: Tensor) -> Tensor:
        height = pictures.double().flatten(1).sum(1) / math.sqrt(pictures[0].numel()) - self.level
        return torch.stack([-height, height], dim=1)


class Always(nn.Module):
    """The same logits for every picture."""

    def __init__(self, *logits: float) -> None:
        super().__init__()
        self.logits = torch.tensor(logits)

    def forward(self, pictures: Tensor) -> Tensor:
        return self.logits.expand(len(pictures), -1)


def plane(distance: float) -> Surrogate:
    """With the grey picture on the side of class 1, so far from the boundary."""
    return Surrogate("plane", Plane(128 / 255 * math.sqrt(GREY.size) - distance))


def certifier(*classifiers: Surrogate, n: int = 4000, sigma: float = 0.1, batch: int = 150) -> Certifier:
    return Certifier(Identity(), classifiers, CertifySettings(sigma=sigma, n0=70, n=n, batch=batch), CPU)


@pytest.mark.parametrize("distance", [0.03, 0.1, 0.15, 0.2])
def test_behind_no_denoiser_a_linear_classifier_gets_almost_its_distance_to_the_boundary(distance: float) -> None:
    (certificate,) = certifier(plane(distance)).certify(GREY, ENTROPY).certificates
    share = certificate.votes.of("1") / certificate.votes.n
    expected = float(ndtr(distance / 0.1))
    assert certificate.label == "1"
    assert share == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / 4000))
    assert 0.75 * distance - 0.01 < certificate.radius < distance


def test_several_classifiers_share_copies_and_get_their_own_certificates() -> None:
    near, far = certifier(plane(0.05), plane(0.15)).certify(GREY, ENTROPY).certificates
    assert near.radius < 0.05 < far.radius
    assert near.votes.n == far.votes.n == 4000
    assert near.selection.n == 70


@pytest.mark.parametrize(("n", "batch"), [(100, 200), (1000, 64)])
def test_a_constant_classifier_gets_the_largest_radius_there_is(n: int, batch: int) -> None:
    constant = Surrogate("constant", Always(0.0, 2.0, 1.0))
    (certificate,) = certifier(constant, n=n, batch=batch).certify(GREY, ENTROPY).certificates
    assert (certificate.label, certificate.votes) == ("1", Votes({"1": n}))
    assert certificate.radius == pytest.approx(0.1 * ndtri(0.001 ** (1 / n)))


def test_logits_that_are_not_finite_vote_for_nothing() -> None:
    broken = Surrogate("broken", Always(0.0, math.nan))
    assert answers(broken, torch.zeros(2, 3, 8, 8)).tolist() == [-1, -1]
    (certificate,) = certifier(broken, n=100).certify(GREY, ENTROPY).certificates
    assert (certificate.label, certificate.radius, certificate.votes.failed) == (None, 0.0, 100)


def test_the_batch_changes_no_vote_and_classifiers_see_full_batches_only() -> None:
    sizes = set()

    class Watched(Plane):
        def forward(self, pictures: Tensor) -> Tensor:
            sizes.add(len(pictures))
            return super().forward(pictures)

    watched = Surrogate("watched", Watched(plane(0.05).network.level))  # type: ignore[arg-type]
    votes = [certifier(watched, batch=batch).votes(GREY, ENTROPY, 100) for batch in (7, 30, 300)]
    assert votes[0] == votes[1] == votes[2]
    assert sizes == {7, 30, 300}


def test_the_classifier_sees_the_copies_of_certification_denoised_and_in_bytes() -> None:
    seen: list[Tensor] = []

    class Recorder(Always):
        def forward(self, pictures: Tensor) -> Tensor:
            seen.append(pictures)
            return super().forward(pictures)

    median = Median(3)
    settings = CertifySettings(sigma=0.3, n0=10, n=10, batch=20)
    outcome = Certifier(median, [Surrogate("recorder", Recorder(1.0, 0.0))], settings, CPU).certify(GREY, ENTROPY)
    noisy = noisy_batch(pixels_to_grid(GREY), ENTROPY, range(20), 0.3)
    expected = quantise(median.denoise(noisy, 0.3))
    assert torch.equal(seen[0], torch.from_numpy(expected).permute(0, 3, 1, 2) / 255)
    errors = ((expected[:10] / 255 - 128 / 255) ** 2).mean(axis=(1, 2, 3))
    assert outcome.psnr == pytest.approx(float(np.mean(-10 * np.log10(errors))), abs=1e-3)
