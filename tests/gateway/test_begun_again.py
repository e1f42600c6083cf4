"""What comes again after it went wrong: paid draws are kept, and an answer answers what is asked now."""

from __future__ import annotations

from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from smoothing_proxy.backends.scripted import ScriptedBackend
from smoothing_proxy.denoisers.identity import Identity
from smoothing_proxy.errors import BackendTimeoutError, LedgerError
from smoothing_proxy.gateway.app import every_wire, make_gateway
from smoothing_proxy.gateway.ledger_store import LedgerStore
from smoothing_proxy.gateway.memory_store import MemoryKey, MemoryStore
from smoothing_proxy.gateway.ports import Caller, Store
from smoothing_proxy.gateway.serving import listening
from smoothing_proxy.gateway.settings import GatewaySettings
from smoothing_proxy.ledger.gateway.nouns import KeyTerms
from smoothing_proxy.ledger.gateway.store import GatewayStore
from smoothing_proxy.smoothing.base_classifier import BaseClassifier
from smoothing_proxy.smoothing.settings import Smoothing
from smoothing_proxy.transport.settings import TransportSettings
from smoothing_proxy.types import Reply, ScoredLabel
from smoothing_proxy.wire.base import RequestFault
from tests.gateway.gateways import DOG, SMOOTHING, picture, serving
from tests.gateway.test_paying_once import slow, until

LIMIT = 45
"""Of queries: enough for one fan-out of 40 copies, too few for its resends."""

QUICK = TransportSettings(requests_per_s=1_000, circuit_failures=10_000, backoff_base_s=0.001, backoff_max_s=0.001)


class Desk:
    """A store of either kind with one key, whose limit can be raised."""

    def __init__(self, store: Store, secret: str) -> None:
        self.store = store
        self.secret = secret

    async def raise_limit(self) -> None:
        raise NotImplementedError


class InMemory(Desk):
    def __init__(self, limit: int | None) -> None:
        self.limit = limit
        super().__init__(
            MemoryStore(lambda: [MemoryKey(Caller("KEY"), "s" * 20, limit_queries=self.limit)]), "s" * 20
        )

    async def raise_limit(self) -> None:
        self.limit = None
        assert await self.store.reload()


class InDatabase(Desk):
    def __init__(self, inner: GatewayStore, key_id: str, secret: str) -> None:
        super().__init__(LedgerStore(inner), secret)
        self.inner, self.key_id = inner, key_id

    async def raise_limit(self) -> None:
        await self.inner.update_key(self.key_id, KeyTerms())


@asynccontextmanager
async def desk(kind: str, folder: Path, limit: int | None = None) -> AsyncIterator[Desk]:
    if kind == "memory":
        yield InMemory(limit)
        return
    async with await GatewayStore.open(folder / "gateway.db", secret_key=bytes(32)) as inner:
        key, secret = await inner.create_key("shop", "native", KeyTerms(calls_limit=limit, period="total"))
        yield InDatabase(inner, key.id, secret)


@asynccontextmanager
async def asking(
    there: Desk, backend: ScriptedBackend, smoothing: Smoothing = SMOOTHING, **options: Any
) -> AsyncIterator[httpx.AsyncClient]:
    """A client with the key, of a gateway over this store."""
    classifier = BaseClassifier(backend, Identity(), sigma=smoothing.sigma)
    settings = GatewaySettings(port=0, grpc_port=None, drain_s=1.0)
    gateway = make_gateway(settings, classifier, smoothing, there.store, **options)
    headers = {"x-api-key": there.secret, "content-type": "image/png"}
    async with (
        listening(gateway, every_wire()) as address,
        httpx.AsyncClient(base_url=address.url, timeout=20, headers=headers) as client,
    ):
        yield client


both = pytest.mark.parametrize("kind", ["memory", "database"])


@both
def test_a_name_that_comes_again_with_another_wish_is_refused_unless_it_failed(kind: str, tmp_path: Path) -> None:
    async def work() -> list[int]:
        named = {"idempotency-key": "mine"}
        wish = {"x-smoothing-target-radius": "0.25"}
        failing = ScriptedBackend(DOG, failures={n: BackendTimeoutError("lost") for n in range(120)})
        async with desk(kind, tmp_path) as there, asking(there, failing) as client:
            return [
                (await client.post(path, content=picture(), headers=named | headers)).status_code
                for path, headers in (
                    ("/v1/predict", {}),
                    ("/v1/certify", wish),
                    ("/v1/predict", {}),
                    ("/v1/certify", wish),
                )
            ]

    assert anyio.run(work) == [504, 200, 400, 200]


