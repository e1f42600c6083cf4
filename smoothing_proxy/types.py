"""The frozen nouns that every floor shares. No I/O, and no arithmetic beyond counting."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

__all__ = ["Certificate", "Cost", "Draws", "Label", "Prediction", "Reply", "ScoredLabel", "Votes"]

Label: TypeAlias = str
"""A canonical label: what a label map makes of a classifier's reply."""


@dataclass(frozen=True, slots=True)
class ScoredLabel:
    """One label of a reply. name: as the classifier writes it. confidence: in [0, 1]. id: its own id or "".

    parents: broader labels of the classifier's own tree ("Dog" of "Pug"). aliases: other names of the same label.
    """

    name: str
    confidence: float
    id: str = ""
    parents: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Reply:
    """A parsed answer. labels: in any order, may be empty. model_version: as stated, or ""."""

    labels: tuple[ScoredLabel, ...]
    model_version: str = ""
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class Draws:
    """What a plan asks for: `count` more draws of one phase.

    phase: "selection" or "estimation". count: draws to have under way, >= 0. at_least: the plan is answered with
    that many of them, the next in issue order, as soon as they have settled; None waits for all `count`.
    """

    phase: str
    count: int
    at_least: int | None = None

    @property
    def answered(self) -> int:
        """How many votes the answer holds."""
        return self.count if self.at_least is None else min(self.at_least, self.count)


@dataclass(frozen=True, slots=True)
class Votes:
    """How many draws voted for each label.

    counts: votes per label, every count > 0. failed: draws that voted for nothing (failed for good, or an empty
    reply); they count in n and never for a label.
    """

    counts: Mapping[Label, int] = field(default_factory=dict)
    failed: int = 0

    def __post_init__(self) -> None:
        if self.failed < 0 or any(count < 0 for count in self.counts.values()):
            raise ValueError(f"votes cannot be negative: {dict(self.counts)!r}, failed={self.failed}")
        object.__setattr__(self, "counts", {name: n for name, n in self.counts.items() if n})

    @classmethod
    def tally(cls, labels: Iterable[Label | None]) -> Votes:
        """Count one vote per item; None is a draw that voted for nothing."""
        counts: Counter[Label | None] = Counter(labels)
        failed = counts.pop(None, 0)
        return cls({name: n for name, n in counts.items() if name is not None}, failed)

    @property
    def n(self) -> int:
        """Draws asked for, failed ones included."""
        return sum(self.counts.values()) + self.failed

    def of(self, label: Label | None) -> int:
        """Votes for `label`; 0 for None."""
        return 0 if label is None else self.counts.get(label, 0)

    def ranked(self) -> list[tuple[Label, int]]:
        """Labels with their votes, most first, ties by the label's name."""
        return sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))

    def top(self) -> Label | None:
        """The label with most votes, ties by name; None when no draw voted for a label."""
        ranked = self.ranked()
        return ranked[0][0] if ranked else None

    def __add__(self, other: Votes) -> Votes:
        return Votes(Counter(self.counts) + Counter(other.counts), self.failed + other.failed)


@dataclass(frozen=True, slots=True)
class Cost:
    """What answers cost. Two costs add.

    queries: settled queries, each billed once. unknown: sends whose outcome never came, so that they may have
    been billed; they are charged. usd: dollars for both.
    """

    queries: int = 0
    unknown: int = 0
    usd: float = 0.0

    def at(self, price_usd: float) -> Cost:
        """The same queries at a price for each; the unknown ones are charged too."""
        return Cost(self.queries, self.unknown, (self.queries + self.unknown) * price_usd)

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.queries + other.queries, self.unknown + other.unknown, self.usd + other.usd)


@dataclass(frozen=True, slots=True)
class Prediction:
    """PREDICT of Cohen et al.: the smoothed classifier's label, wrong with probability <= alpha, or None.

    label: None abstains. p_value: of "the two best labels are equally likely", in [0, 1].
    votes: of all draws. alpha: in (0, 1).
    """

    label: Label | None
    p_value: float
    alpha: float
    votes: Votes
    cost: Cost = Cost()

    @property
    def queries(self) -> int:
        """Draws behind this prediction."""
        return self.votes.n


@dataclass(frozen=True, slots=True)
class Certificate:
    """CERTIFY of Cohen et al.: a label, and an l2 ball around the picture in which it cannot change.

    label: None abstains (then radius and input_radius are 0.0).
    radius: l2, on the [0, 1] pixel scale, where the noise was added (`working_size`).
    p_lower: lower confidence bound on the probability that a draw votes for `label`, in [0, 1].
    sigma: of the noise, on the [0, 1] pixel scale. alpha: probability that the proof is false, in (0, 1).
    votes: of the estimation phase. selection: of the selection phase.
    input_radius: the same proof for the picture as the user sent it (`input_size`); None until it is known.
    working_size, input_size: (height, width) in pixels that the two radii speak of.
    """

    label: Label | None
    radius: float
    p_lower: float
    sigma: float
    alpha: float
    votes: Votes
    selection: Votes = field(default_factory=Votes)
    input_radius: float | None = None
    working_size: tuple[int, int] | None = None
    input_size: tuple[int, int] | None = None
    cost: Cost = Cost()

    @property
    def queries(self) -> int:
        """Draws behind this certificate, both phases."""
        return self.selection.n + self.votes.n
