"""Targets that can only be asked: a raw classifier, a vendor's too, and the hardened one in front of it.

Every query goes the way of the product's own draws, through its sampler: with its transport, and with a ledger
that charges each send before it leaves.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Coroutine, Generator, Iterable, Sequence
from contextlib import ExitStack
from itertools import count
from types import TracebackType
from typing import Any, Self, TypeVar

import anyio
import numpy as np

from smoothing_proxy.errors import ConfigError
from smoothing_proxy.redteam.queries import Listener, Queries, Renumbered
from smoothing_proxy.redteam.targets import Heard, Int64, UInt8, index_of
from smoothing_proxy.smoothing.base_classifier import BaseClassifier
from smoothing_proxy.smoothing.observe import CLEAN, Outcome, Recalled
from smoothing_proxy.smoothing.picture import Picture, prepare
from smoothing_proxy.smoothing.sampler import Sampler
from smoothing_proxy.transport.settings import TransportSettings
from smoothing_proxy.types import Cost, Draws, Label, Votes

__all__ = ["Asked", "AskedTarget", "HardenedTarget"]

Answer = TypeVar("Answer")

SMALLEST = 1e-12
"""A score below it has this one's logarithm."""


class Asked:
    """A classifier, and what asks it. Close it, or use it as a context manager."""

    def __init__(
        self,
        classifier: BaseClassifier,
        *,
        draws_per_query: int,
        queries: Queries | None,
        in_flight: int | None,
        transport: TransportSettings | None,
    ) -> None:
        self.classifier = classifier
        self.draws_per_query = draws_per_query
        self.listener = Listener()
        self._open = ExitStack()
        self._queries = queries or self._open.enter_context(Queries())
        self._journal = Renumbered(self._queries)
        self.sampler = Sampler(
            classifier,
            in_flight=in_flight,
            transport=transport,
            journal=self._journal,
            observers=[self.listener],
        )
        self._numbers = count()

    @property
    def name(self) -> str:
        """Of the backend."""
        return self.classifier.backend.name

    @property
    def cost(self) -> Cost:
        """Of everything asked so far, in dollars too."""
        return self.listener.cost.at(self.classifier.backend.price_usd)

    def close(self) -> None:
        """End the thread that asks, unless others share it. Calling it twice is fine."""
        self._open.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _picture(self, pixels: UInt8, subject: int) -> Picture:
        picture = prepare(pixels, "original", picture_id=next(self._numbers))
        self._journal.place(picture.id, subject, self.draws_per_query)
        return picture

    def each(
        self,
        ask: Callable[[Picture], Coroutine[Any, Any, Answer]],
        pixels: Iterable[UInt8],
        subjects: Int64 | None,
    ) -> list[Answer]:
        """What is answered to each of the pictures, uint8 [h, w, 3]; several are under way at once."""
        pixels = list(pixels)
        numbers = [0] * len(pixels) if subjects is None else subjects.tolist()
        pictures = [self._picture(one, subject) for one, subject in zip(pixels, numbers, strict=True)]
        return self._queries.run(_gathered, ask, pictures)


class AskedTarget(Asked):
    """A raw classifier: the backend's own answer to the picture, with neither noise nor denoiser.

    classes: the labels that attacks speak of, as the label map writes them; further ones are OTHER. queries: where
    they are written down. in_flight, transport: as the sampler takes them.
    A query that failed for good tells an attack nothing: it is heard as if the label stood, with all the score.
    Raises, when asked, what stops a run (credentials, quota, budget).
    """

    closed = False
    noisy = False
    gives = frozenset({"scores", "labels"})

    def __init__(
        self,
        classifier: BaseClassifier,
        classes: Sequence[Label],
        *,
        queries: Queries | None = None,
        in_flight: int | None = None,
        transport: TransportSettings | None = None,
    ) -> None:
        super().__init__(classifier, draws_per_query=1, queries=queries, in_flight=in_flight, transport=transport)
        self.classes = _named(classes)

    def ask(self, pixels: UInt8, labels: Int64, *, subjects: Int64 | None = None) -> Heard:
        """See Target."""
        outcomes = self.each(self._one, pixels, subjects)
        rows = [self._row(outcome, int(label)) for outcome, label in zip(outcomes, labels, strict=True)]
        return _heard(rows)

    async def _one(self, picture: Picture) -> Outcome:
        await self.sampler.clean(picture, Recalled(), number=CLEAN)
        return self.listener.outcomes.pop(picture.id)

    def _row(self, outcome: Outcome, label: int) -> tuple[int, float, float]:
        if outcome.error is not None:
            return label, 0.0, math.log(SMALLEST)
        scores = {} if outcome.reply is None else self.classifier.labels.scores(outcome.reply)
        return _row(self.classes, outcome.label, scores, label)


