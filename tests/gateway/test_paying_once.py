"""Never paying twice: clients that ask again, leave, or ask for too much."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from smoothing_proxy.backends.scripted import ScriptedBackend
from smoothing_proxy.errors import BackendTimeoutError
from smoothing_proxy.smoothing.settings import Smoothing
from smoothing_proxy.transport.settings import TransportSettings
from smoothing_proxy.types import Reply, ScoredLabel
from tests.gateway import sdks
from tests.gateway.gateways import DOG, KEY_ID, POOR, SECRET, There, by_level, picture, serving

FEWEST = 12
"""Copies that PREDICT needs at alpha = 0.001 when all agree."""


def slow(latency_s: float = 0.1) -> ScriptedBackend:
    """About FEWEST times `latency_s` for one prediction."""
    return ScriptedBackend(DOG, concurrency=1, latency_s=latency_s)


def until(reached: Callable[[], bool], within_s: float = 10.0) -> None:
    deadline = time.monotonic() + within_s
    while not reached():
        assert time.monotonic() < deadline, "it did not come to this"
        time.sleep(0.02)


def ask_alone(there: There) -> httpx.Response:
    """With a client of its own, which outlives the gateway."""
    headers = {"x-api-key": SECRET, "content-type": "image/png"}
    return httpx.post(f"{there.url}/v1/predict", content=picture(), headers=headers, timeout=20)


def counted(there: There, name: str, **labels: str) -> float:
    return there.gateway.metrics.registry.get_sample_value(name, labels) or 0.0


def test_boto3s_own_retries_of_a_slow_request_cost_one_fan_out() -> None:
    with (
        serving(slow(0.07), verdict_ttl_s=0) as there,
        sdks.rekognition(
            there, read_timeout=0.5, retries={"total_max_attempts": 12, "mode": "standard"}
        ) as client,
    ):
        reply = client.detect_labels(Image={"Bytes": picture()})
        assert reply["ResponseMetadata"]["RetryAttempts"] > 0
        assert [label["Name"] for label in reply["Labels"]] == ["Dog", "Pet"]
        assert there.backend.asked == there.store.spent(KEY_ID) == FEWEST


def test_a_client_that_leaves_gets_its_answer_when_it_comes_back() -> None:
    with serving(slow(0.03), verdict_ttl_s=0) as there:
        for spent, name in ((FEWEST, "first"), (2 * FEWEST, "second")):
            headers = {"idempotency-key": name}
            with pytest.raises(httpx.ReadTimeout):
                there.ask(headers=headers, timeout=0.15)
            until(lambda: there.backend.asked == spent and len(there.gateway.jobs) == 0)  # noqa: B023
            again = there.ask(headers=headers)
            assert (again.status_code, again.headers["x-smoothing-replayed"]) == (200, "true")
            assert there.backend.asked == spent
    assert there.backend.asked == 2 * FEWEST


def test_the_same_question_at_the_same_time_is_asked_once() -> None:
    with serving(slow(0.02), verdict_ttl_s=0) as there, ThreadPoolExecutor(4) as pool:
        replies = list(pool.map(lambda _: there.ask().json(), range(4)))
    assert len({reply["id"] for reply in replies}) == 1
    assert there.backend.asked == FEWEST


def test_a_verdict_is_remembered_for_the_same_picture_and_settings() -> None:
    with serving() as there:
        first = there.ask(headers={"idempotency-key": "a"})
        second = there.ask(headers={"idempotency-key": "b"})
        certified = there.ask("/v1/certify", headers={"x-smoothing-target-radius": "0.25"})
    assert first.json() == second.json() != certified.json()
    told = [reply.headers["x-smoothing-replayed"] for reply in (first, second, certified)]
    assert told == ["false", "true", "false"]


def test_a_name_that_comes_again_with_another_picture_is_refused() -> None:
    with serving() as there:
        headers = {"idempotency-key": "mine"}
        assert there.ask(headers=headers).status_code == 200
        other = there.ask(image=picture(7), headers=headers)
    assert (other.status_code, other.json()["error"]["code"]) == (400, "bad_request")


def test_requests_share_batches_and_places_in_flight() -> None:
    backend = ScriptedBackend(by_level, batch_size=4, concurrency=2, latency_s=0.02)
    levels = (10, 240, 20, 230, 30, 220)
    with serving(backend) as there, ThreadPoolExecutor(6) as pool:
        labels = list(pool.map(lambda level: there.ask(image=picture(level)).json()["label"], levels))
    assert labels == ["dark", "light"] * 3  # each its own picture's
    assert backend.most_in_flight <= 2
    assert backend.asked >= 6 * FEWEST


def test_a_budget_is_promised_before_the_fan_out_and_refused_without_a_retry() -> None:
    with serving() as there:
        headers = {"authorization": f"Bearer {POOR}"}
        assert there.ask(headers=headers).status_code == 200
        spent = there.backend.asked
        refused = there.ask(image=picture(3), headers=headers)
        assert (refused.status_code, refused.json()["error"]["code"]) == (402, "quota")
        retries = {"total_max_attempts": 5, "mode": "standard"}
        with (
            sdks.rekognition(there, POOR, "POORKEY", retries=retries) as client,
            pytest.raises(client.exceptions.ServiceQuotaExceededException) as seen,
        ):
            client.detect_labels(Image={"Bytes": picture(4)})
        assert seen.value.response["ResponseMetadata"]["RetryAttempts"] == 0
        assert there.backend.asked == spent == there.store.spent("POORKEY")
        assert counted(there, "smoothing_queries_total", kind="settled") == spent
        assert counted(there, "smoothing_requests_total", vendor="aws", outcome="quota exceeded") == 1


def test_what_cannot_be_answered_in_time_is_refused_at_once() -> None:
    transport = TransportSettings(requests_per_s=2.0)
    retries = {"total_max_attempts": 5, "mode": "standard"}
    with (
        serving(ScriptedBackend(DOG), transport=transport, deadline_s=2.0) as there,
        sdks.rekognition(there, retries=retries) as client,
        pytest.raises(client.exceptions.ServiceQuotaExceededException, match="cannot be had within 2 s") as seen,
    ):
        client.detect_labels(Image={"Bytes": picture()})
    assert seen.value.response["ResponseMetadata"]["RetryAttempts"] == 0
    assert there.backend.asked == 0


def test_an_answer_that_is_late_is_there_for_who_asks_again() -> None:
    with serving(slow(0.05), deadline_s=0.3) as there:
        late = there.ask(headers={"idempotency-key": "late"})
        until(lambda: len(there.gateway.jobs) == 0)
        again = there.ask(headers={"idempotency-key": "late"})
    assert (late.status_code, late.json()["error"]["code"]) == (504, "timeout")
    assert (again.status_code, again.headers["x-smoothing-replayed"]) == (200, "true")
    assert there.backend.asked == FEWEST


def test_a_request_whose_copies_all_failed_is_not_paid_for_again() -> None:
    lost = {number: BackendTimeoutError("lost") for number in range(200)}
    backend = ScriptedBackend(DOG, failures=lost, remote=True)
    transport = TransportSettings(
        requests_per_s=1_000, circuit_failures=10_000, backoff_base_s=0.001, backoff_max_s=0.001
    )
    smoothing = Smoothing(sigma=0.25, max_queries=40)
    with serving(backend, smoothing=smoothing, transport=transport, verdict_ttl_s=0) as there:
        headers = {"idempotency-key": "mine"}
        first = there.ask(headers=headers)
        cost = there.backend.asked
        second = there.ask(headers=headers)
    assert (first.status_code, second.status_code) == (504, 500)
    assert there.backend.asked == cost  # every copy's fate is known
    assert there.store.spent(KEY_ID) == cost


def test_a_change_of_the_model_is_told_again_and_not_paid_for_again() -> None:
    def answers() -> list[Any]:
        return [Reply((ScoredLabel("Dog", 0.9),), version) for version in ("v1", "v2")]

    with serving(ScriptedBackend(answers()), verdict_ttl_s=0) as there:
        headers = {"idempotency-key": "mine"}
        first = there.ask(headers=headers)
        cost = there.backend.asked
        second = there.ask(headers=headers)
    assert first.status_code == second.status_code == 500
    assert first.json()["error"]["message"] == second.json()["error"]["message"]
    assert there.backend.asked == cost > 0


def test_too_many_requests_at_once_are_told_to_come_back() -> None:
    with serving(slow(0.1), max_pending=1) as there, ThreadPoolExecutor(1) as pool:
        first = pool.submit(there.ask)
        until(lambda: len(there.gateway.jobs) == 1)
        second = there.ask(image=picture(9))
        assert (second.status_code, second.headers["retry-after"]) == (429, "1")
        assert first.result().status_code == 200


def test_bodies_beyond_the_memory_for_them_are_told_to_come_back() -> None:
    with serving(bodies_bytes=2**20) as there:
        for _ in range(3):
            refused = there.ask(image=bytes(2**20 + 1))
            assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
            assert there.ask().status_code == 200
            assert there.gateway.bodies == 0


def test_a_grpc_client_that_leaves_gets_its_answer_when_it_comes_back() -> None:
    with serving(slow(0.05), verdict_ttl_s=0) as there:
        while there.backend.asked == 0:  # on a slow machine the time is up before the request is here
            with pytest.raises(Exception, match="Deadline"):
                sdks.google_grpc(there, picture(), timeout=0.2)
        until(lambda: there.backend.asked == FEWEST and len(there.gateway.jobs) == 0)
        assert sdks.google_grpc(there, picture())[0][0] == "Dog"
    assert there.backend.asked == FEWEST


def test_more_pictures_than_may_be_unpacked_wait_for_each_other() -> None:
    with serving(pictures_at_once=1) as there, ThreadPoolExecutor(4) as pool:
        assert {reply.status_code for reply in pool.map(lambda i: there.ask(image=picture(i)), range(4))} == {200}


def test_a_gateway_that_stops_finishes_what_is_under_way() -> None:
    with ThreadPoolExecutor(1) as pool:
        with serving(slow(0.05), drain_s=10.0) as there:
            under_way = pool.submit(ask_alone, there)
            until(lambda: there.backend.asked > 0)
        assert under_way.result(timeout=5).json()["label"] == "Dog"
    assert there.backend.asked == FEWEST


def test_a_gateway_that_may_not_wait_stops_asking() -> None:
    with ThreadPoolExecutor(1) as pool:
        smoothing = Smoothing(sigma=0.25, n0=10, n=500, method="fixed")
        with serving(slow(0.05), smoothing=smoothing, drain_s=0.2) as there:
            under_way = pool.submit(ask_alone, there)
            until(lambda: there.backend.asked > 0)
        with pytest.raises(httpx.HTTPStatusError) as seen:
            under_way.result(timeout=5).raise_for_status()
        assert seen.value.response.status_code == 503
    assert 0 < there.backend.asked < 100
    assert there.store.spent(KEY_ID) == there.backend.asked
