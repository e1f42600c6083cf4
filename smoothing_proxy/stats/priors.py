"""What is believed about pictures before they are asked about: how p_A is spread over them.

p_A is the probability that a draw votes for a picture's most likely label. Costs follow from a prior; proofs never
do.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

__all__ = ["PUBLISHED", "Prior", "after_pilot", "beta_mixture"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Prior:
    """A histogram of p_A. p: float [m] in [0, 1]. weight: float [m], > 0, sums to 1. source: where it comes from.

    Raises ValueError for anything else.
    """

    p: Floats
    weight: Floats
    source: str

    def __post_init__(self) -> None:
        p, weight = np.asarray(self.p, dtype=np.float64), np.asarray(self.weight, dtype=np.float64)
        if p.ndim != 1 or p.shape != weight.shape or not len(p):
            raise ValueError(f"p {p.shape} and weight {weight.shape}: expected two equal lengths, at least 1")
        if not (np.all((p >= 0) & (p <= 1)) and np.all(weight > 0) and np.isfinite(weight).all()):
            raise ValueError("expected probabilities in [0, 1] with weights above 0")
        object.__setattr__(self, "p", p)
        object.__setattr__(self, "weight", weight / weight.sum())

    @classmethod
    def of(cls, p: Iterable[float], source: str) -> Prior:
        """Equally likely values."""
        values, counts = np.unique(np.fromiter(p, dtype=np.float64), return_counts=True)
        return cls(values, counts.astype(np.float64), source)


def beta_mixture(components: Sequence[tuple[float, float, float]], *, points: int = 100) -> Prior:
    """A mixture of Beta distributions as a histogram. components: (weight, a, b), all > 0.

    points: equally likely values for each component, the middles of its quantiles.
    """
    middles = (np.arange(points) + 0.5) / points
    p = np.concatenate([special.betaincinv(a, b, middles) for _, a, b in components])
    weight = np.repeat([w for w, _, _ in components], points)
    told = " + ".join(f"{w:g} Beta({a:g}, {b:g})" for w, a, b in components)
    return Prior(p, weight, told)


def after_pilot(pilot: Sequence[tuple[int, int]], prior: Prior, *, prior_pictures: float = 5.0) -> Prior:
    """What a pilot leaves of a prior. pilot: (votes for the leading label, draws) of each of its pictures.

    Each pilot picture counts as one picture, spread over p_A as Bayes' rule spreads it; the prior counts as
    `prior_pictures` more. How the pilot stopped does not matter: the likelihood is that of the votes.
    Raises ValueError when a picture has more votes than draws, or none of its values can explain a picture.
    """
    total = prior_pictures * prior.weight
    for k, n in pilot:
        if not 0 <= k <= n:
            raise ValueError(f"{k} votes of {n} draws: expected at most as many votes as draws")
        log_likelihood = special.xlogy(k, prior.p) + special.xlog1py(n - k, -prior.p)
        if not np.isfinite(log_likelihood).any():
            raise ValueError(f"{k} votes of {n} draws: impossible under the prior")
        posterior = prior.weight * np.exp(log_likelihood - log_likelihood.max())
        total = total + posterior / posterior.sum()
    kept = total > 0
    pictures = len(pilot)
    source = f"a pilot of {pictures} pictures, and {prior_pictures:g} more of: {prior.source}"
    return Prior(prior.p[kept], total[kept], source)


_QUANTILES = """
    0.28192 0.33994 0.39797 0.45599 0.50871 0.54822 0.57857 0.60218 0.63081 0.66276 0.68265 0.70707
    0.72437 0.74823 0.76701 0.78856 0.82507 0.84752 0.86249 0.88898 0.90235 0.91407 0.93167 0.94492
    0.95565 0.96448 0.97119 0.97843 0.98402 0.98865 0.9904 0.99381 0.99543 0.99644 0.99777 0.99848
    0.99896 0.99926 0.99953 0.99978 0.99991 0.99997 0.99999 0.99999 1 1 1 1 1 1
"""

PUBLISHED = Prior.of(
    map(float, _QUANTILES.split()),
    "Cohen et al. 2019, CIFAR-10, a ResNet-110 trained with this noise",
)
"""Quantiles 1 %, 3 %, ... 99 % of p_A in the published log of sigma 0.25 (locuslab/smoothing, data/certify).

500 pictures. p_A is the share of 100,000 votes whose lower bound gives the logged radius. Of the 43 abstentions
the log says nothing more: they count as spread evenly over 0.25 to 0.5.
tests/stats/test_sequential_published.py makes it again.
"""
