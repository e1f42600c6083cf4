"""Proofs about several labels from a run's own draws, asked for when the run begins: they cost nothing more."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from smoothing_proxy.backends.labels import LabelMap
from smoothing_proxy.errors import ConfigError
from smoothing_proxy.ledger.reader import LedgerReader
from smoothing_proxy.ledger.reply_replay import replay_labels, replay_top_k
from smoothing_proxy.runs.family import Family
from smoothing_proxy.runs.label_rows import label_row
from smoothing_proxy.smoothing.label_plans import check_watched
from smoothing_proxy.smoothing.settings import PerLabel, Smoothing
from smoothing_proxy.stats.planning import largest_radius
from smoothing_proxy.stats.topk import certify_top_k, check_k
from smoothing_proxy.types import Votes

__all__ = ["LABELS_FILE", "TOP_K_FILE", "LabelQuestions", "label_rows", "labels_statement"]

LABELS_FILE = "labels.jsonl"
TOP_K_FILE = "top_k.jsonl"


@dataclass(frozen=True, slots=True)
class LabelQuestions:
    """What a run is asked beside each picture's label; None and None is nothing. top_k: 1..20."""

    per_label: PerLabel | None = None
    top_k: int | None = None

    def __bool__(self) -> bool:
        return self.per_label is not None or self.top_k is not None

    def check(self, smoothing: Smoothing, labels: LabelMap) -> None:
        """Raises ConfigError where the run's draws could not answer."""
        if self and smoothing.certify_method != "fixed":
            raise ConfigError(
                f'--per-label, --top-k: they need n0 + n draws of each picture, and method "'
                f'{smoothing.certify_method}" stops earlier; say --method fixed, without a target radius'
            )
        if self.top_k is not None:
            check_k(self.top_k)
        if self.per_label is not None:
            check_watched(self.per_label, labels.classes)
            if labels.present is not None:
                raise ConfigError("the label map's `present` asks about one label: leave it out with --per-label")

    def described(self) -> dict[str, Any]:
        """Entries of the run's question, as JSON values; none where nothing is asked."""
        found: dict[str, Any] = {}
        if self.per_label is not None:
            found["per_label"] = {**asdict(self.per_label), "watched": list(self.per_label.watched)}
        if self.top_k is not None:
            found["top_k"] = self.top_k
        return found

    @classmethod
    def recorded(cls, manifest: Mapping[str, Any]) -> LabelQuestions:
        """What the run was asked when it began."""
        asked = manifest.get("per_label")
        return cls(None if asked is None else PerLabel(**asked), manifest.get("top_k"))

    def largest_radii(self, smoothing: Smoothing) -> dict[str, float]:
        """The radius that each proof reaches when all draws agree; per label where `most` claims are tested."""
        found = {}
        if self.per_label is not None:
            shares = self.per_label.most * (1 if self.per_label.confidence_radius is None else 2)
            found["per_label"] = largest_radius(smoothing.n, smoothing.alpha / shares, smoothing.sigma)
        if self.top_k is not None:
            selection, votes = Votes({"label": smoothing.n0}), Votes({"label": smoothing.n})
            proof = certify_top_k(
                votes, "label", self.top_k, sigma=smoothing.sigma, alpha=smoothing.alpha, selection=selection
            )
            found["top_k"] = proof.radius
        return found


def label_rows(ledger: LedgerReader, asked: LabelQuestions, labels: LabelMap) -> Iterator[tuple[str, list[Any]]]:
    """The name of each file that answers `asked`, with its lines as JSON values, one for each picture.

    labels: the run's own label map. Raises the errors of ledger.reply_replay.
    """
    if asked.per_label is not None:
        proofs = replay_labels(ledger, asked.per_label, labels)
        yield LABELS_FILE, [label_row(record.name, proof) for record, proof in proofs]
    if asked.top_k is not None:
        kept = replay_top_k(ledger, asked.top_k)
        yield TOP_K_FILE, [label_row(record.name, proof) for record, proof in kept]


def labels_statement(family: Family) -> str:
    """What the lines of one such file say. Its alpha is beside that of the certificates."""
    if family.method == "bonferroni":
        return (
            f"all together: that any line is false, of at most {family.size:,} pictures, has probability "
            f"<= {family.alpha:g}, beside that of the certificates"
        )
    return f"per picture: each line is false with probability <= {family.alpha:g}, beside that of the certificate"
