"""What a gateway counts, for Prometheus. Each gateway has a registry of its own."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from smoothing_proxy.gateway.verdicts import Verdict
from smoothing_proxy.types import Cost

__all__ = ["CONTENT_TYPE", "Metrics"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_RADII = (0.0, 0.05, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)
_COPIES = (5, 10, 20, 50, 100, 200, 500, 1_000, 5_000)
_SECONDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 60.0)


class Metrics:
    """Counters and histograms; labels are vendors and outcomes, never keys or pictures."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "smoothing_requests", "Requests by vendor and outcome.", ["vendor", "outcome"], registry=self.registry
        )
        self._queries = Counter(
            "smoothing_queries", "Queries, settled or of unknown outcome.", ["kind"], registry=self.registry
        )
        self._usd = Counter("smoothing_spend_usd", "Dollars for queries.", registry=self.registry)
        self._verdicts = Counter(
            "smoothing_verdicts",
            "Verdicts by procedure and whether they abstain.",
            ["kind", "abstain"],
            registry=self.registry,
        )
        self._radius = self._histogram("smoothing_radius", "Certified l2 radii, [0, 1] pixel scale.", _RADII)
        self._copies = self._histogram("smoothing_copies", "Copies that a verdict looked at.", _COPIES)
        self._abstained = self._histogram("smoothing_abstained_copies", "Copies behind an abstention.", _COPIES)
        self._seconds = self._histogram("smoothing_request_seconds", "From request to answer.", _SECONDS)
        self._overhead = self._histogram(
            "smoothing_overhead_seconds", "Of a request, apart from waiting for its verdict.", _SECONDS
        )
        self._pending = Gauge("smoothing_pending_requests", "Requests under way.", registry=self.registry)
        self._queue = Gauge("smoothing_queue_draws", "Draws still needed by them.", registry=self.registry)
        self._versions = Gauge(
            "smoothing_model_versions", "Versions that the classifier answered as.", registry=self.registry
        )

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(name, text, buckets=buckets, registry=self.registry)

    def watch(self, pending: Callable[[], int], queue: Callable[[], int], versions: Callable[[], int]) -> None:
        """Where the gauges look when they are read."""
        self._pending.set_function(pending)
        self._queue.set_function(queue)
        self._versions.set_function(versions)

    def answered(self, vendor: str, outcome: str, seconds: float, waited_s: float) -> None:
        """A request has ended. waited_s: of its seconds, those for its verdict."""
        self._requests.labels(vendor, outcome).inc()
        self._seconds.observe(seconds)
        self._overhead.observe(max(0.0, seconds - waited_s))

    def spent(self, cost: Cost, price_usd: float) -> None:
        """A fan-out has ended, well or not."""
        self._queries.labels("settled").inc(cost.queries)
        self._queries.labels("unknown").inc(cost.unknown)
        self._usd.inc(cost.at(price_usd).usd)

    def decided(self, verdict: Verdict) -> None:
        """A new verdict."""
        abstains = verdict.label is None
        self._verdicts.labels(verdict.kind, str(abstains).lower()).inc()
        self._copies.observe(verdict.copies)
        if abstains:
            self._abstained.observe(verdict.copies)
        elif verdict.kind == "certify":
            self._radius.observe(verdict.radius)

    def page(self) -> bytes:
        """As Prometheus reads it."""
        return generate_latest(self.registry)
