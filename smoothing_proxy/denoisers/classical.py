"""Denoisers that need no weights: wavelet shrinkage, Gaussian and median filters.

Each works on one picture at a time in fixed arithmetic, so a picture's output has the same bits in every batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from smoothing_proxy.denoisers.batches import (
    Pictures,
    check_noise_level,
    check_pictures,
    in_parts,
    rows_within,
)
from smoothing_proxy.errors import ConfigError, DenoiserError, nearest

__all__ = ["Gaussian", "Median", "Wavelet"]

BATCH = 32
PART_PIXELS = 2**21
"""About 100 MB of float32 working memory in a wavelet transform."""

DEEPEST = 5
"""Levels beyond the fifth change PSNR by less than .1 dB on photographs of 224x224."""

OPPONENT = np.array([[1, 1, 1], [1, 0, -1], [1, -2, 1]]) / np.sqrt([[3.0], [2.0], [6.0]])
"""An orthonormal turn of RGB, so that white noise stays white with the same sigma; its rows are grey, red against
blue, and green against both. Photographs have most of their energy in the first: +1.0 to +1.4 dB over RGB
(24 photographs of 224x224, Haar, BayesShrink, sigma .12 and .25)."""


@dataclass(frozen=True, slots=True)
class Wavelet:
    """Shrinks the detail coefficients of a 2-D discrete wavelet transform (PyWavelets, symmetric extension).

    wavelet: an orthogonal one that PyWavelets knows ("haar", "db2", "sym4"), so that every coefficient carries
    noise of standard deviation sigma. level: how often the picture is halved; None takes as many as fit, up to 5.
    mode: "soft" moves coefficients by the threshold T toward 0, "hard" zeroes those within T.
    rule: how T follows from sigma, per picture and colour plane:
      "bayes" (None without a threshold): BayesShrink (Chang, Yu, Vetterli 2000, eq. 10 to 12), in each subband of
        coefficients d: T = sigma^2 / s with s^2 = max(mean(d^2) - sigma^2, 0), and everything goes where s = 0;
      "visu": VisuShrink (Donoho, Johnstone 1994): T = sigma * sqrt(2 ln(height * width)) everywhere.
    threshold: T itself, in units of the [0, 1] pixel scale, whatever sigma is; instead of a rule.
    color: "opponent" shrinks in an orthonormal turn of RGB, "rgb" in each channel by itself.
    Raises ConfigError for any other value.
    """

    wavelet: str = "haar"
    level: int | None = None
    mode: str = "soft"
    rule: str | None = None
    threshold: float | None = None
    color: str = "opponent"

    def __post_init__(self) -> None:
        if not isinstance(self.wavelet, str):
            raise ConfigError(f"wavelet: {self.wavelet!r} is no wavelet; expected a name like 'wavelet:haar'")
        _filter_length(self.wavelet)
        if self.level is not None and (not _is_number(self.level, int) or self.level < 1):
            raise ConfigError(f"wavelet: level is {self.level!r}; expected a whole number >= 1, or none")
        _one_of("mode", self.mode, ("soft", "hard"))
        _one_of("color", self.color, ("opponent", "rgb"))
        if self.rule is not None:
            _one_of("rule", self.rule, ("bayes", "visu"))
        if self.threshold is None:
            object.__setattr__(self, "rule", self.rule or "bayes")
        elif self.rule is not None:
            raise ConfigError("wavelet: give a rule or a threshold, not both")
        elif not _is_number(self.threshold, int | float) or not 0 <= self.threshold < math.inf:
            raise ConfigError(f"wavelet: threshold is {self.threshold!r}; expected a number >= 0")

    @property
    def name(self) -> str:
        """`wavelet:haar`, then the options that differ from their defaults."""
        default = Wavelet(self.wavelet)
        return self._spec(lambda key: getattr(self, key) not in (None, getattr(default, key)))

    @property
    def fingerprint(self) -> str:
        """As the name, with every option that is set."""
        return self._spec(lambda key: getattr(self, key) is not None)

    @property
    def batch_size(self) -> int:
        """Pictures per call at best."""
        return BATCH

    def check(self, sigma: float, height: int, width: int) -> None:
        """Raises DenoiserError for a negative sigma, and for pictures too small for `level` halvings."""
        check_noise_level(self.name, sigma)
        most = _deepest(self.wavelet, min(height, width))
        if most < (self.level or 1):
            advice = f"at most level={most}" if most else "too small for this wavelet; 'wavelet:haar' takes less"
            raise DenoiserError(f"{self.name}: a picture of {height}x{width} allows {advice}")

    def denoise(self, noisy: Pictures, sigma: float) -> Pictures:
        """As Denoiser says. Raises DenoiserError for another dtype or shape, and as `check`."""
        check_pictures(self.name, noisy)
        height, width = noisy.shape[1:3]
        self.check(sigma, height, width)
        rows = rows_within(height, width, most=BATCH, pixels=PART_PIXELS)
        return in_parts(noisy, rows, lambda part: self._shrink(part, sigma))

    def _spec(self, shown: Callable[[str], bool]) -> str:
        keys = ("level", "mode", "rule", "threshold", "color")
        return ",".join(
            [f"wavelet:{self.wavelet}", *(f"{key}={getattr(self, key)}" for key in keys if shown(key))]
        )

    def _shrink(self, noisy: Pictures, sigma: float) -> Pictures:
        import pywt

        height, width = noisy.shape[1:3]
        turn = OPPONENT if self.color == "opponent" else np.eye(3)
        planes = _turned(noisy, turn)
        level = self.level or min(DEEPEST, _deepest(self.wavelet, min(height, width)))
        coarse, *details = pywt.wavedec2(planes, self.wavelet, level=level, axes=(2, 3))
        shrunk = [tuple(self._shrink_band(band, sigma, height * width) for band in bands) for bands in details]
        restored = pywt.waverec2([coarse, *shrunk], self.wavelet, axes=(2, 3))[:, :, :height, :width]
        clean: Pictures = np.moveaxis(_turned(np.moveaxis(restored, 1, 3), turn.T), 1, 3)
        return clean

    def _shrink_band(self, band: Pictures, sigma: float, pixels: int) -> Pictures:
        """band: float32 [n, 3, h, w], one subband's coefficients."""
        bound = self._bound(band, sigma, pixels)
        size = np.abs(band)
        if self.mode == "hard":
            return np.where(size > bound, band, np.float32(0))
        return np.sign(band) * np.maximum(size - bound, np.float32(0))

    def _bound(self, band: Pictures, sigma: float, pixels: int) -> Pictures:
        """T: float32, one for each picture and plane ([n, 3, 1, 1]), or one for all of them."""
        if self.threshold is not None:
            return np.asarray(self.threshold, np.float32)
        if self.rule == "visu":
            return np.asarray(sigma * math.sqrt(2 * math.log(pixels)), np.float32)
        flat = np.square(np.ascontiguousarray(band).reshape(*band.shape[:2], -1), dtype=np.float64)
        signal = np.sqrt(np.maximum(flat.mean(axis=2) - sigma**2, 0))
        bound = np.divide(sigma**2, signal, out=np.full_like(signal, np.inf), where=signal > 0)
        shaped: Pictures = np.minimum(bound, np.finfo(np.float32).max).astype(np.float32)[:, :, None, None]
        return shaped


