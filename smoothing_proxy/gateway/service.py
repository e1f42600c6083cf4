"""Questions in, hardened answers out: budget, memory, deadline and votes, whatever format they came in."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from smoothing_proxy.errors import ConfigError, LedgerError, ModelChangedError
from smoothing_proxy.gateway.answers import answers_in, document_of
from smoothing_proxy.gateway.engine import Engine, Kind
from smoothing_proxy.gateway.faults import fault_of, told
from smoothing_proxy.gateway.hardener import Hardener
from smoothing_proxy.gateway.inquiries import Inquiry, Wish
from smoothing_proxy.gateway.jobs import Answered, Job, Jobs
from smoothing_proxy.gateway.metrics import Metrics
from smoothing_proxy.gateway.pages import Meter
from smoothing_proxy.gateway.ports import Begun, Caller, Store
from smoothing_proxy.gateway.settings import GatewaySettings
from smoothing_proxy.smoothing.halt import Interrupted
from smoothing_proxy.transport.clock import Clock
from smoothing_proxy.wire.base import Fault, RequestFault

__all__ = ["SETTLE_S", "Gateway"]

SETTLE_S = 5.0
"""For what is in flight to settle, once nothing more is sent."""

PASSING = (Fault.INTERNAL, Fault.UNAVAILABLE, Fault.TIMEOUT)
"""Faults after which another attempt may succeed."""

LOOK_AGAIN_S = 0.25
"""How often a request that another process answers is looked up."""

_logger = logging.getLogger(__name__)


class Gateway:
    """One for the whole process. now: the date, for documents. Raises nothing: see each method."""

    def __init__(
        self,
        settings: GatewaySettings,
        engine: Engine,
        store: Store,
        clock: Clock,
        metrics: Metrics,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.settings = settings
        self.store = store
        self.metrics = metrics
        self.now = now
        self.clock = clock
        self.jobs = Jobs()
        self.bodies = 0  # bytes of the requests that are here
        self.closing = False
        self._smoothing = engine.smoothing
        self._hardener = Hardener(settings, engine, store, metrics, now)
        metrics.watch(lambda: len(self.jobs), lambda: self._hardener.backlog)

    def wish(self, caller: Caller, *, radius: float | None = None, kind: Kind = "predict") -> Wish:
        """What this caller gets. radius: that this request asks for; it makes PREDICT a CERTIFY.

        Raises RequestFault (BAD_REQUEST) for a radius that can never be proven here.
        """
        abstain = caller.abstain or self.settings.abstain
        radius = caller.target_radius if radius is None else radius
        kind = "certify" if caller.certify else kind
        if radius is None:
            return Wish(kind, self._smoothing, abstain)
        if not (math.isfinite(radius) and radius > 0):
            raise RequestFault(Fault.BAD_REQUEST, "the target radius has to be a number above 0")
        step = self.settings.radius_step
        rounded = round(math.ceil(radius / step - 1e-9) * step, 9)
        try:
            smoothing = replace(self._smoothing, method="target", target_radius=rounded, target_radii=())
        except ConfigError as error:
            raise RequestFault(Fault.BAD_REQUEST, f"the target radius cannot be proven here: {error}") from None
        return Wish("certify", smoothing, abstain)

    def take(self, inquiry: Inquiry) -> Job:
        """Begin to answer, or join who asked the same already.

        Raises RequestFault where the gateway is being stopped, or has too much to do.
        """
        if self.closing:
            raise fault_of(Interrupted())
        under_way = self.jobs.find(inquiry.caller.id, inquiry.ticket)
        if under_way is not None:
            return under_way
        if len(self.jobs) >= self.settings.max_pending:
            raise RequestFault(Fault.THROTTLED, "too many requests are under way here", retry_after_s=1.0)
        return self.jobs.begin(inquiry.caller.id, inquiry.ticket, lambda job: self._answers(inquiry, job))

    async def answers(self, job: Job) -> Sequence[Answered]:
        """An answer for each picture. Raises RequestFault where there is none at all, or none in time."""
        try:
            return await job.answers(self.settings.deadline_s)
        except TimeoutError:
            raise RequestFault(
                Fault.TIMEOUT, "the answer is still being computed; the same request, sent again, will get it"
            ) from None

    async def close(self) -> None:
        """Take nothing more; finish what is under way, or stop it when it takes too long."""
        self.closing = True
        if await self.jobs.drained(self.settings.drain_s):
            return
        self._hardener.stop()
        if not await self.jobs.drained(SETTLE_S):
            await self.jobs.cancel()

    async def _answers(self, inquiry: Inquiry, job: Job) -> Sequence[Answered]:
        """The work of one job: told again where it was answered before, else done and remembered."""
        try:
            begun = await self._begin(inquiry)
        except Exception as error:
            raise told(error) from error
        if begun.state == "finished":
            job.replayed = True
            return answers_in(begun.document)
        meter = Meter()
        try:
            answers = await self._hardener.answers(inquiry, begun.request_id, job, meter)
        except Exception as error:
            fault = told(error)
            await self._end(begun, error, [fault] * len(inquiry.images), meter)
            raise fault from error
        except asyncio.CancelledError as error:
            await self.store.fail(begun.request_id, Interrupted(str(error)))
            raise
        passing = next((one for one in answers if isinstance(one, RequestFault) and one.fault in PASSING), None)
        await self._end(begun, passing, answers, meter)
        return answers

    async def _begin(self, inquiry: Inquiry) -> Begun:
        """Whether it is ours to answer; waits while another process does."""
        until = self.clock.now() + self.settings.deadline_s
        settings = self._hardener.settings_sha(inquiry)
        while self.clock.now() < until:
            begun = await self.store.begin(inquiry.caller.id, inquiry.name or None, inquiry.digest, settings)
            if begun.state != "running":
                return begun
            await self.clock.sleep(LOOK_AGAIN_S)
        raise RequestFault(Fault.TIMEOUT, "another process of this gateway is still computing the answer")

    async def _end(self, begun: Begun, error: Exception | None, answers: Sequence[Answered], meter: Meter) -> None:
        """Remember how it ended. error: after which it may be tried again, going on with its draws.

        Draws before a change of the model are void, so that another attempt would pay for all of them again: that
        error is told again instead. What was paid for is answered, though it could not be remembered.
        """
        try:
            if error is None or isinstance(error, ModelChangedError):
                await self.store.finish(begun.request_id, document_of(answers), meter.cost)
            else:
                await self.store.fail(begun.request_id, error)
        except LedgerError:
            _logger.exception("request %s could not be remembered", begun.request_id)
