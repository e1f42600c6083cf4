"""Which of the filters that need no training fits: every candidate on the same noisy pictures, by PSNR and MSE."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from smoothing_proxy.denoisers.base import Denoiser
from smoothing_proxy.denoisers.registry import denoiser
from smoothing_proxy.errors import ConfigError, DenoiserError, nearest
from smoothing_proxy.images.codec import quantise
from smoothing_proxy.images.noise import insecure_entropy, noisy_batch, pixels_to_grid
from smoothing_proxy.images.pixels import Pixels, pixels_sha256

__all__ = ["FAMILIES", "FilterScore", "Noisy", "best_of_each", "candidates", "noisy_copies", "restored", "sweep"]

Noisy = npt.NDArray[np.float32]
"""Float32 [h, w, 3], not clipped."""

WAVELETS = ("haar", "db2", "db4")
LEVELS = (1, 2, 3)
THRESHOLDS = (0.5, 1.0, 1.5, 2.0, 3.0)
"""In units of sigma, which is the standard deviation of the noise in every coefficient."""
GAUSSIANS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0)
"""Standard deviations in pixels."""
MEDIANS = (3, 5, 7, 9)


def _wavelets(sigma: float) -> list[str]:
    rules = ["", ",rule=visu"]
    rules += [f",threshold={sigma * k:.4g},mode={mode}" for mode in ("soft", "hard") for k in THRESHOLDS]
    return [f"wavelet:{name},level={level}{rule}" for name in WAVELETS for level in LEVELS for rule in rules]


FAMILIES: Mapping[str, Callable[[float], Sequence[str]]] = {
    "wavelet": _wavelets,
    "gaussian": lambda _: [f"gaussian:{px:g}" for px in GAUSSIANS],
    "median": lambda _: [f"median:{window}" for window in MEDIANS],
}
"""Name to what is tried for noise of a given sigma, as specs of the registry."""


@dataclass(frozen=True, slots=True)
class FilterScore:
    """What a filter leaves of the noise. spec: as the registry takes it. family: what stands before the colon.

    psnr: dB, the mean over pictures. mse: mean squared error on the [0, 1] pixel scale, the mean over pictures.
    """

    spec: str
    family: str
    psnr: float
    mse: float


def candidates(families: Iterable[str], sigma: float) -> list[str]:
    """Specs of every candidate, "identity" (no filter) first. Raises ConfigError for an unknown family."""
    found = ["identity"]
    for family in families:
        if family not in FAMILIES:
            raise ConfigError(f"unknown family of filters {family!r}{nearest(family, FAMILIES)}")
        found += FAMILIES[family](sigma)
    return found


def noisy_copies(pictures: Sequence[Pixels], sigma: float, seed: int) -> list[Noisy]:
    """One noisy copy of each picture, float32 [h, w, 3], not clipped; a function of seed and picture.

    pictures: uint8 [h, w, 3]. sigma: on the [0, 1] pixel scale. Raises ConfigError for sigma out of range.
    """
    return [
        noisy_batch(pixels_to_grid(picture), insecure_entropy(seed, pixels_sha256(picture).encode()), [0], sigma)[
            0
        ]
        for picture in pictures
    ]


def restored(one: Denoiser, noisy: Sequence[Noisy], sigma: float) -> list[Pixels]:
    """What a classifier would be shown: denoised, clipped and rounded, uint8 [h, w, 3] each.

    Raises DenoiserError where the filter does not take such pictures.
    """
    return [quantise(one.denoise(picture[None], sigma))[0] for picture in noisy]


def sweep(
    specs: Sequence[str], pictures: Sequence[Pixels], noisy: Sequence[Noisy], sigma: float
) -> list[FilterScore]:
    """Every candidate's score, in the order of `specs`; those that do not take such small pictures are left out.

    pictures: uint8 [h, w, 3], at least one. noisy: a copy of each.
    Raises ConfigError for a spec that there is not, or when there is nothing to compare.
    """
    if not pictures:
        raise ConfigError("no pictures to tune a filter on")
    scores = []
    for spec in specs:
        filter_, family = denoiser(spec), spec.partition(":")[0]
        try:
            errors = [_mse(*pair) for pair in zip(pictures, restored(filter_, noisy, sigma), strict=True)]
        except DenoiserError:
            continue
        scores.append(FilterScore(spec, family, _mean([_psnr(error) for error in errors]), _mean(errors)))
    if not scores:
        raise ConfigError("none of the filters takes pictures this small")
    return scores


def best_of_each(scores: Iterable[FilterScore]) -> list[FilterScore]:
    """The score with the highest PSNR of each family, in the order in which these come; ties go to the first."""
    best: dict[str, FilterScore] = {}
    for score in scores:
        if score.family not in best or score.psnr > best[score.family].psnr:
            best[score.family] = score
    return list(best.values())


def _mse(picture: Pixels, shown: Pixels) -> float:
    return float(np.mean(((picture.astype(np.float64) - shown) / 255) ** 2))


def _psnr(mse: float) -> float:
    """In dB, at most 100."""
    return -10 * math.log10(max(mse, 1e-10))


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
