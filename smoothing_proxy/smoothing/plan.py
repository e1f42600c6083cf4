"""Plans: a verdict as a conversation with no I/O in it.

A plan asks for draws and is told votes; at the end it returns its verdict. The same plan is driven live by the
sampler, offline by the ledger, by a test's hand-written votes, and by the dry run that counts calls and dollars.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator
from functools import lru_cache
from typing import TypeAlias, TypeVar

from smoothing_proxy.smoothing.boundaries import cached_boundary
from smoothing_proxy.smoothing.lookahead import Lookahead
from smoothing_proxy.smoothing.settings import Smoothing
from smoothing_proxy.stats.certificates import certify_votes, predict_votes, proven_within, required_probability
from smoothing_proxy.stats.mode import ModeTest
from smoothing_proxy.stats.planning import largest_radius, pilot_estimation
from smoothing_proxy.stats.sequential import CALIBRATED_UP_TO, Boundary, ladder_error
from smoothing_proxy.stats.two_sided import certify_either
from smoothing_proxy.types import Certificate, Draws, Label, Prediction, Votes

__all__ = [
    "ESTIMATION",
    "SELECTION",
    "Climb",
    "Plan",
    "certify_plan",
    "ladder_of",
    "largest_provable",
    "most_draws",
    "predict_plan",
    "warm",
]

SHARE = 0.98
"""Of alpha, tried next where a ladder's joint error is too large."""

SELECTION = "selection"
ESTIMATION = "estimation"

Verdict = TypeVar("Verdict")
Plan: TypeAlias = Generator[Draws, Votes, Verdict]


def certify_plan(smoothing: Smoothing) -> Plan[Certificate]:
    """The label and its proof, by the procedure that `smoothing.method` names."""
    plans = {"fixed": fixed_plan, "target": target_plan, "largest": largest_plan}
    return plans[smoothing.certify_method](smoothing)


def predict_plan(smoothing: Smoothing) -> Plan[Prediction]:
    """The smoothed classifier's label, or an abstention."""
    return fixed_predict_plan(smoothing) if smoothing.method == "fixed" else mode_plan(smoothing)


def most_draws(smoothing: Smoothing) -> int:
    """The most draws that CERTIFY can take for one picture."""
    most = {"fixed": smoothing.n0 + smoothing.n, "target": smoothing.max_queries}
    return most.get(smoothing.certify_method, smoothing.n0 + smoothing.max_queries)


def warm(smoothing: Smoothing) -> None:
    """Have the boundaries ready, so that no plan computes them where others wait."""
    if smoothing.certify_method == "target":
        ladder_of(smoothing)


def largest_provable(smoothing: Smoothing) -> float:
    """The largest radius that CERTIFY can print, when all draws agree."""
    if smoothing.certify_method == "target":
        return smoothing.ladder[-1]
    n = smoothing.n if smoothing.certify_method == "fixed" else smoothing.max_queries
    return largest_radius(n, smoothing.alpha, smoothing.sigma)


def fixed_plan(smoothing: Smoothing) -> Plan[Certificate]:
    """CERTIFY of Cohen et al. 2019: n0 draws choose the label, n fresh ones bound its probability."""
    selection = yield Draws(SELECTION, smoothing.n0)
    estimation = yield Draws(ESTIMATION, smoothing.n)
    if smoothing.two_sided:
        return certify_either(estimation, selection, sigma=smoothing.sigma, alpha=smoothing.alpha)
    return certify_votes(
        estimation, selection.top(), sigma=smoothing.sigma, alpha=smoothing.alpha, selection=selection
    )


def largest_plan(smoothing: Smoothing) -> Plan[Certificate]:
    """A pilot of n0 draws chooses the label and how many fresh draws are worth it; these alone are the proof.

    Exact, since label and number depend on the discarded pilot alone.
    """
    pilot = yield Draws(SELECTION, smoothing.n0)
    n = pilot_estimation(pilot, smoothing.max_queries, smoothing.alpha, smoothing.tolerance)
    estimation = Votes()
    if n:
        estimation = yield Draws(ESTIMATION, n)
    return certify_votes(
        estimation, pilot.top() if n else None, sigma=smoothing.sigma, alpha=smoothing.alpha, selection=pilot
    )


