"""Traces: spans from the request to its fan-out, in the client's own trace, without secrets."""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from smoothing_proxy.cli.app import app
from smoothing_proxy.errors import ConfigError
from smoothing_proxy.gateway.settings import TelemetryTable
from smoothing_proxy.gateway.traces import NoTraces, Traces, traces_of
from tests.gateway import sdks
from tests.gateway.gateways import KEY_ID, SECRET, There, picture, serving

pytest.importorskip("opentelemetry.sdk", reason="needs the extra telemetry")

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"


@contextmanager
def traced(**settings: Any) -> Iterator[tuple[There, Any]]:
    """A gateway, and the SDK's own exporter that keeps its spans: all of them once the block has ended.

    A client holds the last byte of a stream before its span ends, so spans are read after the gateway.
    """
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    from smoothing_proxy.gateway.telemetry import OtelTraces

    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    traces = OtelTraces(provider)
    with serving(traces=traces, **settings) as there:
        yield there, exporter
    traces.close()


def by_name(exporter: Any) -> dict[str, Any]:
    return {span.name: span for span in exporter.get_finished_spans()}


def test_a_request_its_verdict_and_its_fan_out_are_spans_of_the_clients_trace() -> None:
    with traced() as (there, exporter):
        reply = there.ask("/v1/certify", headers={"traceparent": TRACEPARENT}).json()
    spans = by_name(exporter)
    assert list(spans) == ["smoothing fan-out", "smoothing verdict", "smoothing request"]
    fan_out, verdict, request = spans.values()
    assert {f"{span.context.trace_id:032x}" for span in spans.values()} == {TRACE}
    assert f"{request.parent.span_id:016x}" == PARENT
    assert (verdict.parent.span_id, fan_out.parent.span_id) == (request.context.span_id, verdict.context.span_id)
    told = request.attributes
    assert (told["smoothing.vendor"], told["smoothing.key"]) == ("native", KEY_ID)
    assert (told["smoothing.status"], told["smoothing.queries"]) == (200, reply["queries"])
    proven = verdict.attributes
    assert proven["smoothing.radius"] == (reply["radius"],)
    assert proven["smoothing.verdict_ids"] == (reply["id"],)
    assert (proven["smoothing.abstain"], proven["smoothing.kind"]) == ((False,), "certify")
    assert fan_out.attributes["smoothing.copies"] == reply["copies"] > 0
    everything = " ".join(span.to_json() for span in spans.values())
    assert SECRET not in everything
    assert "Dog" not in everything


@pytest.mark.parametrize("name", ["boto3", "google gRPC"])
def test_an_sdks_request_begins_a_trace_of_its_own(name: str) -> None:
    with traced() as (there, exporter):
        sdks.ASKS[name](there, picture())
        sdks.ASKS[name](there, picture())
    spans = exporter.get_finished_spans()
    requests = [span for span in spans if span.name == "smoothing request"]
    assert [span.attributes["smoothing.queries"] > 0 for span in requests] == [True, False]
    assert requests[0].context.trace_id != requests[1].context.trace_id
    assert all(span.parent is None for span in requests)
    assert len([span for span in spans if span.name == "smoothing fan-out"]) == 1


def test_a_stream_is_one_span_until_its_end() -> None:
    with traced() as (there, exporter):
        there.ask(headers={"accept": "text/event-stream", "traceparent": TRACEPARENT})
    spans = by_name(exporter)
    assert spans["smoothing verdict"].parent.span_id == spans["smoothing request"].context.span_id


def test_a_refusal_is_no_error_and_has_no_verdict() -> None:
    with traced() as (there, exporter):
        there.ask(headers={"authorization": "Bearer nobody", "traceparent": "not-a-traceparent"})
    (span,) = exporter.get_finished_spans()
    assert (span.attributes["smoothing.outcome"], span.status.is_ok) == ("unauthenticated", True)
    assert span.parent is None


class Collector(ThreadingHTTPServer):
    """What an OpenTelemetry collector receives: (path, ExportTraceServiceRequest)."""

    daemon_threads = True

    def __init__(self) -> None:
        self.received: list[tuple[str, Any]] = []
        super().__init__(("127.0.0.1", 0), _Receive)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Receive(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        body = self.rfile.read(int(self.headers["content-length"]))
        body = gzip.decompress(body) if self.headers.get("content-encoding") == "gzip" else body
        self.server.received.append((self.path, ExportTraceServiceRequest.FromString(body)))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextmanager
def collecting() -> Iterator[Collector]:
    collector = Collector()
    thread = threading.Thread(target=collector.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield collector
    finally:
        collector.shutdown()
        collector.server_close()
        thread.join(10)


@pytest.mark.parametrize("by", ["file", "variable"])
def test_spans_reach_a_collector_over_http(by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with collecting() as collector:
        settings, environ = TelemetryTable(endpoint=collector.url), {}
        if by == "variable":
            settings, environ = TelemetryTable(), {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
            monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        traces = traces_of(settings, environ)
        with serving(traces=traces) as there:
            there.ask(headers={"traceparent": TRACEPARENT})
        traces.close()
        deadline = time.monotonic() + 10
        while not collector.received:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert {path for path, _ in collector.received} == {"/v1/traces"}
    resources = [resource for _, sent in collector.received for resource in sent.resource_spans]
    named = {one.key: one.value.string_value for one in resources[0].resource.attributes}
    assert named["service.name"] == "smoothing-proxy"
    names = {span.name for resource in resources for scope in resource.scope_spans for span in scope.spans}
    assert names == {"smoothing request", "smoothing verdict", "smoothing fan-out"}


@pytest.mark.parametrize(
    ("settings", "environ", "on"),
    [
        ({}, {}, False),
        ({"endpoint": "http://127.0.0.1:4318"}, {}, True),
        ({}, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}, True),
        ({}, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318", "OTEL_TRACES_EXPORTER": "none"}, False),
        ({"endpoint": "http://127.0.0.1:4318"}, {"OTEL_SDK_DISABLED": "true"}, False),
    ],
)
def test_there_are_no_traces_unless_they_are_asked_for(
    settings: dict[str, Any], environ: dict[str, str], on: bool
) -> None:
    traces: Traces = traces_of(TelemetryTable(**settings), environ)
    traces.close()
    assert isinstance(traces, NoTraces) != on


def test_without_the_extra_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.delitem(sys.modules, "smoothing_proxy.gateway.telemetry", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(ConfigError, match=r"pip install 'smoothing-proxy\[telemetry\]'"):
        traces_of(TelemetryTable(endpoint="http://127.0.0.1:4318"), {})


def test_an_endpoint_that_is_no_address_is_refused(tmp_path: Path) -> None:
    config = tmp_path / "gateway.toml"
    config.write_text(
        '[smoothing]\nsigma = 0.25\n[backend]\nname = "scripted:cat"\n[telemetry]\nendpoint = "127.0.0.1:4318"\n'
    )
    result = CliRunner().invoke(app, ["serve", "--config", str(config)])
    assert (result.exit_code, "telemetry.endpoint" in result.output) == (2, True)
