"""The database goes away at any moment of a request, and comes back: nothing is wedged, lost or paid for twice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import anyio
import pytest
from sqlalchemy import event

from smoothing_proxy.backends.scripted import ScriptedBackend
from smoothing_proxy.denoisers.identity import Identity
from smoothing_proxy.gateway.app import make_gateway
from smoothing_proxy.gateway.engine import fewest_draws
from smoothing_proxy.gateway.inquiries import Inquiry
from smoothing_proxy.gateway.ledger_store import LedgerStore
from smoothing_proxy.gateway.metrics import Metrics
from smoothing_proxy.gateway.passage import Passage
from smoothing_proxy.gateway.ports import Caller
from smoothing_proxy.gateway.service import Gateway
from smoothing_proxy.gateway.settings import GatewaySettings
from smoothing_proxy.gateway.verdicts import Verdict
from smoothing_proxy.ledger.gateway.nouns import Spend, StoreSettings
from smoothing_proxy.ledger.gateway.store import GatewayStore
from smoothing_proxy.smoothing.base_classifier import BaseClassifier
from smoothing_proxy.smoothing.settings import Smoothing
from smoothing_proxy.transport.clock import SystemClock
from smoothing_proxy.types import Cost
from smoothing_proxy.wire.base import Fault, HttpRequest, RequestFault
from smoothing_proxy.wire.errands import errand_of
from tests.gateway.gateways import DOG, picture
from tests.gateway.test_passing_once import DESCRIBE, azure
from tests.gateway.upstream import Upstream, http_upstream
from tests.ledger.gateway import conftest as databases
from tests.ledger.gateway.outages import LockedFile, Outage, proxied
from tests.ledger.gateway.postgres import Postgres
from tests.ledger.gateway.stores import MASTER

postgres = databases.postgres

SMOOTHING = Smoothing(sigma=0.25, max_queries=40, alpha=0.05)
FEWEST = fewest_draws("predict", SMOOTHING)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who comes after an outage asks again at once."""
    monkeypatch.setattr("smoothing_proxy.ledger.gateway.doorstep.VAIN_S", 0.0)


@contextmanager
def outage_of(kind: str, request: pytest.FixtureRequest, folder: Path) -> Iterator[Outage]:
    if kind == "locked":
        yield LockedFile(str(folder / "gateway.db"))
        return
    server: Postgres = request.getfixturevalue("postgres")
    with proxied(server.new_schema(), "mute" if kind == "acknowledged by nobody" else "gone") as proxy:
        yield proxy


class Countdown:
    """Begins the outage as a connection is taken for a transaction, or at its commit; then it has `struck`."""

    def __init__(self, store: GatewayStore, outage: Outage, moment: str) -> None:
        self._outage = outage
        self._left = -1
        event.listen(store._database.engine, moment, self._pass)

    @property
    def struck(self) -> bool:
        return self._left == 0

    def start(self, transactions: int) -> None:
        self._left = transactions

    def stop(self) -> None:
        self._left = -1

    def _pass(self, *_: object) -> None:
        if self._left > 0:
            self._left -= 1
            if self._left == 0:
                self._outage.begin()


async def ask(gateway: Gateway, caller: Caller, level: int) -> Verdict | RequestFault:
    try:
        image = picture(level, 16)
        job = gateway.take(Inquiry(caller, (image,), gateway.wish(caller), f"{level:064}"))
        (answer,) = await gateway.answers(job)
    except RequestFault as fault:
        return fault
    return answer


