"""The denoisers without weights as differentiable functions, equal to what they do to arrays.

A Gaussian filter and a wavelet transform are linear along each side, so each is a matrix, which is read off the
denoiser or off PyWavelets by giving it unit pictures: whatever they do at the edges is done here as well.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from smoothing_proxy.denoisers.batches import Pictures
from smoothing_proxy.denoisers.classical import OPPONENT, Gaussian, Median, Wavelet

__all__ = ["gaussian", "median", "straight_through", "wavelet"]

LARGEST_WINDOW = 15
"""Above it a median takes too much memory to be differentiated; its gradient is passed straight through."""

HUGE = 3.0e38
DEEPEST = 5


def gaussian(denoiser: Gaussian, pictures: Tensor) -> Tensor:
    """float [n, 3, h, w] -> the same."""
    rows, columns = (_blur(denoiser, side).to(pictures) for side in pictures.shape[2:])
    return rows @ pictures @ columns.T


def median(denoiser: Median, pictures: Tensor) -> Tensor:
    """float [n, 3, h, w] -> the same. The gradient of a median goes to the pixel that is it."""
    window = denoiser.window
    if window > LARGEST_WINDOW:
        return straight_through(lambda noisy: denoiser.denoise(noisy, 0.0), pictures)
    edge = window // 2
    framed = pad(pictures, (edge, edge, edge, edge), mode="replicate")
    windows = framed.unfold(2, window, 1).unfold(3, window, 1)
    return windows.flatten(4).median(dim=4).values


def wavelet(denoiser: Wavelet, pictures: Tensor, sigma: float) -> Tensor:
    """float [n, 3, h, w] -> the same. Coefficients that are zeroed pass no gradient, as they are."""
    turn = torch.tensor(OPPONENT if denoiser.color == "opponent" else np.eye(3)).to(pictures)
    planes = torch.einsum("ij,njhw->nihw", turn, pictures)
    side = min(pictures.shape[2:])
    level = denoiser.level or min(DEEPEST, _deepest(denoiser.wavelet, side))
    shrunk = _shrunk(denoiser, planes, sigma, level, planes.shape[2] * planes.shape[3])
    return torch.einsum("ji,njhw->nihw", turn, shrunk)


def straight_through(function: Callable[[Pictures], Pictures], pictures: Tensor) -> Tensor:
    """`function` on float32 [n, h, w, 3] forward, and the identity backward (BPDA, Athalye et al. 2018)."""
    noisy = np.ascontiguousarray(pictures.detach().cpu().float().permute(0, 2, 3, 1).numpy())
    clean = torch.from_numpy(np.array(function(noisy))).permute(0, 3, 1, 2).to(pictures)
    return pictures + (clean - pictures).detach()


@lru_cache(maxsize=16)
def _blur(denoiser: Gaussian, side: int) -> Tensor:
    """[side, side]: column i is what the filter makes of the picture of one column that is 1 in row i."""
    units = np.repeat(np.eye(side, dtype=np.float32)[:, :, None, None], 3, axis=3)
    return torch.from_numpy(np.ascontiguousarray(denoiser.denoise(units, 0.0)[:, :, 0, 0].T))


def _shrunk(denoiser: Wavelet, planes: Tensor, sigma: float, level: int, pixels: int) -> Tensor:
    """One halving, with what is within shrunk in turn; `pixels`: of the whole picture."""
    if level == 0:
        return planes
    height, width = planes.shape[2:]
    down, across = (_analysis(denoiser.wavelet, side).to(planes) for side in (height, width))
    low_high = [(one @ planes) for one in down]
    bands = [[half @ other.T for other in across] for half in low_high]
    coarse = _shrunk(denoiser, bands[0][0], sigma, level - 1, pixels)
    details = [_shrunk_band(denoiser, band, sigma, pixels) for band in (bands[0][1], bands[1][0], bands[1][1])]
    up, wide = (_synthesis(denoiser.wavelet, side).to(planes) for side in (height, width))
    low = up[0] @ (coarse @ wide[0].T + details[0] @ wide[1].T)
    high = up[1] @ (details[1] @ wide[0].T + details[2] @ wide[1].T)
    return low + high


def _shrunk_band(denoiser: Wavelet, band: Tensor, sigma: float, pixels: int) -> Tensor:
    bound = _bound(denoiser, band, sigma, pixels)
    size = band.abs()
    if denoiser.mode == "hard":
        return torch.where(size > bound, band, torch.zeros_like(band))
    return band.sign() * (size - bound).clamp_min(0.0)


def _bound(denoiser: Wavelet, band: Tensor, sigma: float, pixels: int) -> Tensor:
    if denoiser.threshold is not None:
        return band.new_tensor(denoiser.threshold)
    if denoiser.rule == "visu":
        return band.new_tensor(sigma * math.sqrt(2 * math.log(pixels)))
    energy = band.double().square().mean(dim=(2, 3), keepdim=True) - sigma**2
    signal = energy.clamp_min(1e-300).sqrt()
    bound = torch.where(energy > 0, sigma**2 / signal, torch.full_like(signal, HUGE))
    return bound.clamp_max(HUGE).to(band)


@lru_cache(maxsize=64)
def _analysis(name: str, side: int) -> Tensor:
    """[2, half, side]: low and high pass."""
    import pywt

    return torch.from_numpy(np.stack(pywt.dwt(np.eye(side), name, axis=0)))


@lru_cache(maxsize=64)
def _synthesis(name: str, side: int) -> Tensor:
    """[2, side, half]: back from low and high pass."""
    import pywt

    half = _analysis(name, side).shape[1]
    unit, nothing = np.eye(half), np.zeros((half, half))
    pair = [pywt.idwt(unit, nothing, name, axis=0), pywt.idwt(nothing, unit, name, axis=0)]
    return torch.from_numpy(np.stack(pair)[:, :side])


def _deepest(name: str, side: int) -> int:
    import pywt

    return int(pywt.dwt_max_level(side, pywt.Wavelet(name).dec_len))