class HardenedTarget(Asked):
    """The smoothed classifier, as an attacker meets it: the label that most of `draws` noisy copies vote for.

    Its scores are the shares of the votes. An attacker who pays gets the majority, never an abstention; what the
    product itself would answer to the final picture is asked elsewhere (compare.py).
    The arguments are those of AskedTarget.
    """

    closed = False
    noisy = True
    gives = frozenset({"scores", "labels"})

    def __init__(
        self,
        classifier: BaseClassifier,
        classes: Sequence[Label],
        *,
        draws: int = 32,
        queries: Queries | None = None,
        in_flight: int | None = None,
        transport: TransportSettings | None = None,
    ) -> None:
        if draws < 1:
            raise ConfigError(f"draws = {draws}: a query of the hardened classifier takes at least one")
        super().__init__(
            classifier, draws_per_query=draws, queries=queries, in_flight=in_flight, transport=transport
        )
        self.classes = _named(classes)

    @property
    def name(self) -> str:
        """Of backend and denoiser."""
        return f"{self.classifier.denoiser.name} before {super().name}"

    def ask(self, pixels: UInt8, labels: Int64, *, subjects: Int64 | None = None) -> Heard:
        """See Target. The draws of one query count once."""
        votes = self.each(self._one, pixels, subjects)
        return _heard([self._row(one, int(label)) for one, label in zip(votes, labels, strict=True)])

    async def _one(self, picture: Picture) -> Votes:
        votes, _ = await self.sampler.run(picture, _votes_plan(self.draws_per_query), Recalled())
        self.listener.forget(picture)
        return votes

    def _row(self, votes: Votes, label: int) -> tuple[int, float, float]:
        shares = {name: number / votes.n for name, number in votes.counts.items()}
        return _row(self.classes, votes.top(), shares, label)


def _votes_plan(draws: int) -> Generator[Draws, Votes, Votes]:
    return (yield Draws("estimation", draws))


async def _gathered(
    ask: Callable[[Picture], Coroutine[Any, Any, Answer]], pictures: Sequence[Picture]
) -> list[Answer]:
    answers: dict[int, Answer] = {}
    faults: list[Exception] = []

    async def one(picture: Picture) -> None:
        try:
            answers[picture.id] = await ask(picture)
        except Exception as error:  # noqa: BLE001 (raised below, once the others have settled)
            faults.append(error)

    async with anyio.create_task_group() as tasks:
        for picture in pictures:
            tasks.start_soon(one, picture)
    if faults:
        raise faults[0]
    return [answers[picture.id] for picture in pictures]


def _named(classes: Sequence[Label]) -> tuple[Label, ...]:
    if not classes:
        raise ConfigError("an attack needs the names of the classes that its labels are")
    return tuple(classes)


def _row(
    classes: Sequence[Label], answer: Label | None, scores: dict[Label, float], label: int
) -> tuple[int, float, float]:
    own = scores.get(classes[label], 0.0)
    other = max((score for name, score in scores.items() if name != classes[label]), default=0.0)
    return index_of(classes, answer), math.log(max(own, SMALLEST)), math.log(max(other, SMALLEST))


def _heard(rows: Sequence[tuple[int, float, float]]) -> Heard:
    answers, own, other = zip(*rows, strict=True)
    return Heard(np.array(answers, np.int64), np.array(own), np.array(other))
