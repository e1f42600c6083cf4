from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from denoiser_training.data import digits
from denoiser_training.evaluate import Judges, psnr, runner, ssim
from denoiser_training.surrogates import Surrogate


def slow_ssim(x: Tensor, y: Tensor) -> float:
    """Window by window, from the definition."""
    a, b = x.double().numpy(), y.double().numpy()
    values = []
    for c, i, j in np.ndindex(3, a.shape[1] - 6, a.shape[2] - 6):
        p, q = a[c, i : i + 7, j : j + 7].ravel(), b[c, i : i + 7, j : j + 7].ravel()
        cov = np.cov(p, q)
        top = (2 * p.mean() * q.mean() + 1e-4) * (2 * cov[0, 1] + 9e-4)
        values.append(top / ((p.mean() ** 2 + q.mean() ** 2 + 1e-4) * (cov[0, 0] + cov[1, 1] + 9e-4)))
    return float(np.mean(values))


def test_ssim_is_its_definition() -> None:
    x, y = torch.rand(2, 3, 9, 11), torch.rand(2, 3, 9, 11)
    mixed = 0.7 * x + 0.3 * y
    assert ssim(mixed, x).tolist() == pytest.approx([slow_ssim(mixed[i], x[i]) for i in range(2)])
    assert ssim(x, x).tolist() == pytest.approx([1.0, 1.0])


@pytest.mark.parametrize(("error", "expected"), [(0.1, 20.0), (0.01, 40.0), (0.0, 100.0)])
def test_psnr_is_in_decibel(error: float, expected: float) -> None:
    clean = torch.full((2, 3, 4, 4), 0.5)
    assert psnr(clean + error, clean).tolist() == pytest.approx([expected] * 2, abs=1e-3)


class Brightness(nn.Module):
    """Class 1 when a picture is brighter than `level`."""

    def __init__(self, level: float) -> None:
        super().__init__()
        self.level = level

    def forward(self, pictures: Tensor) -> Tensor:
        mean = pictures.mean(dim=(1, 2, 3)) - self.level
        return torch.stack([-mean, mean], dim=1)


def judges(labels: Tensor | None, known: int) -> Judges:
    crops = torch.stack([torch.full((3, 8, 8), grey, dtype=torch.uint8) for grey in (0, 50, 200, 255)])
    return Judges(crops, labels, known, [Surrogate("bright", Brightness(0.1))], copies=3, batch=3, seed=0)


def test_accuracy_is_against_labels_or_else_the_classifiers_own_clean_answer() -> None:
    labels = torch.tensor([0, 0, 1, 1])
    assert judges(labels, 2).clean() == {"bright": 75.0}
    assert judges(None, 0).clean() == {"bright": 100.0}
    assert judges(labels, 10).clean() == {"bright": 100.0}


def test_a_perfect_denoiser_gets_the_clean_accuracy_and_bytes_are_what_the_classifier_sees() -> None:
    panel = judges(torch.tensor([0, 0, 1, 1]), 2)
    greys = iter([panel.crops[:3], panel.crops[3:]] * 3)
    figures = panel.figures(lambda *_: next(greys) / 255 + 0.4 / 255, 0.25)
    assert figures == {"psnr": 100.0, "ssim": pytest.approx(1.0), "bright": 75.0}


def test_every_evaluation_sees_the_same_noise_of_the_right_size() -> None:
    panel = Judges(torch.full((50, 3, 16, 16), 128, dtype=torch.uint8), None, 0, [], copies=2, batch=20, seed=0)
    first, again = (panel.figures(lambda noisy, _: noisy, 0.1) for _ in range(2))
    assert first == again
    assert first["psnr"] == pytest.approx(20.0, abs=0.1)


def test_a_network_is_judged_in_eval_mode_and_told_sigma() -> None:
    class Told(nn.Module):
        def forward(self, noisy: Tensor, sigma: Tensor) -> Tensor:
            assert not self.training
            assert sigma.tolist() == pytest.approx([0.3] * len(noisy))
            return noisy

    crops = torch.stack(digits().pixels[:5])
    Judges(crops, None, 0, [], copies=1, batch=4, seed=0).figures(runner(Told().train()), 0.3)
