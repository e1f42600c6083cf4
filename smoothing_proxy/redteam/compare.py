"""A raw classifier and the hardened one under the same attacks, beside what is proven.

Each attack is made anew for each of the two, and knows what it attacks: on the hardened classifier, attacks with
gradients go through noise and denoiser in the expectation over the noise, attacks without them ask the majority.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from smoothing_proxy.errors import BackendError, ConfigError, nearest
from smoothing_proxy.redteam.attacks.base import AttackResult
from smoothing_proxy.redteam.attacks.registry import ATTACKS
from smoothing_proxy.redteam.attacks.run import check_side, run_attack
from smoothing_proxy.redteam.comparison import Album, Comparison, Question, Row, Shown, Sides
from smoothing_proxy.redteam.grid import Norm, distances, to_pictures, to_pixels
from smoothing_proxy.redteam.judge import Judge, most_predicted
from smoothing_proxy.redteam.proof import CONFIRMATIONS, covers, standing
from smoothing_proxy.redteam.targets import Int64, UInt8
from smoothing_proxy.smoothing.plan import most_draws
from smoothing_proxy.smoothing.settings import Smoothing
from smoothing_proxy.types import Certificate, Label

__all__ = ["compare", "most_queries"]

Bool: TypeAlias = npt.NDArray[np.bool_]
Progress: TypeAlias = Callable[[str, int], Callable[[int], None]]
"""Begins a stage of so many pictures, and returns what is told how many of them are done."""

WITHIN = 1.0 + 1e-5


def most_queries(
    question: Question, predicting: Smoothing, certifying: Smoothing, *, pictures: int, draws: int
) -> int:
    """The most that all of it can ask the base classifier. draws: of one query of the hardened classifier.

    Wherever the product's own prediction is asked for, a proof may be in doubt, and is confirmed by further ones.
    """
    predicted = (1 + CONFIRMATIONS) * most_predicted(predicting)
    each = 2 + predicted + most_draws(certifying)
    for name in question.attacks:
        entry = ATTACKS[name]
        runs = 1 if entry.nearest else len(question.eps)
        asked = 1 if name == "transfer" else 0 if entry.needs == "gradients" else question.max_queries
        each += runs * (asked * (1 + draws) + 1 + predicted)
    return pictures * each


def compare(
    question: Question,
    album: Album,
    sides: Sides,
    judge: Judge,
    progress: Progress,
    kept: Callable[[Comparison], object] = lambda _: None,
) -> Comparison:
    """Attack every picture on both sides, and look at what the product answers then.

    kept: told what is found so far before the first attack and after each row, since what comes after may fail.
    A query of the raw classifier that failed is no right answer to a clean picture, and no success of an attack.
    Raises the errors of run_attack and of asking.
    """
    _check(question, album, sides)
    everything = np.arange(len(album.names))
    tell = progress("certifying", 3 * len(everything))
    certificates = judge.certify(album.pixels, everything)
    tell(len(everything))
    answers = judge.raw_or_failed(album.pixels, everything)
    raw = np.array([a == b for a, b in zip(answers, album.labels, strict=True)])
    tell(len(everything))
    clean = standing(album, judge, album.pixels, everything, certificates)
    tell(len(everything))
    state = _State(question, album, sides, judge, progress, certificates, raw, clean.stands)
    found = Comparison(float(raw.mean()), float(clean.stands.mean()), certificates, broken=clean.broken)
    kept(found)
    for name in question.attacks:
        for row, shown, broken in state.attack(name):
            found = replace(
                found,
                rows=[*found.rows, row],
                shown=[*found.shown, *shown],
                broken=list(dict.fromkeys([*found.broken, *broken])),
            )
            kept(found)
    return found


def _check(question: Question, album: Album, sides: Sides) -> None:
    """Before anything is asked: whether every attack can be made on every picture. Raises ConfigError."""
    smallest = min(min(picture.shape[:2]) for picture in album.pixels)
    for name in question.attacks:
        check_side(name, question.norm_of(name), smallest)
        for hardened in (False, True):
            _places(sides.target(ATTACKS[name].needs, hardened).classes, album.labels, name)
            surrogate = sides.surrogate(hardened) if name == "transfer" else None
            if surrogate is not None:
                _places(surrogate.classes, album.labels, surrogate.name)


def _places(classes: Sequence[Label], labels: Sequence[Label], name: str) -> Int64:
    """The labels as indices of `classes`. Raises ConfigError for another one; name: who has the classes."""
    unknown = sorted(set(labels) - set(classes))
    if unknown:
        raise ConfigError(
            f"{name}: {unknown[0]!r} is none of the {len(classes)} classes{nearest(unknown[0], classes)}; name "
            "the outputs with the option labels, or map them with a label map"
        )
    return np.array([classes.index(label) for label in labels], np.int64)


@dataclass(frozen=True, eq=False)
class _Side:
    """What one attack did to one of the two. pixels: of each picture. away: how far, in the attack's norm."""

    pixels: list[UInt8]
    away: npt.NDArray[np.float64]
    judged: _Judged
    queries: float
    ms: float


@dataclass(frozen=True, eq=False)
class _Judged:
    """What the product answers under attack. failed: pictures whose last query failed. broken: as in Standing."""

    stands: Bool
    answers: list[Label | None]
    by_proof: Bool
    failed: int = 0
    broken: Sequence[str] = ()


