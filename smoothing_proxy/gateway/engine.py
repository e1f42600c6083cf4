"""One sampler for all requests: their copies share batches, rate, circuit and places in flight."""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, TypeVar

import anyio
import anyio.to_thread

from smoothing_proxy.errors import BackendError, ConfigError, DenoiserError, ImageError
from smoothing_proxy.gateway.clean_draw import ask_clean
from smoothing_proxy.gateway.pages import JournalOfPages, Meter, Page, Pages, WatcherOfPages
from smoothing_proxy.gateway.picture_size import working_pixels
from smoothing_proxy.gateway.ports import Recollection
from smoothing_proxy.gateway.timed import Timed
from smoothing_proxy.images import pixels
from smoothing_proxy.images.codec import EncodedImage
from smoothing_proxy.images.geometry import WorkingSize
from smoothing_proxy.smoothing.base_classifier import BaseClassifier
from smoothing_proxy.smoothing.drive import replay
from smoothing_proxy.smoothing.halt import Halt
from smoothing_proxy.smoothing.observe import CLEAN, Journal, Outcome, Recalled
from smoothing_proxy.smoothing.picture import Picture, prepare
from smoothing_proxy.smoothing.plan import Plan, certify_plan, ladder_of, most_draws, predict_plan
from smoothing_proxy.smoothing.sampler import Sampler
from smoothing_proxy.smoothing.settings import Smoothing
from smoothing_proxy.transport.clock import Clock
from smoothing_proxy.transport.courier import Courier
from smoothing_proxy.transport.settings import TransportSettings
from smoothing_proxy.types import Certificate, Draws, Prediction, Reply, Votes

__all__ = ["Engine", "Kind", "Prepared", "Sampled", "Tell", "fewest_draws", "most_queries"]

Kind = Literal["predict", "certify", "unhardened"]
"""The last one takes no draw: the classifier is asked about the picture itself, and nothing is proven."""

Tell = Callable[[Votes], None]
"""Told all votes so far, whenever the plan has looked at more of them."""

DECODERS = 2

