"""Who asks the same once more gets the same answer, and nobody pays for it twice."""

from __future__ import annotations

import threading
import traceback

import anyio
import numpy as np
import pytest
from sqlalchemy import text

from smoothing_proxy.backends.scripted import ScriptedBackend
from smoothing_proxy.denoisers.registry import denoiser
from smoothing_proxy.errors import BackendTimeoutError, LedgerError, ModelChangedError, QuotaExceededError
from smoothing_proxy.ledger.gateway.nouns import (
    Begun,
    Finished,
    Fresh,
    KeyTerms,
    RequestConflictError,
    Running,
    StoreSettings,
)
from smoothing_proxy.ledger.gateway.rates import KeyRates, TooManyRequestsError
from smoothing_proxy.smoothing.base_classifier import BaseClassifier
from smoothing_proxy.smoothing.observe import Outcome, Recalled
from smoothing_proxy.smoothing.picture import prepare
from smoothing_proxy.smoothing.plan import certify_plan
from smoothing_proxy.smoothing.sampler import Sampler
from smoothing_proxy.smoothing.settings import Smoothing
from smoothing_proxy.transport.settings import TransportSettings
from smoothing_proxy.types import Cost, Reply, ScoredLabel
from tests.ledger.gateway.stores import (
    BODY,
    CAT,
    ENTROPY,
    OTHER_BODY,
    OTHER_SETTINGS,
    PICTURE,
    SETTINGS,
    HandClock,
    answered,
    fresh,
    open_store,
    plain_engine,
)

pytestmark = pytest.mark.anyio

HOUR = 3_600.0
FAST = TransportSettings(requests_per_s=100_000)


async def test_a_request_is_fresh_then_running_then_finished(address: str) -> None:
    async with open_store(address) as here, open_store(address) as there:
        key, _ = await here.create_key("ann", "aws")
        request = await fresh(here, key.id, "an id")
        assert await there.begin(key.id, "an id", BODY, SETTINGS) == Running(request, here.replica)
        await here.finish(request, '{"label":"cat"}', Cost(100, 1, 0.1))
        assert await there.begin(key.id, "an id", BODY, SETTINGS) == Finished(request, '{"label":"cat"}')
        assert await there.verdict(request, key.id) == '{"label":"cat"}'


async def test_what_makes_two_requests_the_same(address: str) -> None:
    async with open_store(address) as store:
        ann, bob = [(await store.create_key(name, "aws"))[0].id for name in ("ann", "bob")]
        first = await fresh(store, ann, "an id")
        unnamed = await fresh(store, ann)
        same: list[Begun] = [
            await store.begin(ann, "an id", BODY, SETTINGS),
            await store.begin(ann, None, BODY, SETTINGS),
        ]
        assert [x.request_id for x in same] == [first, unnamed]
        others = [
            await store.begin(bob, "an id", BODY, SETTINGS),
            await store.begin(ann, "another id", BODY, SETTINGS),
            await store.begin(ann, None, BODY, OTHER_SETTINGS),
            await store.begin(ann, None, OTHER_BODY, SETTINGS),
        ]
        assert all(isinstance(x, Fresh) for x in others)
        assert len({x.request_id for x in others} | {first, unnamed}) == 6


@pytest.mark.parametrize(
    ("body", "settings", "said"),
    [(OTHER_BODY, SETTINGS, "another body"), (BODY, OTHER_SETTINGS, "other settings")],
)
async def test_an_id_that_asks_something_else_is_a_conflict(
    address: str, body: str, settings: str, said: str
) -> None:
    async with open_store(address) as store:
        key, _ = await store.create_key("ann", "aws")
        request = await fresh(store, key.id, "an id")
        for _ in ("running", "finished"):
            with pytest.raises(RequestConflictError, match=said):
                await store.begin(key.id, "an id", body, settings)
            if _ == "running":
                await store.finish(request, "{}", Cost())