def gateway_over(store: LedgerStore) -> tuple[Gateway, ScriptedBackend]:
    backend = ScriptedBackend(DOG, batch_size=FEWEST // 2, concurrency=1)
    settings = GatewaySettings(deadline_s=20.0)
    return make_gateway(settings, BaseClassifier(backend, Identity(), sigma=0.25), SMOOTHING, store), backend


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("kind", "moment"), [("locked", "checkout"), ("cut", "checkout"), ("acknowledged by nobody", "commit")]
)
@pytest.mark.timeout(180)
def test_after_an_outage_at_any_transaction_a_request_is_answered_and_paid_for_once(
    kind: str, moment: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    first_answers: list[str] = []

    async def work(outage: Outage, settings: StoreSettings) -> None:
        async with await GatewayStore.open(outage.address, secret_key=MASTER, settings=settings) as inner:
            key, token = await inner.create_key("ann", "native")
            store = LedgerStore(inner)
            caller = await store.check_token("native", token)
            assert caller is not None
            gateway, backend = gateway_over(store)
            countdown = Countdown(inner, outage, moment)
            await inner.heartbeat()  # which every replica does before its first request, and which counts
            for transactions in range(1, 100):
                countdown.start(transactions)
                first = await ask(gateway, caller, transactions)
                struck = countdown.struck
                countdown.stop()
                if not struck:
                    assert isinstance(first, Verdict)
                    break
                outage.end()
                again = await ask(gateway, caller, transactions)
                assert isinstance(again, Verdict), (transactions, first, again)
                assert backend.asked == FEWEST * transactions, "what was paid for is not paid for again"
                if isinstance(first, Verdict):
                    assert again == first
                else:
                    assert first.fault is Fault.UNAVAILABLE
                first_answers.append(type(first).__name__)
                await inner.heartbeat()
                assert not inner.owes
                assert await inner.spend(key.id, "total") == Spend(calls=backend.asked), transactions
            await gateway.close()

    # A locked file is waited for; a connection that was cut is given up at once.
    settings = StoreSettings(timeout_s=0.05) if kind == "locked" else StoreSettings()
    with outage_of(kind, request, tmp_path) as outage:
        anyio.run(work, outage, settings)
    assert len(first_answers) > 8
    assert {"Verdict", "RequestFault"} == set(first_answers)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("kind", "moment"), [("locked", "checkout"), ("cut", "checkout"), ("acknowledged by nobody", "commit")]
)
@pytest.mark.timeout(180)
def test_after_an_outage_at_any_transaction_a_request_was_passed_on_once(
    kind: str, moment: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    gateway_settings = GatewaySettings.model_validate({"deadline_s": 20.0, "passthrough": {"enabled": True}})
    replayed: list[bool] = []

    async def work(outage: Outage, settings: StoreSettings, upstream: Upstream) -> None:
        backend = azure(upstream)
        async with await GatewayStore.open(outage.address, secret_key=MASTER, settings=settings) as inner:
            key, token = await inner.create_key("ann", "azure")
            store = LedgerStore(inner)
            caller = await store.check_token("azure", token)
            assert caller is not None
            passage = Passage(gateway_settings, backend, store, Metrics(), SystemClock())
            countdown = Countdown(inner, outage, moment)
            await inner.heartbeat()
            for transactions in range(1, 100):
                request = HttpRequest("POST", DESCRIBE, {"content-type": "image/png"}, picture(transactions))
                errand = errand_of("azure", request)
                countdown.start(transactions)
                with suppress(RequestFault):
                    await passage.carry(caller, errand, "a name")
                struck = countdown.struck
                countdown.stop()
                if not struck:
                    break
                outage.end()
                replayed.append((await passage.carry(caller, errand, "a name")).replayed)
                assert len(upstream.asked) == transactions
                await inner.heartbeat()
                assert await inner.spend(key.id, "total") == Spend(calls=transactions, usd=0.001 * transactions)
        await backend.aclose()

    settings = StoreSettings(timeout_s=0.05) if kind == "locked" else StoreSettings()
    with outage_of(kind, request, tmp_path) as outage, http_upstream() as upstream:
        upstream.answer = (200, {"description": {}})
        anyio.run(work, outage, settings, upstream)
    assert set(replayed) == {False, True}


@pytest.mark.usefixtures("quick")
def test_what_is_owed_is_written_without_anybody_asking(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("smoothing_proxy.gateway.ledger_store.AGAIN_S", 0.02)
    outage = LockedFile(str(tmp_path / "gateway.db"))
    settings = StoreSettings(timeout_s=0.05, lease_s=100_000.0)

    async def work() -> None:
        async with await GatewayStore.open(outage.address, secret_key=MASTER, settings=settings) as inner:
            key, _ = await inner.create_key("ann", "native")
            store = LedgerStore(inner)
            reservation = await store.reserve(key.id, 10, 0.0)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(store.tend)
                await anyio.wait_all_tasks_blocked()
                outage.begin()
                await store.settle(reservation, Cost())
                assert inner.owes
                outage.end()
                with anyio.fail_after(60):
                    while inner.owes:  # noqa: ASYNC110 (it says when it owes something, not when it no longer does)
                        await anyio.sleep(0.01)
                tasks.cancel_scope.cancel()
            assert await inner.spend(key.id, "total") == Spend()

    anyio.run(work)
