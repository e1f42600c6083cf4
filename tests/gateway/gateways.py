"""A gateway on this machine for a test: uvicorn and gRPC in a thread of their own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx
import numpy as np
import numpy.typing as npt
from anyio.from_thread import BlockingPortal, start_blocking_portal

from smoothing_proxy.backends.base import Backend
from smoothing_proxy.backends.labels import LabelMap
from smoothing_proxy.backends.scripted import ScriptedBackend
from smoothing_proxy.denoisers.base import Denoiser
from smoothing_proxy.denoisers.identity import Identity
from smoothing_proxy.gateway.app import every_wire, make_gateway
from smoothing_proxy.gateway.memory_store import MemoryKey, MemoryStore
from smoothing_proxy.gateway.ports import Caller
from smoothing_proxy.gateway.references import NoReferences
from smoothing_proxy.gateway.service import Gateway
from smoothing_proxy.gateway.serving import Address, listening
from smoothing_proxy.gateway.settings import GatewaySettings
from smoothing_proxy.gateway.traces import NoTraces, Traces
from smoothing_proxy.images.codec import Encoding, encode
from smoothing_proxy.smoothing.base_classifier import BaseClassifier
from smoothing_proxy.smoothing.settings import Smoothing
from smoothing_proxy.transport.settings import TransportSettings
from smoothing_proxy.types import Reply, ScoredLabel

KEY_ID = "AKIATESTKEY"
SECRET = "a-secret-of-a-test-key"
OTHER = "a-secret-of-another-key"
POOR = "a-secret-of-a-poor-key"
PASSING_ID, PASSING = "PASSINGKEY", "a-secret-of-a-passing-key"

T = TypeVar("T")

DOG = Reply(
    (
        ScoredLabel("Dog", 0.9, "/m/dog", parents=("Animal",), aliases=("Hound",)),
        ScoredLabel("Pet", 0.9),
        ScoredLabel("Grass", 0.4),
    ),
    "v7",
)


def picture(level: int = 100, side: int = 96) -> bytes:
    """A PNG file of one grey level."""
    return encode(np.full((side, side, 3), level, np.uint8), Encoding("png")).data


def by_level(pixels: npt.NDArray[np.uint8]) -> Reply:
    """A classifier: dark or light, and on every picture a thing or two."""
    light = pixels.mean() >= 128
    labels = (ScoredLabel("light" if light else "dark", 0.8, "id-1"), ScoredLabel("shade", 0.6))
    return Reply(labels, "v1")


@dataclass(frozen=True)
class There:
    """A running gateway, its parts, and a client for it."""

    address: Address
    gateway: Gateway
    store: MemoryStore
    backend: Any
    client: httpx.Client
    portal: BlockingPortal

    @property
    def url(self) -> str:
        return self.address.url

    def ask(self, path: str = "/v1/predict", image: bytes | None = None, **options: Any) -> httpx.Response:
        """A native request, by default to PREDICT a grey picture."""
        headers = {
            "authorization": f"Bearer {SECRET}",
            "content-type": "image/png",
            **options.pop("headers", {}),
        }
        return self.client.post(path, content=picture() if image is None else image, headers=headers, **options)


def keys() -> list[MemoryKey]:
    return [
        MemoryKey(Caller(KEY_ID), SECRET),
        MemoryKey(Caller("OTHERKEY", target_radius=0.1, abstain="error"), OTHER),
        MemoryKey(Caller("POORKEY"), POOR, vendors=("native", "aws", "openai"), limit_queries=130),
        MemoryKey(Caller(PASSING_ID, passthrough=True), PASSING, limit_queries=3),
    ]


SMOOTHING = Smoothing(sigma=0.25, max_queries=120, alpha=0.001)


@contextmanager
def serving(
    backend: Backend | None = None,
    *,
    smoothing: Smoothing = SMOOTHING,
    labels: LabelMap | None = None,
    denoiser: Denoiser | None = None,
    transport: TransportSettings | None = None,
    traces: Traces = NoTraces(),  # noqa: B008 (without state)
    references: NoReferences = NoReferences(),  # noqa: B008 (without state)
    **settings: Any,
) -> Iterator[There]:
    """A gateway before this backend (by default one that always sees a dog), until the block ends."""
    backend = backend or ScriptedBackend(DOG, batch_size=8)
    classifier = BaseClassifier(backend, denoiser or Identity(), sigma=smoothing.sigma, labels=labels)
    spoken = settings.pop("labels_spoken", "own")
    chosen = GatewaySettings(**{"port": 0, "grpc_port": 0, "drain_s": 2.0, "labels": spoken, **settings})
    store = MemoryStore(keys, cache_s=chosen.verdict_ttl_s, replay_s=chosen.replay_ttl_s)
    with start_blocking_portal() as portal:
        gateway = portal.call(_made, chosen, classifier, smoothing, store, transport, traces, references)
        with (
            httpx.Client(timeout=20.0) as client,
            portal.wrap_async_context_manager(listening(gateway, every_wire())) as address,
        ):
            client.base_url = httpx.URL(address.url)
            yield There(address, gateway, store, backend, client, portal)


async def _made(
    settings: GatewaySettings,
    classifier: BaseClassifier,
    smoothing: Smoothing,
    store: MemoryStore,
    transport: TransportSettings | None,
    traces: Traces,
    references: NoReferences,
) -> Gateway:
    return make_gateway(
        settings, classifier, smoothing, store, transport=transport, traces=traces, references=references
    )


def proof(headers: Mapping[str, str]) -> dict[str, str]:
    """The proof headers, without their prefix."""
    prefix = "x-smoothing-"
    return {name[len(prefix) :]: text for name, text in headers.items() if name.startswith(prefix)}


def names(reply: Sequence[Mapping[str, Any]], key: str) -> list[str]:
    return [item[key] for item in reply]