@dataclass(frozen=True, slots=True)
class Gaussian:
    """A Gaussian filter. pixels: its standard deviation in pixels, above 0 and at most 100.

    OpenCV's GaussianBlur in float32, mirrored at the edges, cut off at four standard deviations. It does not
    look at sigma. Raises ConfigError for any other value.
    """

    pixels: float = 1.5

    def __post_init__(self) -> None:
        if not _is_number(self.pixels, int | float) or not 0 < self.pixels <= 100:
            raise ConfigError(
                f"gaussian: {self.pixels!r} is no standard deviation in pixels; expected 'gaussian:1.5', "
                "above 0 and at most 100"
            )

    @property
    def name(self) -> str:
        """`gaussian:1.5`."""
        return f"gaussian:{self.pixels:g}"

    @property
    def fingerprint(self) -> str:
        """The name with every digit of the standard deviation."""
        return f"gaussian:{float(self.pixels)!r}"

    @property
    def batch_size(self) -> int:
        """Pictures per call at best."""
        return BATCH

    def check(self, sigma: float, height: int, width: int) -> None:
        """Every size; raises DenoiserError unless sigma is a number >= 0."""
        check_noise_level(self.name, sigma)

    def denoise(self, noisy: Pictures, sigma: float) -> Pictures:
        """As Denoiser says. Raises DenoiserError for another dtype or shape, and as `check`."""
        import cv2

        check_pictures(self.name, noisy)
        self.check(sigma, *noisy.shape[1:3])

        def blur(one: Pictures) -> Pictures:
            blurred = cv2.GaussianBlur(one[0], (0, 0), self.pixels, borderType=cv2.BORDER_REFLECT_101)
            return np.asarray(blurred, np.float32)[None]

        return in_parts(noisy, 1, blur)


