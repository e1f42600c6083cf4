"""What a procedure will cost and prove, over pictures of which only a prior is known: exact, before any query.

A picture is described by p_A, the probability that a draw votes for its most likely label. Where a procedure has
to choose the label first, it is taken to find it when it gets more than half of those votes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import special

from smoothing_proxy.stats.mode import ModeTest
from smoothing_proxy.stats.planning import pilot_estimation
from smoothing_proxy.stats.priors import Prior
from smoothing_proxy.stats.sequential import Boundary
from smoothing_proxy.stats.stops import stops
from smoothing_proxy.types import Votes

__all__ = [
    "Forecast",
    "forecast_fixed",
    "forecast_largest",
    "forecast_predict",
    "forecast_target",
]

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

Rung: TypeAlias = tuple[float, Boundary]
"""A target radius with its boundary."""


@dataclass(frozen=True, eq=False)
class Forecast:
    """Of one picture drawn from the prior.

    most: queries, the worst case. queries: int [m], rising, and chance: float [m], what it may cost, sums to 1.
    radii: float [r], rising; proven: float [r], the probability that a radius of at least that is certified.
    mean_radius: expected certified radius, 0 where nothing is proven.
    """

    most: int
    queries: Ints
    chance: Floats
    radii: Floats
    proven: Floats
    mean_radius: float

    @property
    def mean(self) -> float:
        """Expected queries."""
        return float(self.queries @ self.chance)

    @property
    def deviation(self) -> float:
        """Standard deviation of the queries."""
        return float(np.sqrt(max(0.0, float(self.queries.astype(np.float64) ** 2 @ self.chance) - self.mean**2)))

    def quantile(self, share: float) -> int:
        """The fewest queries that are enough for this share of the pictures."""
        enough = np.searchsorted(np.cumsum(self.chance), share * (1 - 1e-12))
        return int(self.queries[min(int(enough), len(self.queries) - 1)])

    def proven_at(self, radius: float) -> float:
        """The probability that at least this radius is certified, as far as `radii` tells."""
        at_least = np.flatnonzero(self.radii >= radius * (1 - 1e-12))
        return float(self.proven[at_least[0]]) if len(at_least) else 0.0


def forecast_target(prior: Prior, ladder: Sequence[Rung]) -> Forecast:
    """Of smoothing.plan.target_plan. ladder: radii with their boundaries of one n_max, smallest first."""
    ends = stops([boundary for _, boundary in ladder])
    chance = prior.weight @ ends.chances(prior.p)
    chance /= chance.sum()
    radii = np.array([radius for radius, _ in ladder])
    proven = np.array([float(chance[ends.proven > rung].sum()) for rung in range(len(ladder))])
    mean_radius = float(np.concatenate([[0.0], radii])[ends.proven] @ chance)
    return _forecast(ladder[0][1].n_max, ends.n, chance, radii, proven, mean_radius)


def forecast_fixed(
    prior: Prior, *, n0: int, n: int, alpha: float, sigma: float, radii: Sequence[float] = (0.0,)
) -> Forecast:
    """Of CERTIFY of Cohen et al. radii: of which the certified share is wanted; 0.0 is "anything at all"."""
    found = _binomial(n0, prior.p) @ _found(n0)
    chances = _mixed(prior.weight * found, n, prior.p)
    certified = _radii(n, alpha, sigma)
    return _certified(n0 + n, np.array([n0 + n]), np.ones(1), radii, certified, chances)


def forecast_largest(
    prior: Prior,
    *,
    n0: int,
    n_max: int,
    alpha: float,
    sigma: float,
    tolerance: float,
    radii: Sequence[float] = (0.0,),
    proof_alpha: float | None = None,
) -> Forecast:
    """Of smoothing.plan.largest_plan: the pilot's outcomes one by one, each with its own number of fresh draws.

    proof_alpha: the level that radii are proven at, where it is another one than the pilot reckons with.
    """
    pilot = prior.weight[:, np.newaxis] * _binomial(n0, prior.p)  # [m, n0 + 1]
    drawn = np.array([pilot_estimation(_pilot(k, n0), n_max, alpha, tolerance) for k in range(n0 + 1)])
    certified, chances = [np.zeros(1)], [np.zeros(1)]
    for n in sorted({*drawn.tolist()} - {0}):
        certified.append(_radii(n, proof_alpha or alpha, sigma))
        chances.append(_mixed(pilot @ (_found(n0) * (drawn == n)), n, prior.p))
    return _certified(
        n0 + n_max, n0 + drawn, pilot.sum(axis=0), radii, np.concatenate(certified), np.concatenate(chances)
    )


def forecast_predict(
    prior: Prior,
    *,
    alpha: float,
    max_queries: int,
    rng: np.random.Generator,
    trials: int = 4,
    runner_up: float = 0.75,
) -> Forecast:
    """Of smoothing.plan.mode_plan, by simulation: `trials` runs for each value of the prior.

    runner_up: the share of all other votes that the strongest other label gets, in [0, 1], but never more than
    p_A; the rest is spread over labels of their own. radii is [0.0], proven the share that is answered.
    """
    runs = [
        (weight / trials, *_predicted(p, min(p, runner_up * (1.0 - p)), alpha, max_queries, rng))
        for p, weight in zip(prior.p, prior.weight, strict=True)
        for _ in range(trials)
    ]
    chance, draws, answered = (np.array(column) for column in zip(*runs, strict=True))
    return _forecast(max_queries, draws, chance, np.zeros(1), np.array([float(answered @ chance)]), 0.0)


def _predicted(
    p: float, second: float, alpha: float, max_queries: int, rng: np.random.Generator
) -> tuple[int, bool]:
    """Draws, and whether it answered."""
    test = ModeTest()
    for n, u in enumerate(_uniform(rng, max_queries)):
        if test.p_value <= alpha:
            return n, True
        test.vote("a" if u < p else "b" if u < p + second else f"other {n}")
    return max_queries, test.p_value <= alpha


def _uniform(rng: np.random.Generator, count: int) -> Iterator[float]:
    for start in range(0, count, 64):
        yield from rng.random(min(64, count - start)).tolist()


def _pilot(k: int, n: int) -> Votes:
    """k votes for the label that leads, the others each for one of its own."""
    return Votes(
        {"label": k} | {f"other {i}": 1 for i in range(n - k)} if k else {f"other {i}": 1 for i in range(n)}
    )


def _found(n0: int) -> Floats:
    """float [n0 + 1]: whether so many of the votes that choose a label choose this one; a half at a tie."""
    k = np.arange(n0 + 1)
    return np.where(2 * k == n0, 0.5, np.where(2 * k > n0, 1.0, 0.0))


def _binomial(n: int, p: Floats) -> Floats:
    """float [len(p), n + 1]: the distribution of votes."""
    k, q = np.arange(n + 1), p[:, np.newaxis]
    log = special.gammaln(n + 1) - special.gammaln(k + 1) - special.gammaln(n - k + 1)
    chances: Floats = np.exp(log + special.xlogy(k, q) + special.xlog1py(n - k, -q))
    return chances


def _mixed(weight: Floats, n: int, p: Floats) -> Floats:
    """float [n + 1]: weight @ _binomial(n, p), of which only one row is in memory at a time."""
    chances = np.zeros(n + 1)
    for share, value in zip(weight, p, strict=True):
        chances += share * _binomial(n, np.array([value]))[0]
    return chances


def _radii(n: int, alpha: float, sigma: float) -> Floats:
    """float [n + 1]: what CERTIFY prints after 0, 1, ... n votes of n, but for the last rounding down."""
    k = np.arange(1, n + 1)
    p_lower = np.concatenate([[0.0], special.betaincinv(k, n - k + 1.0, alpha)])
    radii: Floats = sigma * special.ndtri(np.maximum(0.5, p_lower))
    return radii


def _certified(
    most: int, queries: Ints, chance: Floats, radii: Sequence[float], certified: Floats, chances: Floats
) -> Forecast:
    """certified, chances: every radius that may come out, with its probability; 0.0 is an abstention."""
    asked = np.sort(np.array(radii, dtype=np.float64))
    proven = np.array([float(chances[(certified >= radius) & (certified > 0)].sum()) for radius in asked])
    return _forecast(most, queries, chance, asked, proven, float(certified @ chances))


def _forecast(
    most: int, queries: Ints, chance: Floats, radii: Floats, proven: Floats, mean_radius: float
) -> Forecast:
    values, index = np.unique(queries, return_inverse=True)
    chances = np.bincount(index, weights=chance)
    return Forecast(most, values, chances / chances.sum(), radii, np.minimum(proven, 1.0), mean_radius)
