"""Which label is the most likely one: decided after as few votes as the votes allow.

For every label t there is an e-process for "t is the mode": a bet, before each draw, that the strongest other
label c gets the vote rather than t. If t is the mode its wealth is a supermartingale, so that it ever reaches
1/alpha with probability at most alpha (Ville). A label is the answer once all others are rejected; only rejecting
the true mode is an error, so that there is no factor for the number of labels, and nobody needs more than half of
the votes.
Waudby-Smith, Ramdas, JRSS-B 2024 (arXiv 2010.09686); Voracek 2024 (arXiv 2406.17830).
"""

from __future__ import annotations

import math

from smoothing_proxy.types import Label, Votes

__all__ = ["ModeTest"]


class ModeTest:
    """Told one vote at a time, in the order in which the draws were issued."""

    def __init__(self) -> None:
        self._counts: dict[Label, int] = {}
        self._evidence: dict[Label, float] = {}  # log wealth against each label that was seen
        self._against_unseen = 0.0
        self.failed = 0

    @property
    def votes(self) -> Votes:
        """All that it was told."""
        return Votes(dict(self._counts), self.failed)

    @property
    def leader(self) -> Label | None:
        """The label with most votes, ties by name."""
        return self._leading(except_for=None)

    @property
    def p_value(self) -> float:
        """Of "the leader is not the mode", valid whenever one looks; 1.0 before the first vote."""
        leader = self.leader
        others = [value for label, value in self._evidence.items() if label != leader]
        return min(1.0, math.exp(-min([self._against_unseen, *others])))

    def fewest_more(self, alpha: float) -> int:
        """A lower bound on the further votes until `p_value` <= alpha; at least 1."""
        missing = math.log(self.p_value / alpha) if self.p_value > alpha else 0.0
        return max(1, math.ceil(missing / math.log(2.0)))

    def vote(self, label: Label | None) -> None:
        """One more draw; None voted for nothing, which is no evidence against anybody."""
        if label is None:
            self.failed += 1
            return
        leader, second = self.leader, self._leading(except_for=self.leader)
        if label not in self._counts:
            self._counts[label], self._evidence[label] = 0, self._against_unseen
        for other in self._counts:
            challenger = second if other == leader else leader
            self._evidence[other] += self._bet(label, other, challenger)
        self._against_unseen += self._bet(label, None, leader)
        self._counts[label] += 1

    def _bet(self, label: Label, other: Label | None, challenger: Label | None) -> float:
        """What this vote adds to the evidence against `other` (None: any label never seen)."""
        if challenger is None or label not in (challenger, other):
            return 0.0
        ahead, behind = self._counts[challenger], self._counts.get(other, 0) if other is not None else 0
        q = max(0.5, (1 + ahead) / (1.25 + ahead + behind))
        return math.log(2 * q) if label == challenger else math.log(2 * (1 - q))

    def _leading(self, *, except_for: Label | None) -> Label | None:
        ranked = ((-count, label) for label, count in self._counts.items() if label != except_for and count)
        return min(ranked, default=(0, None))[1]
