"""From a classifier's reply to one vote: synonyms, the user's own classes, a threshold, or one yes-no question.

A label map is fixed before the first draw and looks at one reply at a time, so it is a part of the base
classifier and costs the proof nothing. Its vote depends on which labels a reply has, never on their order.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, model_validator

from smoothing_proxy.errors import MalformedReplyError, nearest
from smoothing_proxy.settings_file import Settings, parse_settings, read_toml
from smoothing_proxy.types import Label, Reply, ScoredLabel

__all__ = ["LabelMap", "Presence", "label_map"]

Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class Presence(Settings):
    """One yes-no question: is `label` there with at least `confidence`? The votes are "dog" and "not dog"."""

    label: Name
    confidence: float = Field(gt=0.0, le=1.0)


class LabelMap(Settings):
    """What a vote is made of. Without settings: the classifier's own label of highest confidence.

    synonyms: a label's name, id or alias -> the canonical label. What the map knows first decides: the id, then
        the name, then an alias (of several the first in alphabetical order); parents only decide about groups.
    groups: class -> the labels (as canonical) that belong to it. The class's own name belongs to it as well.
    combine: confidence of a class: the "max" of its labels', or their "sum", which may exceed 1. A label that is
        there twice, or under two synonyms, counts once, with its highest confidence.
    closed: labels that neither `synonyms` nor `groups` name are dropped; or they all become `other`, if given.
    threshold: a reply whose best label has less confidence votes for nothing; on the scale of `scores`.
    ignore_case: "Dog" and "dog" are one label; those that the map does not name are written in lower case.
    parents: a label that belongs to no class itself counts for those of its parents, as if the reply had named
        these with its confidence: group dog = ["Dog"] is met by Pug, whose parent Dog is, in an open map too.
    present: vote on one label's presence instead; the label may be a class.

    Unlike everything else here, an empty reply is never an answer: it votes for nothing, under `present` too.
    """

    synonyms: dict[Name, Name] = Field(default={})
    groups: dict[Name, tuple[Name, ...]] = Field(default={})
    combine: Literal["max", "sum"] = "max"
    closed: bool = False
    other: Name | None = None
    threshold: float = Field(default=0.0, ge=0.0)
    ignore_case: bool = False
    parents: bool = False
    present: Presence | None = None

    def vote(self, reply: Reply) -> Label | None:
        """The label of highest confidence, ties broken by its name; None where the reply votes for nothing.

        Raises MalformedReplyError for a label without a name or a confidence outside [0, 1].
        """
        scores = self.scores(reply)
        if self.present is not None:
            return self._answer(self.present, scores) if reply.labels else None
        best = min(scores, key=lambda label: (-scores[label], label), default=None)
        return None if best is None or scores[best] < self.threshold else best

    def scores(self, reply: Reply) -> dict[Label, float]:
        """Confidence by canonical label or class, >= 0, before threshold and presence. Raises as `vote` does."""
        confidences: dict[Label, float] = {}
        for label in reply.labels:
            for key in self._keys(_checked(label)):
                confidences[key] = max(label.confidence, confidences.get(key, 0.0))
        members: dict[Label, list[float]] = {}
        for key, confidence in confidences.items():
            label_class = self._class_of(key)
            if label_class is not None:
                members.setdefault(label_class, []).append(confidence)
        combine = max if self.combine == "max" else math.fsum
        return {name: combine(values) for name, values in members.items()}

    def classes_of(self, label: ScoredLabel) -> tuple[Label, ...]:
        """What one label counts for, sorted: a class or itself, several by its parents, () where it is dropped."""
        found = {self._class_of(key) for key in self._keys(label)}
        return tuple(sorted(name for name in found if name is not None))

    @property
    def classes(self) -> tuple[Label, ...]:
        """Every label that a vote can be, sorted; () where the classifier's own labels pass."""
        if self.present is not None:
            return self.present.label, _absent(self.present.label)
        if not self.closed:
            return ()
        return tuple(sorted({*self._table.classes, *([self.other] if self.other else [])}))

    def fingerprint(self) -> str:
        """Sha256 of what the map does, in hex; the order of its entries does not matter."""
        settings = self.model_dump(mode="json", exclude_defaults=True)
        settings["groups"] = {name: sorted(labels) for name, labels in self.groups.items()}
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()

    @cached_property
    def _table(self) -> _Table:
        return _Table.of(self)

    def _keys(self, label: ScoredLabel) -> tuple[str, ...]:
        key = self._table.canonical(label)
        if not self.parents or key in self._table.class_of:
            return (key,)
        return self._table.grouped_parents(label) or (key,)

    def _class_of(self, key: str) -> Label | None:
        return self._table.class_of.get(key, self.other if self.closed else key)

    def _answer(self, question: Presence, scores: Mapping[Label, float]) -> Label:
        key = self._table.canonical(ScoredLabel(question.label, question.confidence))
        label = self._class_of(key)
        there = label is not None and scores.get(label, 0.0) >= question.confidence
        return question.label if there else _absent(question.label)

    @model_validator(mode="after")
    def _consistent(self) -> LabelMap:
        if self.other is not None and not self.closed:
            raise ValueError("`other` takes what a closed map drops: set `closed = true`")
        if self.closed and not (self.groups or self.synonyms):
            raise ValueError("`closed` drops every label that the map does not name: set `groups` or `synonyms`")
        if self.present is not None and (self.threshold > 0.0 or self.other is not None):
            raise ValueError("`present` asks one question of its own: leave out `threshold` and `other`")
        classes = self._table.classes
        if self.other in classes:
            raise ValueError(f"`other` is a class of its own: {self.other!r} is one already")
        if self.present is not None and self.closed and self.present.label not in classes:
            hint = nearest(self.present.label, classes)
            raise ValueError(f"`present` asks for {self.present.label!r}, which the closed map drops{hint}")
        return self