def test_of_many_who_ask_at_the_same_time_one_is_to_do_it(address: str) -> None:
    found: list[Begun] = []
    barrier = threading.Barrier(3)

    async def make_key() -> str:
        async with open_store(address) as store:
            return (await store.create_key("ann", "aws"))[0].id

    key_id = anyio.run(make_key)

    async def replica() -> None:
        async def ask() -> None:
            found.append(await store.begin(key_id, "an id", BODY, SETTINGS))

        async with open_store(address) as store:
            await anyio.to_thread.run_sync(barrier.wait, 30)
            async with anyio.create_task_group() as tasks:
                for _ in range(5):
                    tasks.start_soon(ask)

    threads = [threading.Thread(target=anyio.run, args=[replica]) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 15
    assert sum(isinstance(x, Fresh) for x in found) == 1
    assert len({x.request_id for x in found}) == 1


async def test_a_failed_request_goes_on_with_the_draws_that_were_paid_for(address: str) -> None:
    async with open_store(address) as store:
        key, _ = await store.create_key("ann", "aws")
        request = await fresh(store, key.id)
        assert (await store.picture(request, 0, PICTURE, ENTROPY)).recalled == Recalled()
        reservation = await store.reserve(key.id, 10, 0.0)
        journal = store.journal(request, reservation)
        await journal.sent(0, [0, 1, 2, 3])
        nothing = Outcome(1, None, error=BackendTimeoutError("60 s"))
        await journal.settled(0, [answered(0), nothing])
        await journal.withdrawn(0, [2])
        await store.fail(request, QuotaExceededError("the month's quota\0 is used up \ud800"))
        await store.settle(reservation)

        assert await store.begin(key.id, None, BODY, SETTINGS) == Fresh(request, attempt=2)
        picture = await store.picture(request, 0, PICTURE, bytes(16))
        assert picture.entropy == ENTROPY
        assert picture.recalled == Recalled({0: "cat", 1: None}, Cost(1, 2), frozenset({"3.0"}))
        assert picture.replies == {0: CAT}
        again = await store.reserve(key.id, 10, 0.0)
        await store.journal(request, again).sent(0, [2, 3])
        await store.journal(request, again).settled(0, [answered(2), answered(3)])
        picture = await store.picture(request, 0, PICTURE, bytes(16))
        assert picture.recalled == Recalled(
            {0: "cat", 1: None, 2: "cat", 3: "cat"}, Cost(3, 2), frozenset({"3.0"})
        )
        with pytest.raises(LedgerError, match="not in the state"):
            await store.journal(request, again).sent(0, [0])
        assert (await store.settle(again)) == Cost(2, 0)
        with pytest.raises(LedgerError, match="not the one that it was"):
            await store.picture(request, 0, "0" * 64, ENTROPY)


@pytest.mark.parametrize(
    ("error", "settings_sha256", "later_s"),
    [
        (ModelChangedError("it changed"), SETTINGS, 0),
        ("stopped", OTHER_SETTINGS, 0),
        ("stopped", SETTINGS, 25 * HOUR),
    ],
    ids=["the classifier changed", "other settings", "a day later"],
)
async def test_paid_draws_that_answer_another_question_are_not_used(
    address: str, clock: HandClock, error: Exception | str, settings_sha256: str, later_s: float
) -> None:
    async with open_store(address, clock) as store:
        key, _ = await store.create_key("ann", "aws")
        request = await fresh(store, key.id, "an id")
        await store.fail(request, error)
        clock.time += later_s
        begun = await store.begin(key.id, "an id", BODY, settings_sha256)
        assert isinstance(begun, Fresh)
        assert begun.request_id != request


async def test_an_answer_is_replayed_for_as_long_as_is_set_and_kept_longer(address: str, clock: HandClock) -> None:
    common = StoreSettings(replay_s=HOUR, keep_s=24 * HOUR)
    async with open_store(address, clock, common) as store:
        key, _ = await store.create_key("ann", "aws")
        request = await fresh(store, key.id, "an id")
        await store.finish(request, "{}", Cost())
        clock.time += HOUR - 1
        assert isinstance(await store.begin(key.id, "an id", BODY, SETTINGS), Finished)
        clock.time += 2
        assert isinstance(await store.begin(key.id, "an id", OTHER_BODY, SETTINGS), Fresh)
        assert await store.verdict(request, key.id) == "{}"


async def test_a_verdict_is_for_its_own_key(address: str) -> None:
    async with open_store(address) as store:
        ann, bob = [(await store.create_key(name, "aws"))[0].id for name in ("ann", "bob")]
        request = await fresh(store, ann)
        assert await store.verdict(request, ann) is None
        await store.finish(request, '{"label":"cat"}', Cost())
        kept = await store.remember(ann, PICTURE, SETTINGS, '{"label":"dog"}', verdict_id="verdict-1")
        assert kept == "verdict-1"
        for verdict_id, expected in ((request, '{"label":"cat"}'), (kept, '{"label":"dog"}'), ("?\0", None)):
            assert await store.verdict(verdict_id, ann) == expected
            assert await store.verdict(verdict_id, bob) is None


async def test_a_verdict_that_keys_share_is_for_whoever_was_told_its_id(address: str) -> None:
    async with open_store(address, settings=StoreSettings(cache_s=HOUR, cache_shared=True)) as store:
        ann, bob = [(await store.create_key(name, "aws"))[0].id for name in ("ann", "bob")]
        request = await fresh(store, ann)
        await store.finish(request, '{"label":"cat"}', Cost())
        kept = await store.remember(ann, PICTURE, SETTINGS, '{"label":"dog"}')
        assert await store.verdict(kept, bob) == await store.cached(bob, PICTURE, SETTINGS) == '{"label":"dog"}'
        assert await store.verdict(request, bob) is None, "a whole request stays its own key's"


@pytest.mark.parametrize("shared", [False, True])
async def test_a_remembered_verdict_answers_until_it_expires(address: str, clock: HandClock, shared: bool) -> None:
    common = StoreSettings(cache_s=HOUR, cache_shared=shared)
    async with open_store(address, clock, common) as store:
        ann, bob = [(await store.create_key(name, "aws"))[0].id for name in ("ann", "bob")]
        await store.remember(ann, PICTURE, SETTINGS, '"old"')
        clock.time += 1
        await store.remember(ann, PICTURE, SETTINGS, '"new"')
        assert await store.cached(ann, PICTURE, SETTINGS) == '"new"'
        assert await store.cached(bob, PICTURE, SETTINGS) == ('"new"' if shared else None)
        assert await store.cached(ann, PICTURE, OTHER_SETTINGS) is None
        assert await store.cached(ann, "0" * 64, SETTINGS) is None
        clock.time += HOUR
        assert await store.cached(ann, PICTURE, SETTINGS) is None


async def test_without_a_time_to_live_no_verdict_answers_another_request(address: str) -> None:
    async with open_store(address) as store:
        key, _ = await store.create_key("ann", "aws")
        await store.remember(key.id, PICTURE, SETTINGS, "{}")
        assert await store.cached(key.id, PICTURE, SETTINGS) is None


async def test_a_purge_forgets_what_is_old_and_nothing_else(address: str, clock: HandClock) -> None:
    async with open_store(address, clock, StoreSettings(keep_s=48 * HOUR)) as store:
        key, _ = await store.create_key("ann", "aws", KeyTerms(calls_limit=3, period="total"))
        old, running = await fresh(store, key.id, "old"), await fresh(store, key.id, "running")
        reservation = await store.reserve(key.id, 1, 0.0)
        await store.picture(old, 0, PICTURE, ENTROPY)
        await store.journal(old, reservation).sent(0, [0])
        await store.journal(old, reservation).settled(0, [answered(0)])
        await store.settle(reservation)
        await store.finish(old, "{}", Cost(1))
        still_open = await store.reserve(key.id, 1, 0.0)
        await store.remember(key.id, PICTURE, SETTINGS, "{}", verdict_id="old verdict")
        assert await store.purge(clock()) == 0
        clock.time += 49 * HOUR
        await store.heartbeat()
        young = await fresh(store, key.id, "young")
        await store.finish(young, "{}", Cost())
        assert await store.purge(clock()) == 1
        assert (await store.verdict(old, key.id), await store.verdict("old verdict", key.id)) == (None, None)
        assert await store.verdict(young, key.id) == "{}"
        assert isinstance(await store.begin(key.id, "running", BODY, SETTINGS), Running)
        assert (await store.spend(key.id, "total")).calls == 1, "what was spent is never forgotten"
        assert await store.settle(still_open) == Cost()
        await store.finish(running, "{}", Cost())
    left = {name: _count(address, name) for name in ("draws", "pictures", "verdicts", "requests", "reservations")}
    assert left == {"draws": 0, "pictures": 0, "verdicts": 0, "requests": 2, "reservations": 1}


def _count(address: str, table: str) -> int:
    with plain_engine(address).connect() as connection:
        return int(connection.execute(text(f"SELECT count(*) FROM gateway_{table}")).scalar_one())


async def test_many_requests_write_their_draws_at_the_same_time(address: str) -> None:
    async with open_store(address) as store:
        key, _ = await store.create_key("ann", "aws")

        async def ask(number: int) -> None:
            reservation = await store.reserve(key.id, 40, 0.0)
            journal = store.journal(await fresh(store, key.id, f"id {number}"), reservation)
            for draw in range(0, 40, 4):
                draws = list(range(draw, draw + 4))
                await journal.sent(number, draws)
                await journal.settled(number, [answered(x) for x in draws])
            assert await store.settle(reservation) == Cost(40)

        async with anyio.create_task_group() as tasks:
            for number in range(15):
                tasks.start_soon(ask, number)
        spend = await store.spend(key.id, "day")
    assert (spend.calls, spend.unknown, spend.held) == (600, 0, 0)


async def test_a_draw_keeps_what_was_answered_whatever_its_letters(address: str) -> None:
    odd = Reply((ScoredLabel("c\0at\ud800", 1.0),), model_version="3\0")
    async with open_store(address) as store:
        key, _ = await store.create_key("ann", "aws")
        request = await fresh(store, key.id)
        journal = store.journal(request, await store.reserve(key.id, 2, 0.0))
        await journal.sent(0, [0, 1])
        await journal.settled(0, [Outcome(0, "c\0at\ud800", reply=odd), Outcome(1, "cat", reply=CAT)])
        await store.picture(request, 0, PICTURE, ENTROPY)
        recalled = (await store.picture(request, 0, PICTURE, ENTROPY)).recalled
    assert recalled.votes == {0: "c\\x00at\\ud800", 1: "cat"}


async def test_an_error_of_the_database_does_not_quote_the_entropy(address: str) -> None:
    entropy = bytes(range(ord("a"), ord("q")))
    async with open_store(address) as store:
        with plain_engine(address).begin() as connection:
            connection.execute(text("DROP TABLE gateway_pictures"))
        await store.check()
        with pytest.raises(LedgerError) as raised:
            await store.picture("x" * 32, 0, PICTURE, entropy)
    said = "".join(traceback.format_exception(raised.value))
    assert "INSERT INTO gateway_pictures" in said
    assert "abcdefghijklmnop" not in said
    assert PICTURE not in said


async def test_a_sampler_that_stops_in_the_middle_is_taken_up_with_the_same_certificate(address: str) -> None:
    """The real sampler: a first attempt ends by a quota, a second one asks only what is left."""
    smoothing = Smoothing(sigma=0.25, n0=20, n=80, alpha=0.01)
    image = np.full((8, 8, 3), 130, np.uint8)

    def sampler(backend: ScriptedBackend) -> BaseClassifier:
        return BaseClassifier(backend, denoiser("identity"), sigma=smoothing.sigma)

    def label(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> str:
        return "light" if pixels.mean() > 130 else "dark"

    broke = ScriptedBackend(label, remote=True, failures={60: QuotaExceededError("no more this month")})
    going = ScriptedBackend(label, remote=True)
    whole = ScriptedBackend(label, remote=True)
    async with open_store(address) as store:
        key, _ = await store.create_key("ann", "aws")
        certificates = []
        for backend in (broke, going):
            request = await fresh(store, key.id)
            kept = await store.picture(request, 0, PICTURE, ENTROPY if backend is broke else bytes(16))
            picture = prepare(image, smoothing.working_size, entropy=kept.entropy)
            reservation = await store.reserve(key.id, 100 - len(kept.recalled.votes), 0.001)
            journal = store.journal(request, reservation)
            try:
                run = Sampler(sampler(backend), transport=FAST, journal=journal)
                certificate, cost = await run.run(picture, certify_plan(smoothing), kept.recalled)
            except QuotaExceededError as error:
                await store.fail(request, error)
            else:
                certificates.append(certificate)
                await store.finish(request, "{}", cost)
            finally:
                await store.settle(reservation, Cost(1_000, 1_000))
        spend = await store.spend(key.id, "day")
    alone = prepare(image, smoothing.working_size, entropy=ENTROPY)
    uninterrupted, _ = await Sampler(sampler(whole), transport=FAST).run(
        alone, certify_plan(smoothing), Recalled()
    )
    assert certificates == [uninterrupted]
    assert spend.calls == cost.queries == 100
    assert broke.asked + going.asked == 100 + 1, "the quota's own refusal is asked once more"
    assert spend.unknown == cost.unknown == 0


async def test_a_key_asks_as_fast_and_as_much_at_once_as_it_may(address: str, clock: HandClock) -> None:
    async with open_store(address) as store:
        slow, _ = await store.create_key("ann", "aws", KeyTerms(requests_per_minute=3))
        single, _ = await store.create_key("bob", "aws", KeyTerms(parallel=1))
        free, _ = await store.create_key("cyd", "aws")
    rates = KeyRates(clock)
    for _ in range(3):
        with rates.admitted(slow):
            pass
    with pytest.raises(TooManyRequestsError) as refused, rates.admitted(slow):
        pytest.fail("the fourth in a minute")
    assert refused.value.retry_after_s == pytest.approx(20)
    clock.time += refused.value.retry_after_s + 0.001
    with rates.admitted(slow):
        pass
    with rates.admitted(single), pytest.raises(TooManyRequestsError), rates.admitted(single):
        pytest.fail("the second at once")
    with rates.admitted(single), rates.admitted(free), rates.admitted(free):
        pass