@dataclass(frozen=True, eq=False)
class _State:
    question: Question
    album: Album
    sides: Sides
    judge: Judge
    progress: Progress
    certificates: Sequence[Certificate]
    raw: Bool
    hardened: Bool

    def attack(self, name: str) -> Iterator[tuple[Row, list[Shown], Sequence[str]]]:
        """A row for each eps, and the proofs that it broke. An attack for the nearest picture is made once."""
        if ATTACKS[name].nearest:
            both = (self._side(name, None, hardened=False), self._side(name, None, hardened=True))
            yield from (self._row(name, eps, *both) for eps in self.question.eps)
            return
        for eps in self.question.eps:
            sides = (self._side(name, eps, hardened=False), self._side(name, eps, hardened=True))
            yield self._row(name, eps, *sides)

    def _row(self, name: str, eps: float, raw: _Side, hardened: _Side) -> tuple[Row, list[Shown], Sequence[str]]:
        norm = self.question.norm_of(name)
        reach = [side.away <= eps * WITHIN for side in (raw, hardened)]
        stood = [
            np.where(near, side.judged.stands & clean, clean)
            for near, side, clean in zip(reach, (raw, hardened), (self.raw, self.hardened), strict=True)
        ]
        row = Row(
            attack=name,
            norm=norm,
            eps=eps,
            raw=float(stood[0].mean()),
            hardened=float(stood[1].mean()),
            certified=self._certified(eps) if norm == "l2" else None,
            raw_queries=raw.queries,
            hardened_queries=hardened.queries,
            raw_ms=raw.ms,
            hardened_ms=hardened.ms,
            by_proof=int((hardened.judged.by_proof & reach[1]).sum()),
            raw_failed=raw.judged.failed,
        )
        shown = self._shown(name, eps, raw, hardened=False) + self._shown(name, eps, hardened, hardened=True)
        return row, shown, hardened.judged.broken

    def _certified(self, eps: float) -> float:
        pairs = zip(self.certificates, self.album.labels, strict=True)
        return float(np.mean([one.label == label and covers(one, eps) for one, label in pairs]))

    def _side(self, name: str, eps: float | None, *, hardened: bool) -> _Side:
        which = "hardened" if hardened else "raw"
        at = "" if eps is None else f" at {eps:g}"
        done = self.progress(f"{name}{at} on the {which} classifier", len(self.album.names))
        results = [
            (places, self._made(name, eps, places, done, hardened=hardened)) for places in self.album.groups()
        ]
        pixels: list[UInt8] = list(self.album.pixels)
        away = np.zeros(len(pixels))
        for places, result in results:
            for place, one in zip(places, to_pixels(result.pictures), strict=True):
                pixels[place] = one
            away[places] = result.l2 if result.norm == "l2" else result.linf
        judged = self._judged_hardened(pixels) if hardened else self._judged_raw(pixels)
        queries = np.concatenate([result.queries for _, result in results])
        seconds = sum(result.seconds for _, result in results)
        return _Side(pixels, away, judged, float(queries.mean()), 1000 * seconds / len(self.album.names))

    def _judged_raw(self, pixels: list[UInt8]) -> _Judged:
        found = self.judge.raw_or_failed(pixels, np.arange(len(pixels)))
        failed = np.array([isinstance(one, BackendError) for one in found])
        answers = [None if isinstance(one, BackendError) else one for one in found]
        return _Judged(self._correct(answers) | (failed & self.raw), answers, failed & False, int(failed.sum()))

    def _judged_hardened(self, pixels: list[UInt8]) -> _Judged:
        found = standing(self.album, self.judge, pixels, np.arange(len(pixels)), self.certificates)
        by_proof = found.stands & ~self._correct(found.answers)
        return _Judged(found.stands, found.answers, by_proof, broken=found.broken)

    def _correct(self, answers: Sequence[Label | None]) -> Bool:
        return np.array([a == b for a, b in zip(answers, self.album.labels, strict=True)])

    def _made(
        self, name: str, eps: float | None, places: Int64, done: Callable[[int], None], *, hardened: bool
    ) -> AttackResult:
        question = self.question
        target = self.sides.target(ATTACKS[name].needs, hardened)
        labels = [self.album.labels[place] for place in places]
        return run_attack(
            name,
            target,
            to_pictures(np.stack([self.album.pixels[place] for place in places])),
            _places(target.classes, labels, name),
            eps=eps,
            norm=question.norm,
            options=question.options.get(name, {}),
            seed=question.seed,
            max_queries=question.max_queries,
            surrogate=self.sides.surrogate(hardened),
            subjects=places,
            done=done,
        )

    def _shown(self, name: str, eps: float, side: _Side, *, hardened: bool) -> list[Shown]:
        album = self.album
        return [
            Shown(
                attack=name,
                eps=eps,
                hardened=hardened,
                name=album.names[place],
                label=album.labels[place],
                answer=side.judged.answers[place],
                clean=album.pixels[place],
                pixels=side.pixels[place],
                l2=_l2(album.pixels[place], side.pixels[place]),
                stands=bool(side.judged.stands[place]),
            )
            for place in range(len(album.names))
        ]


def _l2(clean: UInt8, pixels: UInt8) -> float:
    pair = to_pictures(np.stack([clean, pixels]))
    norm: Norm = "l2"
    return float(distances(pair[1:], pair[:1], norm)[0])