@dataclass(frozen=True)
class _Table:
    """A label map, compiled. synonyms: key -> key. class_of: key -> class, written as the map writes it.

    grouped: the keys whose class is a group.
    """

    synonyms: Mapping[str, str]
    class_of: Mapping[str, Label]
    grouped: frozenset[str]
    ignore_case: bool

    @classmethod
    def of(cls, labels: LabelMap) -> _Table:
        """Raises ValueError for a label that would have two meanings."""
        key = partial(_key, ignore_case=labels.ignore_case)
        grouped = _unambiguous((key(label), name) for label, name in _members(labels.groups))
        targets = _unambiguous((key(name), name) for name in labels.synonyms.values() if key(name) not in grouped)
        class_of = {**grouped, **targets}
        itself = ((name, name) for name in class_of)
        synonyms = _unambiguous([*((key(word), key(name)) for word, name in labels.synonyms.items()), *itself])
        return cls(synonyms, class_of, frozenset(grouped), labels.ignore_case)

    @property
    def classes(self) -> frozenset[Label]:
        return frozenset(self.class_of.values())

    def canonical(self, label: ScoredLabel) -> str:
        for written in (label.id, label.name, *sorted(label.aliases)):
            known = self.synonyms.get(_key(written, self.ignore_case))
            if written and known is not None:
                return known
        return _key(label.name or label.id, self.ignore_case)

    def grouped_parents(self, label: ScoredLabel) -> tuple[str, ...]:
        """Keys of the parents that belong to a group, each once."""
        written = (_key(parent, self.ignore_case) for parent in label.parents)
        return tuple(dict.fromkeys(key for word in written if (key := self.synonyms.get(word)) in self.grouped))


def label_map(source: str | Path | Mapping[str, Any]) -> LabelMap:
    """The label map in a TOML file, or in the `[labels]` table of one that was read already.

    Raises ConfigError for a missing file, an unknown key, or a label that would have two meanings.
    """
    if isinstance(source, Mapping):
        return parse_settings(LabelMap, source, source="labels")
    return parse_settings(LabelMap, read_toml(Path(source)), source=str(source))


def _unambiguous(meanings: Iterable[tuple[str, str]]) -> dict[str, str]:
    table: dict[str, str] = {}
    for word, meaning in meanings:
        if table.setdefault(word, meaning) != meaning:
            raise ValueError(f"{word!r} has two meanings: {table[word]!r} and {meaning!r}")
    return table


def _members(groups: Mapping[Label, Iterable[Label]]) -> Iterator[tuple[Label, Label]]:
    for name, labels in groups.items():
        yield name, name
        for label in labels:
            yield label, name


def _key(written: str, ignore_case: bool) -> str:  # noqa: FBT001 (the map's own setting, passed on)
    return written.casefold() if ignore_case else written


def _absent(label: Label) -> Label:
    return f"not {label}"


def _is_utf8(text: str) -> bool:
    """JSON may hold lone surrogates; files and databases may not."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _checked(label: ScoredLabel) -> ScoredLabel:
    if not (label.name or label.id):
        raise MalformedReplyError("a label of the reply has neither name nor id")
    if not _is_utf8(label.name + label.id):
        raise MalformedReplyError(f"label {label.name or label.id!a} is no valid Unicode text")
    if not 0.0 <= label.confidence <= 1.0:
        named = label.name or label.id
        raise MalformedReplyError(f"label {named!r}: confidence {label.confidence} is outside [0, 1]")
    return label
