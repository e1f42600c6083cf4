"""The pictures of one request into verdicts: recalled where they can be, else reserved, sampled and settled."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import uuid
from collections.abc import Callable, Collection, Coroutine, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache, partial
from typing import Any

from smoothing_proxy.errors import LedgerError
from smoothing_proxy.gateway.answers import verdict_of
from smoothing_proxy.gateway.backlog import Backlog, Load
from smoothing_proxy.gateway.engine import Engine, Prepared, fewest_draws, most_queries
from smoothing_proxy.gateway.faults import told
from smoothing_proxy.gateway.inquiries import Inquiry, Wish, sha256_of
from smoothing_proxy.gateway.jobs import Answered, Job
from smoothing_proxy.gateway.metrics import Metrics
from smoothing_proxy.gateway.pages import Meter
from smoothing_proxy.gateway.ports import Reservation, Store
from smoothing_proxy.gateway.settings import GatewaySettings
from smoothing_proxy.gateway.verdicts import Verdict
from smoothing_proxy.smoothing.halt import Halt, Interrupted
from smoothing_proxy.smoothing.room import Room
from smoothing_proxy.types import Votes
from smoothing_proxy.wire.base import Fault, RequestFault

__all__ = ["Hardener"]

_logger = logging.getLogger(__name__)


class Hardener:
    """One for the whole process. now: the date, for documents."""

    def __init__(
        self,
        settings: GatewaySettings,
        engine: Engine,
        store: Store,
        metrics: Metrics,
        now: Callable[[], datetime],
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._store = store
        self._metrics = metrics
        self._now = now
        self._sha_of = lru_cache(maxsize=1_024)(partial(_settings_sha, settings.labels, _fingerprint(engine)))
        self._unpacked = asyncio.Semaphore(settings.pictures_at_once)
        self._pixels = Room(settings.pixels_at_once)
        self._halts: set[Halt] = set()
        self._backlog = Backlog()

    def stop(self) -> None:
        """Send nothing more; what is in flight still settles."""
        for halt in self._halts:
            halt.request(Interrupted())

    @property
    def backlog(self) -> int:
        """Draws that the requests under way still need, at least."""
        return self._backlog.draws

    async def answers(self, inquiry: Inquiry, request_id: str, job: Job, meter: Meter) -> list[Answered]:
        """An answer for each image; equal ones are asked about once."""
        shas = [hashlib.sha256(image).hexdigest() for image in inquiry.images]
        images = dict(zip(shas, inquiry.images, strict=True))
        answers = await self._recalled(inquiry, images)
        todo = {sha: image for sha, image in images.items() if sha not in answers}
        if todo:
            numbers = {sha: inquiry.number(sha, shas) for sha in todo}
            answers |= await self._sampled(inquiry, request_id, job, todo, meter, numbers)
        else:
            job.replayed = True
        return [answers[sha] for sha in shas]

    async def _recalled(self, inquiry: Inquiry, images: Mapping[str, bytes]) -> dict[str, Answered]:
        settings = self.settings_sha(inquiry)
        found = {sha: await self._store.cached(inquiry.caller.id, sha, settings) for sha in images}
        return {sha: Verdict.model_validate_json(kept) for sha, kept in found.items() if kept is not None}

    def settings_sha(self, inquiry: Inquiry) -> str:
        """Of all but the pictures that decides a verdict."""
        return self._sha_of(inquiry.wish)

    async def _sampled(
        self,
        inquiry: Inquiry,
        request_id: str,
        job: Job,
        images: Mapping[str, bytes],
        meter: Meter,
        numbers: Mapping[str, int],
    ) -> dict[str, Answered]:
        """Reserve, fan out, settle. Raises what says nothing about the pictures."""
        wish = inquiry.wish
        await self._engine.calibrate(wish.smoothing)
        halt, loads = Halt(), await self._loads(wish, images)
        with self._expecting(loads.values(), halt):
            most = most_queries(wish.kind, wish.smoothing) + (wish.abstain == "unhardened")
            price_usd = self._engine.timed.backend.price_usd
            reservation = await self._store.reserve(inquiry.caller.id, len(images) * most, price_usd)
            fan_out = _FanOut(inquiry, request_id, reservation, meter, halt, job, numbers, loads)
            try:
                outcomes = await _each(self._verdict(fan_out, sha, image) for sha, image in images.items())
            finally:
                self._metrics.spent(meter.cost, price_usd)
                await self._settle(reservation, meter)
        if not all(isinstance(outcome, Verdict) for outcome in outcomes):
            halt.check()  # why it was stopped says nothing about what was answered before
        return {sha: _answered(outcome) for sha, outcome in zip(images, outcomes, strict=True)}

    async def _settle(self, reservation: Reservation, meter: Meter) -> None:
        """What was paid for is answered, though it could not be written down; it is charged as it was sent."""
        try:
            await self._store.settle(reservation, meter.cost)
        except LedgerError:
            _logger.exception("a request could not be settled")

    async def _loads(self, wish: Wish, images: Mapping[str, bytes]) -> dict[str, Load]:
        draws = fewest_draws(wish.kind, wish.smoothing)
        pixels = await self._engine.pixels_of(list(images.values()))
        return {sha: Load(draws, size, Meter()) for sha, size in zip(images, pixels, strict=True)}

    @contextmanager
    def _expecting(self, loads: Collection[Load], halt: Halt) -> Iterator[None]:
        """Count these among the backlog. Raises RequestFault at once where they cannot be had in time."""
        draws, waiting = sum(load.draws for load in loads), self._backlog.draws
        pixels = sum(load.draws * load.pixels for load in loads)
        seconds = self._engine.seconds_for(waiting + draws, self._backlog.pixels + pixels)
        if seconds > self._settings.deadline_s:
            per_s = (waiting + draws) / seconds
            raise RequestFault(
                Fault.QUOTA,
                f"this needs {draws} queries at least, which cannot be had within {self._settings.deadline_s:g} s "
                f"at the present {per_s:.3g} a second and {waiting} waiting; nothing was spent",
            )
        self._backlog.add(loads)
        self._halts.add(halt)
        try:
            yield
        finally:
            self._backlog.drop(loads)
            self._halts.discard(halt)

    async def _verdict(self, fan_out: _FanOut, sha: str, image: bytes) -> Verdict:
        """One picture's. Of all requests, only so many pictures and pixels are unpacked at a time."""
        load = fan_out.loads[sha]
        try:
            async with self._unpacked, self._pixels.taken(load.pixels):
                prepared = await self._engine.prepare(image, fan_out.inquiry.wish.kind)
                return await self._of_picture(fan_out, sha, prepared)
        finally:
            self._backlog.drop([load])

    async def _of_picture(self, fan_out: _FanOut, sha: str, prepared: Prepared) -> Verdict:
        """Sampled with the entropy and the draws that an earlier attempt may have left."""
        wish, own = fan_out.inquiry.wish, fan_out.loads[sha].meter
        number = fan_out.numbers[sha]
        known = await self._store.picture(fan_out.request_id, number, sha, prepared.picture.entropy)
        own.settled = len(known.recalled.votes)
        picture = replace(prepared.picture, entropy=known.entropy)
        sampled = await self._engine.sample(
            replace(prepared, picture=picture),
            wish.kind,
            wish.smoothing,
            number=number,
            journal=self._store.journal(fan_out.request_id, fan_out.reservation),
            halt=fan_out.halt,
            known=known,
            meters=(fan_out.meter, own),
            tell=fan_out.job.tell if sha == next(iter(fan_out.numbers)) else _unheard,
            clean_when_abstaining=wish.abstain == "unhardened",
        )
        decide = partial(
            verdict_of,
            sampled,
            picture,
            own.cost.at(fan_out.reservation.price_usd),
            labels=self._engine.timed.labels,
            canonical=self._settings.labels == "canonical",
            wish=wish,
            stamp=(uuid.uuid4().hex, sha, self._now().isoformat(timespec="seconds")),
        )
        verdict = decide() if wish.per_label is None else await asyncio.to_thread(decide)
        await self._remember(fan_out.inquiry, verdict)
        self._metrics.decided(verdict)
        return verdict

    async def _remember(self, inquiry: Inquiry, verdict: Verdict) -> None:
        """What was paid for is answered, though it could not be remembered."""
        try:
            await self._store.remember(
                inquiry.caller.id,
                verdict.picture_sha256,
                self.settings_sha(inquiry),
                verdict.text,
                verdict_id=verdict.id,
            )
        except LedgerError:
            _logger.exception("verdict %s could not be remembered", verdict.id)


