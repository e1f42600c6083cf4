"""Questions in, hardened answers out: budget, memory, deadline and votes, whatever format they came in."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from smoothing_proxy.errors import ConfigError, LedgerError, ModelChangedError
from smoothing_proxy.gateway.answers import answers_in, document_of
from smoothing_proxy.gateway.beginning import begun
from smoothing_proxy.gateway.engine import Engine, Kind
from smoothing_proxy.gateway.faults import fault_of, told
from smoothing_proxy.gateway.hardener import Hardener
from smoothing_proxy.gateway.health import Watch
from smoothing_proxy.gateway.inquiries import Inquiry, Wish
from smoothing_proxy.gateway.jobs import Answered, Job, Jobs
from smoothing_proxy.gateway.label_question import AskedLabels, per_label_of
from smoothing_proxy.gateway.metrics import Metrics
from smoothing_proxy.gateway.pages import Meter
from smoothing_proxy.gateway.passage import Passage
from smoothing_proxy.gateway.passes import Passed
from smoothing_proxy.gateway.ports import Begun, Caller, Store
from smoothing_proxy.gateway.references import NoReferences
from smoothing_proxy.gateway.settings import GatewaySettings
from smoothing_proxy.gateway.traces import NoTraces, Traces, of_verdicts
from smoothing_proxy.smoothing.halt import Interrupted
from smoothing_proxy.transport.clock import Clock
from smoothing_proxy.wire.base import Fault, RequestFault
from smoothing_proxy.wire.errands import Errand

if TYPE_CHECKING:
    from smoothing_proxy.gateway.admin import Admin

__all__ = ["SETTLE_S", "Gateway"]

SETTLE_S = 5.0
"""For what is in flight to settle, once nothing more is sent."""

PASSING = (Fault.INTERNAL, Fault.UNAVAILABLE, Fault.TIMEOUT, Fault.QUOTA)
"""Faults after which another attempt may succeed, be it tomorrow or with another limit."""

MOST_STEPS = 1e9
"""Of a target radius; no such one can be proven, and the largest number has none that could be counted."""

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
        traces: Traces = NoTraces(),  # noqa: B008 (without state)
        references: NoReferences = NoReferences(),  # noqa: B008 (without state)
        admin: Admin | None = None,
    ) -> None:
        self.settings = settings
        self.references = references
        self.admin = admin
        self.store = store
        self.metrics = metrics
        self.now = now
        self.clock = clock
        self.jobs = Jobs()
        self.bodies = 0  # bytes of the requests that are here
        self.closing = False
        self.traces = traces
        backend = engine.timed.backend
        self.passage = Passage(settings, backend, store, metrics, clock)
        self._smoothing = engine.smoothing
        self._labels = engine.timed.labels
        self._hardener = Hardener(settings, engine, store, metrics, now)
        self.watch = Watch(engine, store, clock, harden=settings.harden)
        signs = engine.timed.signs
        metrics.watch(lambda: len(self.jobs), lambda: self._hardener.backlog, lambda: len(signs.versions))

    def wish(self, caller: Caller, *, radius: float | None = None, kind: Kind = "predict") -> Wish:
        """What this caller gets. radius: that this request asks for; it makes PREDICT a CERTIFY.

        Raises RequestFault (BAD_REQUEST) for a radius that can never be proven here.
        """
        abstain = caller.abstain or self.settings.abstain
        radius = caller.target_radius if radius is None else radius
        kind = "certify" if caller.certify else kind
        if not self.settings.harden:
            return self._unhardened(radius, kind)
        if radius is None:
            return Wish(kind, self._smoothing, abstain)
        if not (math.isfinite(radius) and radius > 0):
            raise RequestFault(Fault.BAD_REQUEST, "the target radius has to be a number above 0")
        step = self.settings.radius_step
        steps = math.ceil(min(radius / step, MOST_STEPS) - 1e-9)
        rounded = round(max(1, steps) * step, 9)
        try:
            smoothing = replace(self._smoothing, method="target", target_radius=rounded, target_radii=())
        except ConfigError as error:
            raise RequestFault(Fault.BAD_REQUEST, f"the target radius cannot be proven here: {error}") from None
        return Wish("certify", smoothing, abstain)

    def _unhardened(self, radius: float | None, kind: Kind) -> Wish:
        if radius is not None or kind == "certify":
            raise RequestFault(
                Fault.BAD_REQUEST, "this gateway does not harden at present: it can certify nothing"
            )
        return Wish("unhardened", self._smoothing, "unhardened")

    def with_labels(self, caller: Caller, wish: Wish, asked: AskedLabels, threshold: float | None = None) -> Wish:
        """The wish with what is to be proven about each label. threshold: that the request names elsewhere.

        Raises RequestFault (BAD_REQUEST) for what cannot be asked here.
        """
        table = self.settings.per_label
        asked = table.keys.get(caller.id) if asked is None else asked
        wanted = per_label_of(asked, table, wish.kind, wish.smoothing, self._labels, threshold=threshold)
        return replace(wish, per_label=wanted)

    def take(self, inquiry: Inquiry) -> Job:
        """Begin to answer, or join who asked the same. The key's place is the work's, until that has ended.

        Raises RequestFault where the gateway is being stopped, or it or the key has too much to do.
        """
        if self.closing:
            raise fault_of(Interrupted())
        ticket = inquiry.ticket
        under_way = self.jobs.find(inquiry.caller.id, ticket)
        if under_way is not None:
            with self.store.admitted(inquiry.caller, joins=True):
                return under_way
        if len(self.jobs) >= self.settings.max_pending:
            raise RequestFault(Fault.THROTTLED, "too many requests are under way here", retry_after_s=1.0)
        place = ExitStack()
        place.enter_context(self.store.admitted(inquiry.caller))
        return self.jobs.begin(
            inquiry.caller.id, ticket, lambda job: self._answers(inquiry, job), at_end=place.close
        )

    async def answers(self, job: Job) -> Sequence[Answered]:
        """An answer for each picture. Raises RequestFault where there is none at all, or none in time."""
        try:
            return await job.answers(self.settings.deadline_s)
        except TimeoutError:
            raise RequestFault(
                Fault.TIMEOUT, "the answer is still being computed; the same request, sent again, will get it"
            ) from None

    async def pass_on(self, caller: Caller, errand: Errand, name: str) -> Passed:
        """The vendor's own reply to a request that goes to it as it came. name: of it, by the client, or "".

        Raises RequestFault.
        """
        if self.closing:
            raise fault_of(Interrupted())
        with self.traces.span("smoothing passthrough") as trace:
            trace.note(operation=errand.operation)
            passed = await self.passage.carry(caller, errand, name)
            trace.note(queries=passed.cost.queries, unknown=passed.cost.unknown, replayed=passed.replayed)
        return passed

    async def close(self) -> None:
        """Take nothing more; finish what is under way, or stop it when it takes too long."""
        self.closing = True
        self.watch.close()
        within_s = self.settings.drain_s
        done, _ = await asyncio.gather(self.jobs.drained(within_s), self.passage.drained(within_s))
        if done:
            return
        self._hardener.stop()
        if not await self.jobs.drained(SETTLE_S):
            await self.jobs.cancel()

    async def _answers(self, inquiry: Inquiry, job: Job) -> Sequence[Answered]:
        with self.traces.span("smoothing verdict") as trace:
            trace.note(key=inquiry.caller.id, kind=inquiry.wish.kind)
            answers = await self._worked_out(inquiry, job)
            trace.note(**of_verdicts(answers, replayed=job.replayed))
            return answers

    async def _worked_out(self, inquiry: Inquiry, job: Job) -> Sequence[Answered]:
        """The work of one job: told again where it was answered before, else done and remembered."""
        if not inquiry.name:
            inquiry = await self.references.filled(inquiry, job)  # what is asked is what lies there now
        try:
            begins = await self._begin(inquiry)
        except Exception as error:
            raise told(error) from error
        if begins.state == "finished":
            job.replayed = True
            return answers_in(begins.document)
        meter = Meter()
        try:
            inquiry = await self.references.filled(inquiry, job)
            answers = await self._hardener.answers(inquiry, begins.request_id, job, meter)
        except Exception as error:
            fault = told(error)
            await self._end(begins, error, [fault] * len(inquiry.images), meter)
            raise fault from error
        except asyncio.CancelledError as error:
            await self.store.fail(begins.request_id, Interrupted(str(error)))
            raise
        await self._end(begins, _to_try_again(answers, named=bool(inquiry.name)), answers, meter)
        return answers

    async def _begin(self, inquiry: Inquiry) -> Begun:
        """Whether it is ours to answer; waits while another process does."""
        settings = self._hardener.settings_sha(inquiry)
        asked = (inquiry.caller.id, inquiry.name or None, inquiry.digest, settings)
        return await begun(self.store, self.clock, self.settings.deadline_s, *asked)

    async def _end(self, begun: Begun, error: Exception | None, answers: Sequence[Answered], meter: Meter) -> None:
        """Remember how it ended. error: after which it may be tried again, going on with its draws.

        What was paid for is answered, though it could not be remembered; nobody waits then for who is done.
        """
        try:
            if error is None:
                return await self.store.finish(begun.request_id, document_of(answers), meter.cost)
        except Exception as unkept:
            _logger.exception("request %s could not be remembered", begun.request_id)
            error = unkept
        try:
            await self.store.fail(begun.request_id, error)
        except LedgerError:
            _logger.exception("request %s could not be given up", begun.request_id)


def _to_try_again(answers: Sequence[Answered], *, named: bool) -> Exception | None:
    """Why these answers are not to be told again; None where they are.

    Draws before a change of the model are void, so that another attempt pays for all of them again. A request
    that has a name is told so again, for its SDK may well send it five times; one without can only be meant anew.
    """
    faults = [answer for answer in answers if isinstance(answer, RequestFault)]
    changed = next((one.__cause__ for one in faults if isinstance(one.__cause__, ModelChangedError)), None)
    if changed is not None:
        return None if named else changed
    return next((fault for fault in faults if fault.fault in PASSING), None)
