"""What is refused at once since it cannot be had in time, and what waits since memory is full."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
from typing import Any, cast

import anyio
import httpx
import numpy as np
import numpy.typing as npt
import pytest

from smoothing_proxy.backends.scripted import ScriptedBackend
from smoothing_proxy.denoisers.base import Denoiser
from smoothing_proxy.denoisers.identity import Identity
from smoothing_proxy.gateway import timed
from smoothing_proxy.gateway.app import make_app, make_gateway
from smoothing_proxy.gateway.backlog import Backlog, Load
from smoothing_proxy.gateway.memory_store import MemoryStore
from smoothing_proxy.gateway.pace import FORGOTTEN_S, Latency, Throughput
from smoothing_proxy.gateway.pages import Meter
from smoothing_proxy.gateway.picture_size import working_pixels
from smoothing_proxy.gateway.service import Gateway
from smoothing_proxy.gateway.settings import GatewaySettings
from smoothing_proxy.images import noise
from smoothing_proxy.images.geometry import WorkingSize
from smoothing_proxy.images.pixels import Limits
from smoothing_proxy.smoothing.base_classifier import BaseClassifier
from smoothing_proxy.smoothing.picture import prepare
from smoothing_proxy.smoothing.settings import Smoothing
from smoothing_proxy.types import Reply, ScoredLabel
from tests.gateway.gateways import DOG, SECRET, SMOOTHING, keys, picture
from tests.gateway.test_health import HandClock
from tests.gateway.waiting import until

FEWEST = 12


class Slow:
    """A denoiser of so many pixels a second, by a clock that it moves itself."""

    def __init__(self, clock: HandClock, pixels_per_s: float) -> None:
        self._clock = clock
        self._pixels_per_s = pixels_per_s
        self._inner = Identity()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def denoise(self, noisy: npt.NDArray[np.float32], sigma: float) -> npt.NDArray[np.float32]:
        self._clock.time += noisy.size / 3 / self._pixels_per_s
        return self._inner.denoise(noisy, sigma)


def gateway_of(backend: ScriptedBackend, clock: HandClock, denoiser: Any = None, **settings: Any) -> Gateway:
    smoothing = settings.pop("smoothing", SMOOTHING)
    classifier = BaseClassifier(backend, cast(Denoiser, denoiser or Identity()), sigma=smoothing.sigma)
    chosen = GatewaySettings(drain_s=0.0, **settings)
    return make_gateway(chosen, classifier, smoothing, MemoryStore(keys), clock=clock)


async def ask(gateway: Gateway, image: bytes) -> httpx.Response:
    app = httpx.ASGITransport(make_app(gateway, ()))
    headers = {"x-api-key": SECRET, "content-type": "image/png"}
    async with httpx.AsyncClient(transport=app, base_url="http://gateway") as client:
        return await client.post("/v1/predict", content=image, headers=headers)


@pytest.mark.anyio
async def test_a_slow_denoiser_is_a_reason_to_refuse_until_that_is_long_ago() -> None:
    clock, backend = HandClock(), ScriptedBackend(DOG)
    two_copies_a_second = Slow(clock, 2 * 96 * 96)  # taken for twice as many, where two threads overlap at first
    gateway = gateway_of(backend, clock, two_copies_a_second, deadline_s=2.0)
    with anyio.fail_after(30):
        assert (await ask(gateway, picture(1))).status_code == 200
        asked = backend.asked
        refused = await ask(gateway, picture(2))
        assert (refused.status_code, refused.json()["error"]["code"]) == (402, "quota")
        assert "cannot be had within 2 s" in refused.json()["error"]["message"]
        assert (await ask(gateway, picture(3, side=32))).status_code == 200, "a ninth of the work"
        clock.time += FORGOTTEN_S + 1
        assert (await ask(gateway, picture(2))).status_code == 200
        assert backend.asked == asked + 2 * FEWEST
        await gateway.close()


@pytest.mark.anyio
async def test_a_request_that_takes_more_than_it_needed_at_least_hides_no_other() -> None:
    gate, turns = asyncio.Event(), itertools.cycle(["Dog", "Cat"])

    async def wait(_: float) -> None:
        if backend.asked > 5 * FEWEST:
            await gate.wait()

    backend = ScriptedBackend(lambda _: Reply((ScoredLabel(next(turns), 0.9),)), sleep=wait, concurrency=1)
    smoothing = Smoothing(sigma=0.25, max_queries=2_000, alpha=0.001)
    gateway = gateway_of(backend, HandClock(), smoothing=smoothing)

    def queue() -> float | None:
        return gateway.metrics.registry.get_sample_value("smoothing_queue_draws")

    with anyio.fail_after(30):
        async with anyio.create_task_group() as group:
            group.start_soon(ask, gateway, picture(1))
            await until(lambda: backend.asked > 5 * FEWEST)
            assert queue() == 0
            group.start_soon(ask, gateway, picture(2))
            await until(lambda: queue() == FEWEST)
            gate.set()
            await gateway.close()


def test_the_backlog_is_what_each_picture_still_needs() -> None:
    first, second, third = (Load(FEWEST, 100, Meter(settled=settled)) for settled in (400, 5, 0))
    backlog = Backlog()
    backlog.add([first, second, third])
    assert (backlog.draws, backlog.pixels) == (7 + 12, 1_900)
    backlog.drop([second, second])
    assert (backlog.draws, backlog.pixels) == (12, 1_200)


def test_pieces_of_work_at_the_same_time_share_it() -> None:
    clock = HandClock()
    made = Throughput(clock)
    with made.timed(1_000):
        clock.time += 50  # which warms up
    assert made.per_s == float("inf")
    with made.timed(10):
        clock.time += 1
        with made.timed(10):
            clock.time += 3
    assert made.per_s == pytest.approx((10 + 0.9 * 10) / (0.0 + 0.9 * 4))
    clock.time += FORGOTTEN_S + 1
    assert made.per_s == float("inf")


def test_a_latency_is_of_requests_that_were_answered_lately() -> None:
    clock = HandClock()
    latency = Latency(clock)
    for seconds in (2.0, 4.0):
        with latency.timed():
            clock.time += seconds
    assert latency.seconds == pytest.approx(2.2)
    with contextlib.suppress(ZeroDivisionError), latency.timed():
        clock.time += 3 * FORGOTTEN_S
        assert latency.seconds == pytest.approx(2.2), "as long as one is under way"
        raise ZeroDivisionError
    assert latency.seconds == pytest.approx(2.2)
    clock.time += FORGOTTEN_S + 1
    assert latency.seconds == 0.0


@pytest.mark.anyio
@pytest.mark.parametrize(("at_once", "in_turn"), [(96 * 96, True), (3 * 96 * 96, False)])
async def test_pictures_wait_for_room_in_memory(at_once: int, *, in_turn: bool) -> None:
    gate = asyncio.Event()
    levels, seen = (40, 120, 200), []

    def look(pixels: npt.NDArray[np.uint8]) -> Reply:
        seen.append(min(levels, key=lambda level: abs(level - float(pixels.mean()))))
        return DOG

    async def wait(_: float) -> None:
        await gate.wait()

    backend = ScriptedBackend(look, sleep=wait, concurrency=500)
    gateway = gateway_of(backend, HandClock(), pixels_at_once=at_once)
    with anyio.fail_after(30):
        async with anyio.create_task_group() as group:
            for level in levels:
                group.start_soon(ask, gateway, picture(level))
            await until(lambda: len(set(seen)) >= (1 if in_turn else 3) and len(gateway.jobs) == 3)
            gate.set()
        await gateway.close()
    runs = [level for level, _ in itertools.groupby(seen)]
    assert (len(runs) == 3) is in_turn
    assert len(seen) >= 3 * FEWEST


@pytest.mark.parametrize(
    ("image", "size", "pixels"),
    [
        (picture(side=96), "original", 96 * 96),
        (picture(side=96), "longer=48", 48 * 48),
        (picture(side=96), "shorter=128", 128 * 128),
        (picture(side=96), "shorter=64,crop=32", 32 * 32),
        (picture(side=96), "20x30", 600),
        (picture(side=101), "original", 0),
        (picture()[:20], "original", 0),
        (b"no picture", "original", 0),
    ],
)
def test_the_header_tells_what_room_a_picture_takes(image: bytes, size: str, pixels: int) -> None:
    assert working_pixels(image, WorkingSize.parse(size), Limits(pixels=10_000)) == pixels


@pytest.mark.parametrize(("chunk", "alone"), [(96 * 96, False), (96 * 96 - 1, True)])
def test_large_copies_are_made_one_at_a_time(monkeypatch: pytest.MonkeyPatch, chunk: int, *, alone: bool) -> None:
    both = threading.Barrier(2)
    made = noise.noisy_batch

    def noisy(*asked: Any) -> Any:
        both.wait(0.2 if alone else 20)
        return made(*asked)

    monkeypatch.setattr(timed, "CHUNK_PIXELS", chunk)
    monkeypatch.setattr(noise, "noisy_batch", noisy)
    classifier = timed.Timed(BaseClassifier(ScriptedBackend(DOG), Identity(), sigma=0.25), HandClock())
    image = prepare(np.zeros((96, 96, 3), np.uint8), "original")
    outcomes: list[str] = []

    def make() -> None:
        try:
            outcomes.append(f"{len(classifier.copies(image, [0]))} made")
        except threading.BrokenBarrierError:
            outcomes.append("was alone")

    threads = [threading.Thread(target=make) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert outcomes == (["was alone"] * 2 if alone else ["1 made"] * 2)