Verdict = TypeVar("Verdict", Certificate, Prediction)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A picture, ready to be drawn from. clean: as the classifier takes it, where that will be asked about."""

    picture: Picture
    clean: EncodedImage | None = None


@dataclass(frozen=True, slots=True)
class Sampled:
    """A verdict and what it rests on. replies: of the draws that the plan looked at, in issue order; None for a
    failed one, whose error is in `errors`. clean: the reply about the picture itself, where that was asked.
    """

    verdict: Certificate | Prediction
    replies: tuple[Reply | None, ...]
    errors: tuple[BackendError, ...]
    clean: Reply | None = None


class Engine:
    """The smoothed classifier as a service: any number of verdicts at the same time.

    limits: of the pictures that are decoded. Raises DenoiserError when the denoiser is not made for sigma.
    """

    def __init__(
        self,
        classifier: BaseClassifier,
        smoothing: Smoothing,
        clock: Clock,
        *,
        in_flight: int | None = None,
        transport: TransportSettings | None = None,
        limits: pixels.Limits = pixels.DEFAULT_LIMITS,
    ) -> None:
        classifier.check_sigma()
        self.timed = Timed(classifier, clock)
        self.smoothing = smoothing
        self.in_flight = classifier.backend.concurrency if in_flight is None else in_flight
        self._pages = Pages()
        self._sampler = Sampler(
            self.timed,
            in_flight=in_flight,
            transport=transport,
            journal=JournalOfPages(self._pages),
            observers=[WatcherOfPages(self._pages)],
        )
        self._fastest = 0.0
        self._limits = limits
        self._ids = itertools.count()
        self._decoders = ThreadPoolExecutor(DECODERS, "decoder")
        self._calibrating = anyio.CapacityLimiter(1)

    @property
    def courier(self) -> Courier:
        """Who carries the copies: the circuit and the rate of all of them."""
        return self._sampler.courier

    @property
    def per_s(self) -> float:
        """Copies a second that can be asked about at present, by the vendor's rate and by its latency as seen.

        A rate that has only grown so far is still on its way up, and no limit.
        """
        now = self.courier.limiter.per_s
        self._fastest = max(self._fastest, now)
        is_limit = self.courier.settings.requests_per_s is not None or now < self._fastest
        rate = now if is_limit else math.inf
        places, latency_s = self.in_flight * self.timed.backend.batch_size, self.timed.latency.seconds
        return min(rate, places / latency_s) if latency_s > 0 else rate

    def seconds_for(self, draws: int, pixels: int) -> float:
        """How long so many draws take at least, whose copies have so many pixels: made here, asked about there."""
        return max(draws / self.per_s, pixels / self.timed.making.per_s)

    async def pixels_of(self, images: Sequence[bytes]) -> list[int]:
        """Of each picture at its working size, by its header; 0 for one that cannot be decoded."""
        size = WorkingSize.parse(self.smoothing.working_size)
        return await asyncio.to_thread(lambda: [working_pixels(image, size, self._limits) for image in images])

    async def prepare(self, image: bytes, kind: Kind) -> Prepared:
        """The picture, decoded, with fresh entropy. Raises ImageError, also for a size that cannot be denoised."""
        return await asyncio.get_running_loop().run_in_executor(self._decoders, self._prepare, image, kind)

    def _prepare(self, image: bytes, kind: Kind) -> Prepared:
        canonical = pixels.decode(image, limits=self._limits)
        picture = prepare(canonical, self.smoothing.working_size, picture_id=next(self._ids))
        try:
            self.timed.check(picture)
        except DenoiserError as error:
            raise ImageError(f"picture: it cannot be denoised: {error}") from error
        return Prepared(picture, self._clean_copy(picture) if kind == "unhardened" else None)

    def _clean_copy(self, picture: Picture) -> EncodedImage:
        (copy,) = self.timed.copies(picture, [CLEAN])
        return copy

    async def calibrate(self, smoothing: Smoothing) -> None:
        """Have the boundaries of these settings computed, which takes some processor time the first time."""
        if smoothing.certify_method == "target":
            await anyio.to_thread.run_sync(ladder_of, smoothing, limiter=self._calibrating)

    async def sample(
        self,
        prepared: Prepared,
        kind: Kind,
        smoothing: Smoothing,
        *,
        number: int,
        journal: Journal,
        halt: Halt,
        known: Recollection,
        meters: Sequence[Meter],
        tell: Tell,
        clean_when_abstaining: bool = False,
    ) -> Sampled:
        """PREDICT or CERTIFY this picture. number: in the journal. known: what need not be asked again.

        Raises as Sampler.run does; `meters` then tell what it cost.
        """
        picture = prepared.picture
        with self._pages.open(picture.id, number, journal, *meters) as page:
            verdict = await self._verdict(picture, kind, smoothing, known.recalled, halt, tell)
            looked_at = [_outcome(page, known, draw) for draw in range(verdict.queries)]
            clean: Outcome | None = None
            if clean_when_abstaining and verdict.label is None:
                await self._ask_clean(prepared, known.recalled, halt)
                clean = _outcome(page, known, CLEAN)
        ended = looked_at if clean is None else [*looked_at, clean]
        errors = tuple(outcome.error for outcome in ended if outcome.error is not None)
        replies = tuple(outcome.reply if outcome.error is None else None for outcome in looked_at)
        return Sampled(verdict, replies, errors, None if clean is None else clean.reply)

    async def _ask_clean(self, prepared: Prepared, recalled: Recalled, halt: Halt) -> None:
        if CLEAN in recalled.votes:
            return
        copy = prepared.clean
        if copy is None:
            loop = asyncio.get_running_loop()
            copy = await loop.run_in_executor(self._decoders, self._clean_copy, prepared.picture)
        await ask_clean(self._sampler, prepared.picture.id, copy, halt)

    async def _verdict(
        self, picture: Picture, kind: Kind, smoothing: Smoothing, recalled: Recalled, halt: Halt, tell: Tell
    ) -> Certificate | Prediction:
        if kind == "unhardened":
            return Prediction(None, 1.0, smoothing.alpha, Votes())
        if kind == "predict":
            prediction, _ = await self._sampler.run(
                picture, _watched(predict_plan(smoothing), tell), recalled, halt
            )
            return prediction
        certificate, _ = await self._sampler.run(picture, _watched(certify_plan(smoothing), tell), recalled, halt)
        return picture.place(certificate)


def _outcome(page: Page, known: Recollection, draw: int) -> Outcome:
    """How a draw ended, now or in an earlier attempt, of whose failures only the votes are known."""
    if draw in page.outcomes:
        return page.outcomes[draw]
    return Outcome(draw, known.recalled.votes[draw], known.replies.get(draw))


def most_queries(kind: Kind, smoothing: Smoothing) -> int:
    """The most draws that a verdict can take."""
    if kind == "unhardened":
        return 0
    if kind == "certify":
        return most_draws(smoothing)
    return smoothing.n if smoothing.method == "fixed" else smoothing.max_queries


@lru_cache(maxsize=256)
def fewest_draws(kind: Kind, smoothing: Smoothing) -> int:
    """The queries that a verdict takes when all agree. Raises ConfigError where no verdict can be had."""
    if kind == "unhardened":
        return 1
    asked = 0

    def unanimous(request: Draws) -> Votes:
        nonlocal asked
        asked += request.answered
        return Votes({"agreed": request.answered})

    if kind == "predict":
        replay(predict_plan(smoothing), unanimous)
    else:
        replay(certify_plan(smoothing), unanimous)
    if asked == 0:
        raise ConfigError("these settings take no draws")
    return asked


def _watched(plan: Plan[Verdict], tell: Tell) -> Generator[Draws, Votes, Verdict]:
    """The same plan, with somebody who looks over its shoulder."""
    total = Votes()
    try:
        request = next(plan)
        while True:
            votes = yield request
            total += votes
            tell(total)
            request = plan.send(votes)
    except StopIteration as verdict:
        return verdict.value  # type: ignore[no-any-return]  # StopIteration does not know the plan's type
