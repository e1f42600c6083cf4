"""What is asked of the smoothed classifier, fixed before the first draw."""

from __future__ import annotations

import math
from dataclasses import dataclass

from smoothing_proxy.errors import ConfigError
from smoothing_proxy.images.geometry import WorkingSize
from smoothing_proxy.stats.planning import require_certifiable

__all__ = ["Smoothing"]

LARGEST_SIGMA = 10.0
"""Above this a user means the 0..255 scale; pictures on [0, 1] are long gone by then."""


@dataclass(frozen=True, slots=True)
class Smoothing:
    """The settings of CERTIFY and PREDICT (Cohen et al. 2019), in their words.

    sigma: standard deviation of the noise on the [0, 1] pixel scale, > 0.
    n0: draws of the selection phase, >= 1. n: draws of the estimation phase.
    alpha: probability that a printed proof is false, over our own noise, in (0, 1).
    working_size: what the picture is resized to before the noise ("original", "224x224", "shorter=256",
    "shorter=256,crop=224", "longer=640").

    Raises ConfigError for values out of range, and for an n that could never certify anything at this alpha.
    """

    sigma: float
    n0: int = 100
    n: int = 1000
    alpha: float = 0.001
    working_size: str = "original"

    def __post_init__(self) -> None:
        _require_number("sigma", self.sigma, above=0.0)
        if self.sigma > LARGEST_SIGMA:
            raise ConfigError(
                f"sigma = {self.sigma:g}: expected the [0, 1] pixel scale; "
                f"{self.sigma:g} on the 0..255 scale is {self.sigma / 255:.4g} here"
            )
        _require_number("alpha", self.alpha, above=0.0)
        if self.alpha >= 1.0:
            raise ConfigError(f"alpha = {self.alpha:g}: expected a probability in (0, 1)")
        for key, value in (("n0", self.n0), ("n", self.n)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigError(f"{key} = {value!r}: expected a whole number of draws, at least 1")
        require_certifiable(self.n, self.alpha)
        WorkingSize.parse(self.working_size)


def _require_number(key: str, value: float, *, above: float) -> None:
    number = not isinstance(value, bool) and isinstance(value, int | float) and math.isfinite(value)
    if not (number and value > above):
        raise ConfigError(f"{key} = {value!r}: expected a number above {above:g}")
