"""What is asked of the smoothed classifier, fixed before the first draw."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from smoothing_proxy.errors import ConfigError, nearest
from smoothing_proxy.images.geometry import WorkingSize
from smoothing_proxy.stats.planning import fewest_unanimous, require_certifiable

__all__ = ["PerLabel", "Smoothing"]

METHODS = ("auto", "fixed", "target", "largest")
POLICIES = ("cost", "latency")

LARGEST_SIGMA = 10.0
"""Above this a user means the 0..255 scale; pictures on [0, 1] are long gone by then."""


@dataclass(frozen=True, slots=True)
class Smoothing:
    """The settings of CERTIFY and PREDICT, in the words of Cohen et al. 2019 where they have one.

    sigma: standard deviation of the noise on the [0, 1] pixel scale, > 0.
    alpha: probability that a printed proof is false, over our own noise, in (0, 1).
    working_size: what the picture is resized to before the noise ("original", "224x224", "shorter=256",
    "shorter=256,crop=224", "longer=640"). Radii speak of this size, and of l2 on the [0, 1] pixel scale.

    method: "fixed" is theirs: n0 draws for selection, n for estimation; PREDICT takes n.
    "target" stops as soon as target_radius is proven or not worth proving; target_radii is a ladder of several, of
    which the largest proven one is reported. "largest" lets a pilot of n0 draws decide how many fresh draws prove
    the largest radius worth its queries: at most a share of `tolerance` below what max_queries would prove.
    "auto" is "target" where a radius is given, else "fixed". PREDICT is sequential under all but "fixed".
    max_queries: draws after which a sequential procedure ends at the latest (without the pilot).
    two_sided: CERTIFY by the "fixed" method may bound every other label from above as well (stats.two_sided); the
    selection draws decide whether that would prove more.
    policy: "cost" has few needless draws in flight when it stops, "latency" has always `lookahead` in flight.

    Raises ConfigError for values out of range, and for draws that could never certify what is asked.
    """

    sigma: float
    n0: int = 100
    n: int = 1000
    alpha: float = 0.001
    working_size: str = "original"
    method: Literal["auto", "fixed", "target", "largest"] = "auto"
    target_radius: float | None = None
    target_radii: tuple[float, ...] = ()
    max_queries: int = 1000
    tolerance: float = 0.1
    policy: Literal["cost", "latency"] = "cost"
    lookahead: int = 32
    two_sided: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "target_radii", tuple(self.target_radii))
        _require_number("sigma", self.sigma, above=0.0)
        if self.sigma > LARGEST_SIGMA:
            raise ConfigError(
                f"sigma = {self.sigma:g}: expected the [0, 1] pixel scale; "
                f"{self.sigma:g} on the 0..255 scale is {self.sigma / 255:.4g} here"
            )
        _require_number("alpha", self.alpha, above=0.0)
        if self.alpha >= 1.0:
            raise ConfigError(f"alpha = {self.alpha:g}: expected a probability in (0, 1)")
        for key in ("n0", "n", "max_queries", "lookahead"):
            value = getattr(self, key)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigError(f"{key} = {value!r}: expected a whole number of draws, at least 1")
        for key, known in (("method", METHODS), ("policy", POLICIES)):
            if getattr(self, key) not in known:
                raise ConfigError(f"{key} = {getattr(self, key)!r}{nearest(str(getattr(self, key)), known)}")
        _require_number("tolerance", self.tolerance, above=-1e-300)
        self._check_method()
        WorkingSize.parse(self.working_size)

    def _check_method(self) -> None:
        if self.target_radius is not None and self.target_radii:
            raise ConfigError("target_radius and target_radii: give one of them")
        method = self.certify_method
        if method == "target":
            if not self.ladder:
                raise ConfigError('method = "target": say which radius with target_radius or target_radii')
            for radius in self.ladder:
                self._check_target(radius)
        elif self.ladder:
            raise ConfigError(f'method = "{method}" has no target; leave out target_radius and target_radii')
        if not isinstance(self.two_sided, bool) or (self.two_sided and method != "fixed"):
            raise ConfigError(
                f'two_sided = {self.two_sided!r}: true or false, and true with method = "fixed" alone'
            )
        require_certifiable(self.n if method == "fixed" else self.max_queries, self.alpha)

    def _check_target(self, radius: float) -> None:
        _require_number("target_radius", radius, above=-1e-300)
        least = fewest_unanimous(radius, self.sigma, self.alpha)
        if least > self.max_queries:
            raise ConfigError(
                f"target_radius = {radius:g}: at sigma {self.sigma:g} and alpha {self.alpha:g} it takes at least "
                f"{least:,} draws, max_queries is {self.max_queries:,}"
            )

    @property
    def certify_method(self) -> Literal["fixed", "target", "largest"]:
        """What `method` means for CERTIFY."""
        if self.method == "auto":
            return "target" if self.ladder else "fixed"
        return self.method

    @property
    def ladder(self) -> tuple[float, ...]:
        """The target radii, smallest first; () where there is none."""
        given = self.target_radii if self.target_radius is None else (self.target_radius,)
        return tuple(sorted(set(given)))


@dataclass(frozen=True, slots=True)
class PerLabel:
    """What is asked about the labels of a multi-label reply, fixed before the first draw.

    threshold: the confidence from which on a label counts as present, > 0; on the scale of LabelMap.scores.
    most: claims that are tested at most; alpha is shared out over those that are. watched: labels that are tested
    whatever the selection draws say, written as the label map writes them. confidence_radius: also bound how far
    each tested label's median confidence can move within this l2 radius, in the space where the noise is added,
    for half of alpha; None does not.

    Raises ConfigError for values out of range.
    """

    threshold: float = 0.5
    most: int = 10
    watched: tuple[str, ...] = ()
    confidence_radius: float | None = None

    def __post_init__(self) -> None:
        if isinstance(self.watched, str):
            raise ConfigError(f"watched = {self.watched!r}: expected several labels, such as ({self.watched!r},)")
        object.__setattr__(self, "watched", tuple(dict.fromkeys(self.watched)))
        _require_number("threshold", self.threshold, above=0.0)
        if isinstance(self.most, bool) or not isinstance(self.most, int) or self.most < 1:
            raise ConfigError(f"most = {self.most!r}: expected a whole number of labels, at least 1")
        if len(self.watched) > self.most:
            raise ConfigError(f"watched names {len(self.watched)} labels: most = {self.most} has no room for them")
        if not all(isinstance(label, str) and label for label in self.watched):
            raise ConfigError(f"watched = {self.watched!r}: expected names of labels")
        if self.confidence_radius is not None:
            _require_number("confidence_radius", self.confidence_radius, above=0.0)


def _require_number(key: str, value: float, *, above: float) -> None:
    number = not isinstance(value, bool) and isinstance(value, int | float) and math.isfinite(value)
    if not (number and value > above):
        raise ConfigError(f"{key} = {value!r}: expected a number above {above:g}")