@both
def test_a_budget_that_ended_in_the_middle_and_was_raised_is_enough(kind: str, tmp_path: Path) -> None:
    async def work() -> None:
        lost = {number: BackendTimeoutError("lost") for number in range(30, LIMIT)}
        backend = ScriptedBackend(DOG, failures=lost, remote=True)
        fixed = Smoothing(sigma=0.25, n=40, method="fixed")
        async with desk(kind, tmp_path, LIMIT) as there, asking(there, backend, fixed, transport=QUICK) as client:
            first = await client.post("/v1/predict", content=picture())
            assert (first.status_code, backend.asked) == (402, LIMIT)
            assert (await client.post("/v1/predict", content=picture())).status_code == 402
            assert backend.asked == LIMIT
            await there.raise_limit()
            again = await client.post("/v1/predict", content=picture())
            assert (again.status_code, again.json()["copies"]) == (200, 40)
            assert LIMIT < backend.asked <= LIMIT + 10, "what was answered is not asked again"

    anyio.run(work)


@both
@pytest.mark.parametrize(("named", "statuses"), [(False, [500, 200]), (True, [500, 500])])
def test_a_change_of_the_model_is_forgotten_unless_the_same_request_is_sent_again(
    kind: str, named: bool, statuses: list[int], tmp_path: Path
) -> None:
    asked = 0

    def answer(_: object) -> Reply:
        nonlocal asked
        asked += 1
        return Reply((ScoredLabel("Dog", 0.9),), "v1" if asked <= 3 else "v2")

    async def work() -> list[int]:
        backend = ScriptedBackend(answer, concurrency=1)
        headers = {"idempotency-key": "mine"} if named else {}
        async with desk(kind, tmp_path) as there, asking(there, backend) as client:
            first = await client.post("/v1/predict", content=picture(), headers=headers)
            paid = backend.asked
            again = await client.post("/v1/predict", content=picture(), headers=headers)
            assert (backend.asked == paid) == named
        return [first.status_code, again.status_code]

    assert anyio.run(work) == statuses


def test_of_those_who_ask_the_same_at_once_one_is_told_that_it_paid() -> None:
    with serving(slow(0.02), verdict_ttl_s=0) as there, ThreadPoolExecutor(4) as pool:
        replies = list(pool.map(lambda _: there.ask(), range(4)))
        told = [reply.headers["x-smoothing-replayed"] for reply in replies]
        until(lambda: len(there.gateway.jobs) == 0)
    assert {reply.status_code for reply in replies} == {200}
    assert sorted(told) == ["false", "true", "true", "true"]


def test_a_key_that_goes_while_its_request_arrives_is_no_key() -> None:
    keys = [MemoryKey(Caller("KEY"), "s" * 20)]

    async def work() -> None:
        store = MemoryStore(lambda: list(keys))
        caller = await store.key("aws", "KEY")
        assert caller is not None
        keys.clear()
        await store.reload()
        with pytest.raises(RequestFault, match="security token"):
            await store.secret_of(caller)

    anyio.run(work)


class Forgetful(MemoryStore):
    """Can write nothing at the end of a request."""

    async def finish(self, *_: Any) -> None:
        raise LedgerError("full")

    async def settle(self, *_: Any) -> None:
        raise LedgerError("full")


def test_an_end_that_cannot_be_written_leaves_the_answer_and_nobody_waiting() -> None:
    async def work() -> None:
        store = Forgetful(lambda: [MemoryKey(Caller("KEY"), "s" * 20)], cache_s=0.0)
        backend = ScriptedBackend(DOG)
        async with asking(Desk(store, "s" * 20), backend) as client:
            first, again = [await client.post("/v1/predict", content=picture()) for _ in range(2)]
        assert (first.status_code, again.status_code) == (200, 200)
        assert backend.asked == first.json()["queries"]

    anyio.run(work)
