"""Where a request's time goes, for those who want to know: spans, or nothing at all.

    smoothing request            vendor, key, status, queries
      smoothing verdict          kind, radius, abstain, queries, copies
        smoothing fan-out        kind, sigma, queries, copies

Attributes are numbers and names of ours: neither pictures nor labels nor secrets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol, TypeAlias

from smoothing_proxy.errors import ConfigError
from smoothing_proxy.gateway.engine import Engine, Sampled
from smoothing_proxy.gateway.settings import TelemetryTable
from smoothing_proxy.gateway.verdicts import Verdict

__all__ = ["Attribute", "NoTraces", "Trace", "TracedEngine", "Traces", "of_verdicts", "traces_of"]

Attribute: TypeAlias = str | bool | int | float | Sequence[float] | Sequence[bool] | Sequence[str]


class Trace(Protocol):
    """One span under way."""

    def note(self, **attributes: Attribute) -> None:
        """Attributes, each named smoothing.* in the span."""
        ...

    def current(self) -> AbstractContextManager[None]:
        """What begins in this context is a part of it."""
        ...

    def end(self, fault: str = "") -> None:
        """It is over. fault: why it failed, in a word; "" where it did not."""
        ...


class Traces(Protocol):
    """Where spans go."""

    def request(self, headers: Mapping[str, str]) -> Trace:
        """A request begins. headers: names in lower case; a traceparent makes it a part of the client's trace."""
        ...

    def span(self, name: str) -> AbstractContextManager[Trace]:
        """A part of whatever is current; an exception that leaves it is its fault."""
        ...

    def close(self) -> None:
        """Send what is left. It may take seconds."""
        ...


class NoTraces:
    """Implements Traces and Trace by doing nothing."""

    def request(self, headers: Mapping[str, str]) -> Trace:
        """See Traces."""
        return self

    def span(self, name: str) -> AbstractContextManager[Trace]:
        """See Traces."""
        return nullcontext(self)

    def close(self) -> None:
        """See Traces."""

    def note(self, **attributes: Attribute) -> None:
        """See Trace."""

    def current(self) -> AbstractContextManager[None]:
        """See Trace."""
        return nullcontext()

    def end(self, fault: str = "") -> None:
        """See Trace."""


class TracedEngine(Engine):
    """An engine whose fan-outs are spans. traces: set once it is made."""

    traces: Traces = NoTraces()

    async def sample(self, *asked: Any, **how: Any) -> Sampled:
        """See Engine."""
        with self.traces.span("smoothing fan-out") as trace:
            sampled = await super().sample(*asked, **how)
            settled = [reply for reply in (*sampled.replies, sampled.clean) if reply is not None]
            trace.note(sigma=self.smoothing.sigma, copies=len(sampled.replies))
            trace.note(answered=len(settled), failed=len(sampled.errors))
            return sampled


_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


def traces_of(settings: TelemetryTable, environ: Mapping[str, str]) -> Traces:
    """What the configuration or OpenTelemetry's own variables ask for; NoTraces where neither does.

    Raises ConfigError where they do and the extra is not installed.
    """
    by_variable = next((name for name in _ENDPOINTS if environ.get(name)), "")
    if environ.get("OTEL_TRACES_EXPORTER", "").strip().lower() == "none":
        by_variable = ""
    disabled = environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    if disabled or not (settings.endpoint or by_variable):
        return NoTraces()
    try:
        from smoothing_proxy.gateway.telemetry import exporting
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"telemetry: {'endpoint' if settings.endpoint else by_variable} asks for traces, which need the extra "
            f"`pip install 'smoothing-proxy[telemetry]'` ({error.name} is not installed)"
        ) from None
    return exporting(settings, environ)


def of_verdicts(answers: Sequence[object], *, replayed: bool) -> dict[str, Attribute]:
    """Attributes of a request's verdicts, in the order of its pictures; those of faults are left out."""
    verdicts = [answer for answer in answers if isinstance(answer, Verdict)]
    return {
        "pictures": len(answers),
        "verdict_ids": [verdict.id for verdict in verdicts],
        "radius": [verdict.radius for verdict in verdicts],
        "input_radius": [verdict.input_radius for verdict in verdicts],
        "abstain": [verdict.label is None for verdict in verdicts],
        "copies": sum(verdict.copies for verdict in verdicts),
        "queries": 0 if replayed else sum(verdict.queries for verdict in verdicts),
        "replayed": replayed,
    }