@dataclass(frozen=True, slots=True)
class Median:
    """A median filter on each channel. window: side of the square, odd, 3 to 99 pixels.

    The edge pixels are repeated outward. It does not look at sigma. OpenCV to window 5, SciPy above, where it is
    much slower. Raises ConfigError for any other value.
    """

    window: int = 3

    def __post_init__(self) -> None:
        if not _is_number(self.window, int) or self.window % 2 == 0 or not 3 <= self.window <= 99:
            raise ConfigError(
                f"median: {self.window!r} is no window; expected 'median:3', an odd number of pixels from 3 to 99"
            )

    @property
    def name(self) -> str:
        """`median:3`."""
        return f"median:{self.window}"

    @property
    def fingerprint(self) -> str:
        """The name says it all."""
        return self.name

    @property
    def batch_size(self) -> int:
        """Pictures per call at best."""
        return BATCH

    def check(self, sigma: float, height: int, width: int) -> None:
        """Every size; raises DenoiserError unless sigma is a number >= 0."""
        check_noise_level(self.name, sigma)

    def denoise(self, noisy: Pictures, sigma: float) -> Pictures:
        """As Denoiser says. Raises DenoiserError for another dtype or shape, and as `check`."""
        check_pictures(self.name, noisy)
        self.check(sigma, *noisy.shape[1:3])
        return in_parts(noisy, 1, self._small if self.window <= 5 else self._large)

    def _small(self, one: Pictures) -> Pictures:
        import cv2

        return np.asarray(cv2.medianBlur(one[0], self.window), np.float32)[None]

    def _large(self, one: Pictures) -> Pictures:
        from scipy import ndimage

        return ndimage.median_filter(one, size=(1, self.window, self.window, 1), mode="nearest")


def _turned(pictures: Pictures, turn: npt.NDArray[np.float64]) -> Pictures:
    """[n, h, w, 3] to planes [n, 3, h, w]: plane i is turn[i] times the channels."""
    turn = turn.astype(np.float32)
    red, green, blue = np.moveaxis(pictures, 3, 0)
    return np.stack([row[0] * red + row[1] * green + row[2] * blue for row in turn], axis=1)


@lru_cache(maxsize=64)
def _filter_length(wavelet: str) -> int:
    """The filter's length in taps. Raises ConfigError unless `wavelet` is known and orthogonal."""
    import pywt

    known = pywt.wavelist(kind="discrete")
    if wavelet not in known:
        raise ConfigError(f"wavelet: {wavelet!r} is unknown{nearest(wavelet, known)}")
    found = pywt.Wavelet(wavelet)
    if not found.orthogonal:
        raise ConfigError(f"wavelet: {wavelet!r} is not orthogonal, so sigma does not say its coefficients' noise")
    return int(found.dec_len)


def _deepest(wavelet: str, side_px: int) -> int:
    """The most halvings after which the filter is still no longer than the picture's side; 0 for none."""
    import pywt

    return int(pywt.dwt_max_level(side_px, _filter_length(wavelet)))


def _one_of(key: str, value: object, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ConfigError(f"wavelet: {key} is {value!r}{nearest(str(value), known)}")


def _is_number(value: object, kind: Any) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)
