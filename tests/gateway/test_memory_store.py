"""The store of one process keeps its promises."""

from __future__ import annotations

import anyio
import pytest

from smoothing_proxy.errors import BackendTimeoutError, BudgetExceededError, ModelChangedError
from smoothing_proxy.gateway.memory_store import MemoryKey, MemoryStore
from smoothing_proxy.gateway.ports import Caller
from smoothing_proxy.smoothing.observe import Outcome
from smoothing_proxy.types import Cost, Reply, ScoredLabel
from smoothing_proxy.wire.base import RequestFault

ANSWER = Reply((ScoredLabel("cat", 0.9),), "v1")


class Hours:
    """A clock that is set by hand, in seconds."""

    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.time += seconds


def store(limit: int | None = 100, clock: Hours | None = None) -> MemoryStore:
    keys = [MemoryKey(Caller("key"), "secret", limit_queries=limit), MemoryKey(Caller("other"), "another")]
    return MemoryStore(lambda: keys, replay_s=60, cache_s=30, clock=clock or Hours(), most=5)


def test_promises_and_spendings_together_stay_within_the_limit() -> None:
    async def work() -> None:
        there = store(100)
        first = await there.reserve("key", 60, 0.0)
        with pytest.raises(BudgetExceededError, match="60 are spent or promised"):
            await there.reserve("key", 41, 0.0)
        second = await there.reserve("key", 40, 0.0)
        await there.settle(first, Cost(queries=10, unknown=2))
        await there.settle(first, Cost(queries=10, unknown=2))  # which changes nothing
        assert there.spent("key") == 12
        await there.reserve("key", 48, 0.0)
        with pytest.raises(BudgetExceededError):
            await there.reserve("key", 1, 0.0)
        await there.reserve("other", 10_000, 0.0)
        await there.settle(second, Cost())

    anyio.run(work)


def test_sends_beyond_the_promise_need_room_in_the_budget() -> None:
    async def work() -> None:
        there = store(10)
        begun = await there.begin("key", None, "body", "settings")
        journal = there.journal(begun.request_id, await there.reserve("key", 8, 0.0))
        await journal.sent(0, range(8))
        await journal.withdrawn(0, [0, 1])
        await journal.sent(0, [0, 1])
        await journal.withdrawn(0, [0, 1], maybe_billed=True)
        await journal.sent(0, [0, 1])
        with pytest.raises(BudgetExceededError):
            await journal.sent(0, [8])

    anyio.run(work)


def test_a_request_is_new_then_running_then_finished_and_then_forgotten() -> None:
    async def work() -> list[str]:
        clock = Hours()
        there = store(clock=clock)
        states: list[str] = []
        begun = await there.begin("key", "name", "body", "settings")
        states.append(begun.state)
        states.append((await there.begin("key", "name", "body", "settings")).state)
        await there.finish(begun.request_id, "{}", Cost())
        states.append((await there.begin("key", "name", "body", "settings")).state)
        states.append((await there.begin("other", "name", "body", "settings")).state)
        with pytest.raises(RequestFault, match="used before"):
            await there.begin("key", "name", "another body", "settings")
        clock.time = 61.0
        states.append((await there.begin("key", "name", "body", "settings")).state)
        return states

    assert anyio.run(work) == ["new", "running", "finished", "new", "new"]


@pytest.mark.parametrize(("error", "kept"), [(BackendTimeoutError("x"), {3: "cat"}), (ModelChangedError("x"), {})])
def test_a_request_that_failed_goes_on_with_its_draws(error: Exception, kept: dict[int, str]) -> None:
    async def work() -> None:
        there = store()
        begun = await there.begin("key", None, "body", "settings")
        first = await there.picture(begun.request_id, 0, "sha", b"a" * 16)
        journal = there.journal(begun.request_id, await there.reserve("key", 8, 0.0))
        await journal.sent(0, [3])
        await journal.settled(0, [Outcome(3, "cat", ANSWER)])
        await there.fail(begun.request_id, error)
        again = await there.begin("key", None, "body", "settings")
        second = await there.picture(again.request_id, 0, "sha", b"b" * 16)
        assert (again.state, again.request_id) == ("new", begun.request_id)
        assert second.recalled.votes == kept
        assert (second.entropy == first.entropy) == bool(kept)
        assert second.replies == ({3: ANSWER} if kept else {})

    anyio.run(work)


def test_verdicts_belong_to_their_key_and_the_oldest_go_first() -> None:
    async def work() -> None:
        clock = Hours()
        there = store(clock=clock)
        for number in range(6):
            await there.remember("key", f"sha{number}", "settings", "{}", verdict_id=str(number))
        assert await there.verdict("5", "key") == "{}"
        assert await there.verdict("5", "other") is None
        assert await there.verdict("0", "key") is None
        assert await there.cached("key", "sha5", "settings") == "{}"
        assert await there.cached("other", "sha5", "settings") is None
        clock.time = 31.0
        assert await there.cached("key", "sha5", "settings") is None

    anyio.run(work)


def test_secrets_stay_out_of_what_is_printed() -> None:
    assert "secret" not in repr(MemoryKey(Caller("key"), "secret")).replace("secret=", "")
