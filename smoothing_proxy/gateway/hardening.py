"""From many copies' replies to one: the labels that most of them carry, in the order that the votes decide.

Pure. `replies` are those of the contiguous prefix of draws that the plan looked at, None for a failed draw.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import median

from smoothing_proxy.backends.labels import LabelMap
from smoothing_proxy.gateway.verdicts import LabelStanding
from smoothing_proxy.types import Label, Reply, ScoredLabel, Votes

__all__ = ["as_they_are", "canonical_reply", "hardened_labels"]


def hardened_labels(
    replies: Sequence[Reply | None], voted: Label, votes: Votes, means: Callable[[ScoredLabel], Sequence[Label]]
) -> tuple[LabelStanding, ...]:
    """The labels that more than half of the replies carry, by confidence, then name.

    Each has its median confidence over all copies, where one that does not carry it counts 0. What means the voted
    label (`means`: from a label to what it counts for in the vote) is carried too where a smaller part of the
    copies does, with the median over these; and no other label stands above the best of them: who reads the first
    label reads the one that was voted.
    """
    seen = _seen(replies)
    carried = {key: found for key, found in seen.items() if 2 * len(found) > len(replies)}
    proven = {key for key, found in seen.items() if voted in means(found[0])}
    if not proven & carried.keys():
        carried |= {key: seen[key] for key in proven}
    confidence = {
        key: median(_padded(found, len(replies))) if 2 * len(found) > len(replies) else _median(found)
        for key, found in carried.items()
    }
    best = min(((-confidence[key], key) for key in proven & carried.keys()), default=(-1.0, ""))
    ceiling = {key: _below(best, key) if proven and key not in proven else 1.0 for key in carried}
    standings = [_standing(found, min(confidence[key], ceiling[key]), votes) for key, found in carried.items()]
    return tuple(sorted(standings, key=lambda label: (-label.confidence, label.name)))


def as_they_are(reply: Reply, votes: Votes) -> tuple[LabelStanding, ...]:
    """One reply's own labels, for an answer that is not hardened."""
    return tuple(_standing(found, found[0].confidence, votes) for found in _seen([reply]).values())


def canonical_reply(reply: Reply, labels: LabelMap) -> Reply:
    """The reply in the words of the label map: one label for each class, a sum of confidences cut at 1."""
    scores = labels.scores(reply).items()
    scored = tuple(ScoredLabel(name, min(1.0, score)) for name, score in sorted(scores))
    return Reply(scored, reply.model_version, reply.request_id)


def _seen(replies: Sequence[Reply | None]) -> dict[str, list[ScoredLabel]]:
    """By name, or id where there is no name: the label of each reply that carries it, its most confident one."""
    seen: dict[str, list[ScoredLabel]] = {}
    for reply in replies:
        best: dict[str, ScoredLabel] = {}
        for label in reply.labels if reply else ():
            key = label.name or label.id
            if key not in best or label.confidence > best[key].confidence:
                best[key] = label
        for key, label in best.items():
            seen.setdefault(key, []).append(label)
    return seen


def _padded(found: Sequence[ScoredLabel], n: int) -> list[float]:
    return [label.confidence for label in found] + [0.0] * (n - len(found))


def _median(found: Sequence[ScoredLabel]) -> float:
    return median(label.confidence for label in found)


def _below(best: tuple[float, str], key: str) -> float:
    """The highest confidence that stands after `best`, which is (- confidence, name)."""
    confidence, name = -best[0], best[1]
    return confidence if key > name else max(0.0, math.nextafter(confidence, 0.0))


def _standing(found: Sequence[ScoredLabel], confidence: float, votes: Votes) -> LabelStanding:
    first = found[0]
    name = first.name or first.id
    return LabelStanding(
        name=name,
        confidence=confidence,
        copies=len(found),
        votes=votes.of(name),
        id=first.id,
        parents=first.parents,
        aliases=first.aliases,
    )
