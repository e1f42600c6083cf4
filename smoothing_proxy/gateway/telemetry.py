"""Traces by OpenTelemetry, sent by OTLP over HTTP. This module loads the extra `telemetry`: import it late.

The SDK's own variables hold (OTEL_EXPORTER_OTLP_ENDPOINT, _HEADERS, OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES,
OTEL_TRACES_SAMPLER, OTEL_BSP_*); what the configuration file says stands above them. Nothing is set globally.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, Sampler, TraceIdRatioBased
from opentelemetry.trace import SpanKind, Status, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from smoothing_proxy import __version__
from smoothing_proxy.gateway.settings import TelemetryTable
from smoothing_proxy.gateway.traces import Attribute, Trace

__all__ = ["OtelTraces", "exporting"]

_PATH = "/v1/traces"


class OtelTraces:
    """Implements Traces. provider: whose shutdown is `close`."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer: Tracer = provider.get_tracer("smoothing_proxy", __version__)
        self._propagator = TraceContextTextMapPropagator()

    def request(self, headers: Mapping[str, str]) -> Trace:
        """See Traces."""
        context = self._propagator.extract(headers)
        return _OtelTrace(self._tracer.start_span("smoothing request", context, SpanKind.SERVER))

    @contextmanager
    def span(self, name: str) -> Iterator[Trace]:
        """See Traces. Of an exception only its kind is told: its words may be about the picture."""
        made = _OtelTrace(self._tracer.start_span(name))
        try:
            with made.current():
                yield made
        except BaseException as error:
            made.end(type(error).__name__)
            raise
        made.end()

    def close(self) -> None:
        """See Traces."""
        self._provider.shutdown()


class _OtelTrace:
    """Implements Trace."""

    def __init__(self, span: trace.Span) -> None:
        self._span = span

    def note(self, **attributes: Attribute) -> None:
        for name, value in attributes.items():
            self._span.set_attribute(f"smoothing.{name}", value)

    def current(self) -> AbstractContextManager[None]:
        return self._current()

    @contextmanager
    def _current(self) -> Iterator[None]:
        with trace.use_span(self._span, record_exception=False, set_status_on_exception=False):
            yield

    def end(self, fault: str = "") -> None:
        if fault:
            self._span.set_status(Status(StatusCode.ERROR, fault))
        self._span.end()


def exporting(settings: TelemetryTable, environ: Mapping[str, str]) -> OtelTraces:
    """Traces that are sent to the settings' endpoint, or to that of the variables, in the background."""
    named = settings.service_name or environ.get("OTEL_SERVICE_NAME") or "smoothing-proxy"
    provider = TracerProvider(
        sampler=_sampler(settings), resource=Resource.create({SERVICE_NAME: named}), shutdown_on_exit=False
    )
    endpoint = settings.endpoint.rstrip("/")
    whole = endpoint if endpoint.endswith(_PATH) or not endpoint else endpoint + _PATH
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=whole or None)))
    return OtelTraces(provider)


def _sampler(settings: TelemetryTable) -> Sampler | None:
    ratio = settings.sample_ratio
    return None if ratio is None else ParentBased(TraceIdRatioBased(ratio))
