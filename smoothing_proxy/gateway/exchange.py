"""One request and its answer, for the log and the metrics."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from smoothing_proxy.gateway.inquiries import Inquiry
from smoothing_proxy.gateway.jobs import Answered
from smoothing_proxy.gateway.ports import Caller
from smoothing_proxy.gateway.service import Gateway
from smoothing_proxy.gateway.verdicts import Verdict
from smoothing_proxy.types import Cost
from smoothing_proxy.wire.base import Fault, HttpReply, RequestFault
from smoothing_proxy.wire.errands import Errand

__all__ = ["Exchange"]

_logger = logging.getLogger("smoothing_proxy.gateway.requests")


class Exchange:
    """Made when a request arrives. id: of the request, as answered and logged. caller: the key's id, "" before.

    headers: of the request, names in lower case, for its place in a trace. images: see Job.
    """

    def __init__(self, gateway: Gateway, headers: Mapping[str, str] = {}) -> None:
        self.id = str(uuid.uuid4())
        self.vendor = "unknown"
        self.caller = ""
        self.fault: RequestFault | None = None
        self.replayed = False
        self.images: tuple[bytes, ...] = ()
        self._gateway = gateway
        self._held = 0
        self._began = gateway.clock.now()
        self._waited_s = 0.0
        self._answers: Sequence[Answered] = ()
        self._passed: Cost | None = None
        self.trace = gateway.traces.request(headers)

    def hold(self, size: int) -> None:
        """So many more bytes are in memory until this request ends. Raises RequestFault where that is full."""
        if self._gateway.bodies + size > self._gateway.settings.bodies_bytes:
            raise RequestFault(Fault.THROTTLED, "too many requests are here at the same time", retry_after_s=1.0)
        self._held += size
        self._gateway.bodies += size

    async def answers(self, inquiry: Inquiry) -> Sequence[Answered]:
        """The gateway's answers, and how long they took. Raises RequestFault."""
        asked = self._gateway.clock.now()
        try:
            with self.trace.current():
                job = self._gateway.take(inquiry)
                self._answers = await self._gateway.answers(job)
                self.images = job.images
                self.replayed = job.replayed
        finally:
            self._waited_s = self._gateway.clock.now() - asked
        return self.told(self._answers)

    async def pass_on(self, caller: Caller, errand: Errand, name: str) -> HttpReply:
        """The vendor's own reply to a request that goes to it as it came. name: of it, by the client, or "".

        Raises RequestFault.
        """
        asked = self._gateway.clock.now()
        try:
            with self.trace.current():
                passed = await self._gateway.pass_on(caller, errand, name)
        finally:
            self._waited_s = self._gateway.clock.now() - asked
        self._passed, self.replayed = passed.cost, passed.replayed
        return passed.reply

    def told(self, answers: Sequence[Answered]) -> Sequence[Answered]:
        """Remember them for the log."""
        self._answers = answers
        return answers

    def end(self, status: int, path: str) -> None:
        """Count it, and write one line about it: no picture, no secret, no query string."""
        self._gateway.bodies -= self._held
        self._held = 0
        took_s = self._gateway.clock.now() - self._began
        outcome = self._outcome(status)
        self._gateway.metrics.answered(self.vendor, outcome, took_s, self._waited_s)
        verdicts = [answer for answer in self._answers if isinstance(answer, Verdict)]
        queries = 0 if self.replayed else sum(verdict.queries for verdict in verdicts)
        said: dict[str, Any] = {
            "request_id": self.id,
            "vendor": self.vendor,
            "key": self.caller,
            "path": path[:200],
            "status": status,
            "outcome": outcome,
            "replayed": self.replayed,
            "verdicts": [verdict.id for verdict in verdicts],
            "queries": queries if self._passed is None else self._passed.queries,
            "seconds": round(took_s, 4),
        }
        _logger.info("request", extra={"said": said})
        told = ("request_id", "vendor", "key", "path", "status", "outcome", "replayed", "queries")
        self.trace.note(**{name: said[name] for name in told})
        self.trace.end(outcome if status >= 500 else "")

    def _outcome(self, status: int) -> str:
        if self.fault:
            return self.fault.fault.value
        if self._passed is not None:
            return "passed on"
        return "answered" if status < 400 else "refused"
