"""Each fault as a client sees it, and what the till says about it."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest

from smoothing_proxy.backends.scripted import ScriptedBackend
from smoothing_proxy.errors import ConfigError
from smoothing_proxy.settings_file import parse_settings
from smoothing_proxy.simulator.faults import Fate, Faults
from tests.simulator.asking import Bench, Seen, bench, by_level, run
from tests.simulator.plain_wire import AUTHORIZATION, body, picture


def asked_once(**faults: Any) -> tuple[Seen, dict[str, Any]]:
    """One request under these faults: what its client saw, and the till."""

    async def work() -> tuple[Seen, dict[str, Any]]:
        async with bench(**faults) as there:
            seen = await there.ask(wait_s=0.3 if "hang" in faults else 5.0)
            return seen, await there.settled()

    return run(work)


@pytest.mark.parametrize(
    ("faults", "what", "status", "outcome", "billed"),
    [
        ({}, "reply", 200, "answered", 1),
        ({"throttle": 1.0}, "reply", 429, "throttled", 0),
        ({"unavailable": 1.0}, "reply", 503, "unavailable", 0),
        ({"internal": 1.0}, "reply", 500, "internal error", 0),
        ({"internal": 1.0, "error_billed": 1.0}, "reply", 500, "internal error", 1),
        ({"timeout": 1.0}, "reply", 504, "timeout", 0),
        ({"timeout": 1.0, "error_billed": 1.0}, "reply", 504, "timeout", 1),
        ({"hang": 1.0}, "timeout", 0, "hang", 1),
        ({"reset_before": 1.0}, "reset", 0, "reset before the body was read", 0),
        ({"reset_after": 1.0}, "reset", 0, "reset after the body was read", 1),
        ({"cut_off": 1.0}, "cut off", 0, "cut off", 1),
        ({"malformed": 1.0}, "reply", 200, "malformed", 1),
        ({"blank": 1.0}, "reply", 200, "blank", 1),
        ({"empty": 1.0}, "reply", 200, "empty", 1),
        ({"bad_auth_after": 0}, "reply", 401, "unauthenticated", 0),
        ({"quota_pictures": 0}, "reply", 402, "quota exceeded", 0),
        ({"picture_internal": 1.0}, "reply", 200, "answered", 0),
        ({"picture_internal": 1.0, "error_billed": 1.0}, "reply", 200, "answered", 1),
    ],
)
def test_a_fault_is_seen_by_the_client_and_stands_in_the_till(
    faults: dict[str, float], what: str, status: int, outcome: str, billed: int
) -> None:
    seen, till = asked_once(**faults)
    assert (seen.what, seen.status) == (what, status)
    assert till["outcomes"] == {outcome: 1}
    assert (till["requests"], till["billed"]) == (1, billed)


@pytest.mark.parametrize(
    ("faults", "reply"),
    [
        ({}, {"answers": [{"labels": [["cat", 1.0]]}], "version": "v1"}),
        ({"empty": 1.0}, {"answers": [{"labels": []}], "version": "v1"}),
        ({"picture_internal": 1.0}, {"answers": [{"error": "internal error"}], "version": ""}),
        ({"model_version": "v7"}, {"answers": [{"labels": [["cat", 1.0]]}], "version": "v7"}),
    ],
)
def test_what_an_answer_says(faults: dict[str, Any], reply: dict[str, Any]) -> None:
    assert json.loads(asked_once(**faults)[0].body) == reply


def test_only_answers_that_reached_a_client_whole_are_in_the_till_as_answered() -> None:
    answered = {
        fault: asked_once(**{fault: 1.0})[1]["answered"] for fault in ("empty", "hang", "cut_off", "malformed")
    }
    assert answered == {"empty": 1, "hang": 0, "cut_off": 0, "malformed": 0}


def test_malformed_replies_are_no_json_half_of_it_or_of_wrong_types() -> None:
    async def bodies() -> set[bytes]:
        async with bench(malformed=1.0) as there:
            return {(await there.ask()).body for _ in range(30)}

    whole = b'{"answers": [{"labels": [["cat", 1.0]]}], "version": "v1"}'
    assert run(bodies) == {
        b"<html><body>Bad gateway</body></html>",
        whole[: len(whole) // 2],
        b'{"answers": 7, "version": 7}',
    }


def test_a_throttle_says_how_long_to_wait() -> None:
    seen, _ = asked_once(throttle=1.0, retry_after_s=2.5)
    assert seen.headers is not None
    assert seen.headers["retry-after"] == "2.5"


def test_a_burst_is_taken_and_then_requests_are_throttled() -> None:
    async def statuses() -> list[int]:
        async with bench(requests_per_s=0.001, burst=3) as there:
            return [(await there.ask()).status for _ in range(5)]

    assert run(statuses) == [200, 200, 200, 429, 429]


@pytest.mark.parametrize(
    ("faults", "statuses"),
    [({"bad_auth_after": 2}, [200, 200, 401, 401]), ({"quota_pictures": 5}, [200, 200, 402, 402])],
)
def test_keys_and_quotas_end_after_so_many(faults: dict[str, Any], statuses: list[int]) -> None:
    async def asked() -> list[int]:
        async with bench(**faults) as there:
            return [(await there.ask(body(picture(), picture(2)))).status for _ in range(4)]

    assert run(asked) == statuses


def test_the_model_version_changes_after_so_many_requests() -> None:
    async def versions() -> list[str]:
        async with bench(model_version="v1", next_model_version="v2", model_changes_after=2) as there:
            return [json.loads((await there.ask()).body)["version"] for _ in range(4)]

    assert run(versions) == ["v1", "v1", "v2", "v2"]


def test_latency_can_depend_on_the_label() -> None:
    async def order() -> list[str]:
        backend = ScriptedBackend(by_level)
        async with bench(backend, latency_by_label_s={"dark": 0.3}) as there:
            asked = [asyncio.ensure_future(there.ask(body(picture(level)))) for level in (10, 200)]
            return [
                json.loads((await done).body)["answers"][0]["labels"][0][0] for done in asyncio.as_completed(asked)
            ]

    assert run(order) == ["light", "dark"]


@pytest.mark.parametrize(
    "faults",
    [
        {"latency_s": 0.1},
        {"latency_s": 0.1, "latency_spread_s": 0.05},
        {"latency_median_s": 0.1},
        {"latency_by_label_s": {"cat": 0.1}},
        {"internal": 1.0, "latency_s": 0.1},
    ],
)
def test_latency_is_spent(faults: dict[str, Any]) -> None:
    started = time.monotonic()
    asked_once(**faults)
    assert time.monotonic() - started >= 0.1


def test_faults_are_switched_while_it_runs_and_counts_begin_anew() -> None:
    async def statuses() -> list[int]:
        async with bench(bad_auth_after=1) as there:
            seen = [(await there.ask()).status for _ in range(2)]
            assert await there.switch(unavailable=1.0) == 200
            seen.append((await there.ask()).status)
            assert await there.switch() == 200
            return [*seen, (await there.ask()).status]

    assert run(statuses) == [200, 401, 503, 200]


def test_the_faults_in_force_are_told() -> None:
    async def told() -> dict[str, Any]:
        async with bench(hang=0.25) as there:
            assert await there.switch(throttle=0.5, latency_by_label_s={"cat": 1.5}) == 200
            async with there.client.get(f"{there.address.url}/_simulator/faults") as reply:
                return dict(await reply.json())

    assert run(told) == Faults(throttle=0.5, latency_by_label_s={"cat": 1.5}).model_dump(mode="json")


@pytest.mark.parametrize(
    ("sent", "complaint"),
    [
        (b'{"throtle": 0.5}', "did you mean 'throttle'?"),
        (b'{"throttle": 1.5}', "less than or equal to 1"),
        (b'{"throttle": 0.6, "hang": 0.6}', "add up to more than 1"),
        (b"[1]", "a JSON object is expected"),
        (b"{", "not JSON"),
    ],
)
def test_faults_that_make_no_sense_are_refused_and_nothing_changes(sent: bytes, complaint: str) -> None:
    async def refused() -> tuple[int, str, int]:
        async with bench() as there:
            async with there.client.post(f"{there.address.url}/_simulator/faults", data=sent) as reply:
                status, said = reply.status, (await reply.json())["error"]
            return status, said, (await there.ask()).status

    status, said, after = run(refused)
    assert (status, after) == (400, 200)
    assert complaint in said


def test_rates_above_one_are_no_settings() -> None:
    with pytest.raises(ConfigError, match="add up to more than 1"):
        parse_settings(Faults, {"throttle": 0.7, "hang": 0.4}, source="faults.toml")


def test_the_same_seed_gives_the_same_faults() -> None:
    async def outcomes(seed: int) -> list[tuple[str, int]]:
        async with bench(seed=seed, throttle=0.3, reset_before=0.2, unavailable=0.2) as there:
            seen = [await there.ask() for _ in range(30)]
            return [(one.what, one.status) for one in seen]

    first = run(lambda: outcomes(5))
    assert first == run(lambda: outcomes(5))
    assert first != run(lambda: outcomes(6))
    assert {("reset", 0), ("reply", 200), ("reply", 429), ("reply", 503)} == set(first)


EVERY_RATE: dict[str, Any] = {
    "throttle": 0.1,
    "unavailable": 0.1,
    "internal": 0.1,
    "timeout": 0.05,
    "hang": 0.05,
    "reset_before": 0.1,
    "reset_after": 0.1,
    "cut_off": 0.05,
    "malformed": 0.05,
    "blank": 0.05,
    "empty": 0.05,
}
BILLED = (Fate.ANSWERED, Fate.HANG, Fate.RESET_AFTER, Fate.CUT_OFF, Fate.MALFORMED, Fate.BLANK, Fate.EMPTY)


def test_under_all_faults_at_once_the_till_is_what_the_clients_saw() -> None:
    requests = 200

    async def ask_all(there: Bench) -> list[Seen]:
        gate = asyncio.Semaphore(20)

        async def one(number: int) -> Seen:
            async with gate:
                return await there.ask(body(picture(number)), wait_s=5.0)

        return await asyncio.gather(*(one(number) for number in range(requests)))

    async def work() -> tuple[list[Seen], dict[str, Any]]:
        async with bench(**EVERY_RATE, error_billed=0.5, seed=3) as there:
            seen = await ask_all(there)
            return seen, await there.until(lambda till: sum(till["outcomes"].values()) == requests)

    seen, till = run(work)
    outcomes = till["outcomes"]
    assert till["requests"] == sum(outcomes.values()) == requests
    assert set(outcomes) == {fate.value for fate in Fate}
    assert sum(one.what == "reset" for one in seen) == outcomes[Fate.RESET_BEFORE] + outcomes[Fate.RESET_AFTER]
    assert sum(one.what == "timeout" for one in seen) == outcomes[Fate.HANG]
    assert sum(one.what == "cut off" for one in seen) == outcomes[Fate.CUT_OFF]
    assert sum(one.status == 429 for one in seen) == outcomes[Fate.THROTTLED] == till["throttled"]
    assert sum(one.status == 200 for one in seen) == sum(
        outcomes[fate] for fate in (Fate.ANSWERED, Fate.EMPTY, Fate.BLANK, Fate.MALFORMED)
    )
    assert till["answered"] == outcomes[Fate.ANSWERED] + outcomes[Fate.EMPTY]
    sure = sum(outcomes[fate] for fate in BILLED)
    errors = outcomes[Fate.INTERNAL] + outcomes[Fate.TIMEOUT]
    assert sure < till["billed"] < sure + errors
    assert till["billed"] == sum(tally["billed"] for tally in till["pictures"].values())


def test_a_picture_that_is_sent_again_after_its_answer_is_told() -> None:
    async def work() -> dict[str, Any]:
        async with bench() as there:
            await there.switch(unavailable=1.0)
            await there.ask(body(picture(1)))
            await there.switch()
            for level in (1, 1, 2):
                await there.ask(body(picture(level)))
            return await there.till()

    till = run(work)
    assert (till["distinct"], till["sent_again"], till["billed"]) == (2, 1, 3)
    assert sorted(tuple(tally.values()) for tally in till["pictures"].values()) == [(1, 1, 1), (3, 2, 2)]


def test_work_is_billed_though_its_client_left() -> None:
    async def work() -> dict[str, Any]:
        async with bench(latency_s=1.0) as there:
            assert (await there.ask(wait_s=0.5)).what == "timeout"
            return await there.settled()

    till = run(work)
    assert (till["billed"], till["answered"], till["outcomes"]) == (1, 0, {"answered": 1})


def test_an_http_error_code_survives_an_unknown_key() -> None:
    async def work() -> Seen:
        async with bench(malformed=1.0) as there:
            return await there.ask(headers={**AUTHORIZATION, "authorization": "Plain nobody nothing"})

    assert run(work).status == 401
