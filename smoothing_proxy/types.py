"""The frozen nouns that every floor shares. No I/O, and no arithmetic beyond counting."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

__all__ = [
    "Certificate",
    "ConfidenceInterval",
    "Cost",
    "Draws",
    "Label",
    "LabelCertificate",
    "LabelsCertificate",
    "Prediction",
    "Reply",
    "ScoredLabel",
    "TopKCertificate",
    "Votes",
]

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
    p_upper: upper bound on the probability of every other label, where the two were bounded together; None where
        the radius takes it to be 1 - p_lower.
    sequential: a test decided when to stop, so that the votes are of no fixed number of draws.
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
    p_upper: float | None = None
    sequential: bool = False

    @property
    def queries(self) -> int:
        """Draws behind this certificate, both phases."""
        return self.selection.n + self.votes.n


@dataclass(frozen=True, slots=True)
class TopKCertificate:
    """A label, and an l2 ball in which it stays among the k most likely labels of the smoothed classifier.

    label: None abstains (then radius and input_radius are 0.0). k: >= 1. named: the other labels that have an
    upper bound of their own; all further ones are bounded together. The other fields are those of Certificate.
    """

    label: Label | None
    k: int
    radius: float
    p_lower: float
    sigma: float
    alpha: float
    votes: Votes
    selection: Votes = field(default_factory=Votes)
    named: tuple[Label, ...] = ()
    input_radius: float | None = None
    working_size: tuple[int, int] | None = None
    input_size: tuple[int, int] | None = None
    cost: Cost = Cost()

    @property
    def queries(self) -> int:
        """Draws behind this certificate, both phases."""
        return self.selection.n + self.votes.n


@dataclass(frozen=True, slots=True)
class ConfidenceInterval:
    """Where the median confidence of a label over the noise stays while the picture changes by less than `radius`.

    median: of the draws that were answered, for the picture as it is. low, high: bounds, >= 0; `high` is infinite
    where too many draws failed. radius: l2, on the [0, 1] pixel scale, where the noise was added; input_radius:
    the same for the picture as the user sent it, None until it is known.
    """

    median: float
    low: float
    high: float
    radius: float
    input_radius: float | None = None


@dataclass(frozen=True, slots=True)
class LabelCertificate:
    """One label of a multi-label reply, and an l2 ball in which it stays present, or stays absent.

    label: canonical, or a class of the label map. threshold: the confidence from which on it counts as present.
    present: True stays present, False stays absent; None abstains (then radius and input_radius are 0.0).
    radius, input_radius: as in Certificate. p_lower: lower confidence bound on the probability that a draw says
    so. votes: of the estimation draws, for "present" and "absent". confidence: where it was asked for.
    """

    label: Label
    present: bool | None
    radius: float
    p_lower: float
    threshold: float
    votes: Votes
    confidence: ConfidenceInterval | None = None
    input_radius: float | None = None


@dataclass(frozen=True, slots=True)
class LabelsCertificate:
    """The proofs about the labels of one multi-label picture. All of them hold but for a probability of alpha.

    labels: those that were tested, in the order in which they were chosen; () where none was worth it.
    alpha_each: what each claim was tested at. selection, estimation: draws of the two phases; failed: of both.
    The other fields are those of Certificate.
    """

    labels: tuple[LabelCertificate, ...]
    sigma: float
    alpha: float
    alpha_each: float
    selection: int
    estimation: int
    failed: int = 0
    working_size: tuple[int, int] | None = None
    input_size: tuple[int, int] | None = None
    cost: Cost = Cost()

    @property
    def queries(self) -> int:
        """Draws behind these proofs, both phases."""
        return self.selection + self.estimation

    @property
    def present(self) -> tuple[Label, ...]:
        """The labels proven to stay present."""
        return tuple(proof.label for proof in self.labels if proof.present)

    @property
    def absent(self) -> tuple[Label, ...]:
        """The labels proven to stay absent."""
        return tuple(proof.label for proof in self.labels if proof.present is False)

    def of(self, label: Label) -> LabelCertificate | None:
        """The proof about one label; None where it was not tested."""
        return next((proof for proof in self.labels if proof.label == label), None)
