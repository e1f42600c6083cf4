from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.svm import SVC

from denoiser_training.data import digits, is_digits_test
from smoothing_proxy.demo.digits import export_test_digits
from smoothing_proxy.denoisers import weights
from smoothing_proxy.denoisers.registry import denoiser
from smoothing_proxy.images.codec import quantise
from smoothing_proxy.images.noise import insecure_entropy, noisy_batch, pixels_to_grid

ROOT = Path(__file__).resolve().parents[2]
CARD = ROOT / "smoothing_proxy/denoisers/shipped/digits.json"
COPIES = 3


def test_the_demos_digits_are_none_of_the_trainings(tmp_path: Path) -> None:
    exported = {Path(name).stem for name in export_test_digits(tmp_path / "digits", 360)}
    assert len(exported) == 360
    assert not exported & set(digits().names)


@pytest.mark.parametrize("sigma", [0.25, 0.5, 0.75])
def test_a_classifier_that_nobody_differentiated_is_as_accurate_as_the_card_says(sigma: float) -> None:
    bunch = load_digits()
    test = np.array([is_digits_test(i) for i in range(len(bunch.target))])
    grey = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    svc = SVC().fit(grey[~test].reshape(-1, 64), bunch.target[~test])
    grids = [pixels_to_grid(np.repeat(picture[..., None], 3, axis=2)) for picture in grey[test]]
    noisy = np.concatenate(
        [noisy_batch(grid, insecure_entropy(7, b"%d" % i), range(COPIES), sigma) for i, grid in enumerate(grids)]
    )
    denoised = quantise(denoiser("digits").denoise(noisy, sigma))
    right = svc.predict(denoised.mean(axis=3).reshape(-1, 64)) == np.repeat(bunch.target[test], COPIES)
    card, _ = weights.load(CARD)
    claimed = card.model_dump()["figures"]["test"][f"sigma {sigma:g}"]["denoised"]
    assert 100 * right.mean() == pytest.approx(claimed, abs=2.0)