@lru_cache(maxsize=64)
def ladder_of(smoothing: Smoothing) -> list[tuple[float, Boundary]]:
    """The target radii, smallest first, each with its boundary; takes seconds where they are not kept from before.

    The rungs of a ladder share alpha: each gets a little less, as far as their joint error asks for it.
    """
    needed = [required_probability(radius, smoothing.sigma) for radius in smoothing.ladder]
    alpha = smoothing.alpha
    while True:
        rungs = [cached_boundary(p0, alpha, smoothing.max_queries) for p0 in needed]
        if smoothing.max_queries > CALIBRATED_UP_TO or ladder_error(rungs) <= smoothing.alpha:
            return list(zip(smoothing.ladder, rungs, strict=True))
        alpha *= SHARE


def target_plan(smoothing: Smoothing) -> Plan[Certificate]:
    """Draw until a target radius is proven, or not worth proving; one look after every draw, in issue order.

    Several radii are hypotheses on one stream: the largest one is reported that was proven with all smaller ones,
    for the same label, and the error is alpha for all of them together (stats.sequential.ladder_error).
    """
    climb = Climb(smoothing)
    ahead = Lookahead(smoothing.lookahead, eager=smoothing.policy == "latency")
    while not climb.has_ended:
        vote = yield ahead.one_of(ESTIMATION, climb.fewest_more, left=smoothing.max_queries - climb.n)
        climb.told(vote)
    return climb.certificate


class Climb:
    """What a target procedure has proven of its ladder, looked at after every draw."""

    def __init__(self, smoothing: Smoothing) -> None:
        self._smoothing = smoothing
        self._ladder = ladder_of(smoothing)
        self._counts: Counter[Label] = Counter()
        self._proven = 0
        self._label: Label | None = None
        self.n = 0
        self._look()

    def told(self, vote: Votes) -> None:
        """The next draw, in issue order."""
        self._counts.update(vote.counts)
        self.n += 1
        self._look()

    @property
    def next_radius(self) -> float | None:
        """What is to be proven next; None where all is."""
        return self._ladder[self._proven][0] if self._proven < len(self._ladder) else None

    @property
    def has_ended(self) -> bool:
        """Whether all is proven, or what is left not worth going on for."""
        return self.next_radius is None or self._ladder[self._proven][1].is_hopeless(self.n, self._votes)

    @property
    def fewest_more(self) -> int:
        """The fewest further draws that could prove the next radius."""
        return self._ladder[self._proven][1].fewest_more(self.n, self._votes)

    @property
    def certificate(self) -> Certificate:
        """What is proven so far, as if the draws ended here."""
        radius = self._ladder[self._proven - 1][0] if self._proven else None
        votes = Votes(self._counts, self.n - self._counts.total())
        smoothing = self._smoothing
        return proven_within(radius, self._label, votes, sigma=smoothing.sigma, alpha=smoothing.alpha)

    @property
    def _leader(self) -> Label | None:
        """Once a radius is proven for a label, the next ones are for the same."""
        return self._label or min(self._counts, key=lambda label: (-self._counts[label], label), default=None)

    @property
    def _votes(self) -> int:
        leader = self._leader
        return self._counts[leader] if leader else 0

    def _look(self) -> None:
        while self.next_radius is not None and self._ladder[self._proven][1].certifies(self.n, self._votes):
            self._label, self._proven = self._leader, self._proven + 1


def fixed_predict_plan(smoothing: Smoothing) -> Plan[Prediction]:
    """PREDICT of Cohen et al. 2019: n draws, and a two-sided test of the two best labels."""
    votes = yield Draws(ESTIMATION, smoothing.n)
    return predict_votes(votes, alpha=smoothing.alpha)


def mode_plan(smoothing: Smoothing) -> Plan[Prediction]:
    """Draw until one label is the most likely one (stats.mode), at most max_queries times."""
    test = ModeTest()
    ahead = Lookahead(smoothing.lookahead, eager=smoothing.policy == "latency")
    for n in range(smoothing.max_queries):
        if test.p_value <= smoothing.alpha:
            break
        needed = test.fewest_more(smoothing.alpha)
        vote = yield ahead.one_of(ESTIMATION, needed, left=smoothing.max_queries - n)
        test.vote(vote.top())
    p_value, alpha = test.p_value, smoothing.alpha
    return Prediction(test.leader if p_value <= alpha else None, p_value, alpha, test.votes)