@dataclass(frozen=True, slots=True)
class _FanOut:
    """What the pictures of one request have in common while they are asked about.

    numbers: each picture's place in the request by its digest, the same in each attempt. loads: likewise.
    """

    inquiry: Inquiry
    request_id: str
    reservation: Reservation
    meter: Meter
    halt: Halt
    job: Job
    numbers: Mapping[str, int]
    loads: Mapping[str, Load]


async def _each(work: Iterable[Coroutine[Any, Any, Verdict]]) -> list[Verdict | BaseException]:
    """All of them at the same time, each with its verdict or its error; a single one needs no task of its own."""
    first, *others = work
    if others:
        return await asyncio.gather(first, *others, return_exceptions=True)
    try:
        return [await first]
    except Exception as error:  # noqa: BLE001 (told as the picture's own)
        return [error]


def _unheard(_: Votes) -> None:
    """Only the first picture's votes are told as they grow."""


def _answered(outcome: Verdict | BaseException) -> Answered:
    if isinstance(outcome, Verdict):
        return outcome
    if not isinstance(outcome, Exception):
        raise outcome
    fault = told(outcome)
    fault.__cause__ = outcome
    return fault


def _settings_sha(spoken: str, classifier: str, wish: Wish) -> str:
    return sha256_of(repr(wish), spoken, classifier)


def _fingerprint(engine: Engine) -> str:
    timed = engine.timed
    parts = (
        dict(timed.backend.fingerprint),
        timed.denoiser.fingerprint,
        timed.labels.fingerprint(),
        timed.encoding,
    )
    return repr(parts)
