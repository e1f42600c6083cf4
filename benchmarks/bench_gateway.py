"""The gateway between its customers and a simulated Rekognition, each in another process, as ratios in one run.

    python benchmarks/bench_gateway.py

What is compared takes turns, and figures are medians, so that other work on the machine meets all of it alike.

latency: one customer's request answered from n = 32 copies, against a vendor that takes 100 ms, by one call of the
same backend and the time in which one thread makes 32 copies (noise, denoiser, encoding), both measured here, in
turns; and the same with the denoiser's part of it alone.
throughput: queries a second in steady state with many customers, by what the vendor allows (places in flight by
latency, or requests a second; pictures of 80x80 px, so that neither noise nor encoder is the limit), or by what
the denoiser manages alone where no vendor is waited for.
overhead: with `harden = false` each picture is asked about once, as it is, and the classifier does nothing; beside
a bare Starlette application that answers the same requests. wall: seconds by requests, with 50 customers at once.
CPU: of the server's process, which other work on the machine does not change much.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from gateway_parts import VENDOR_KEYS, Load, Server, echo, gateway, pictures, signed, simulator

from smoothing_proxy.backends.registry import backend
from smoothing_proxy.backends.scripted import ScriptedBackend
from smoothing_proxy.denoisers.registry import denoiser
from smoothing_proxy.images import noise
from smoothing_proxy.images.codec import EncodedImage, Encoding
from smoothing_proxy.runs.manifest import software_versions
from smoothing_proxy.smoothing.base_classifier import BaseClassifier
from smoothing_proxy.smoothing.picture import prepare

LATENCY_S, N, SIDE_PX, SMALL_PX, SIGMA = 0.1, 32, 224, 80, 0.25
CHEAP = "wavelet:haar"
REPEATS = 15
IN_FLIGHT, TPS = 32, 100
CUSTOMERS, OVERHEAD_CUSTOMERS = 24, 50
WARM_S, WINDOW_S = 4.0, 10.0
REQUESTS, ROUNDS = 500, 5
RESULTS = Path(__file__).parent / "results" / "gateway.json"

FIXED = f'sigma = {SIGMA}\nmethod = "fixed"\nn0 = 1\nn = {N}'


class Alone:
    """One thread of this process that makes N copies of a grey picture, with nothing else to do."""

    def __init__(self, name: str, side_px: int) -> None:
        grey = np.full((side_px, side_px, 3), 128, np.uint8)
        self._denoiser = denoiser(name)
        self._picture = prepare(grey, "original")
        self._classifier = BaseClassifier(
            ScriptedBackend("cat"), self._denoiser, sigma=SIGMA, encoding=Encoding("jpeg")
        )
        self._noisy = noise.noisy_batch(self._picture.grid, self._picture.entropy, range(N), SIGMA)

    def denoise_s(self) -> float:
        """For the denoiser's part."""
        start = time.perf_counter()
        self._denoiser.denoise(self._noisy, SIGMA)
        return time.perf_counter() - start

    def make_s(self) -> float:
        """For all of it."""
        start = time.perf_counter()
        self._classifier.copies(self._picture, range(N))
        return time.perf_counter() - start


def latency(name: str, side_px: int) -> dict[str, float]:
    """One request at a time, beside one call and one batch of copies."""
    images = pictures(REPEATS + 2, side_px)
    with (
        simulator("-f", f"latency_s={LATENCY_S}") as vendor,
        gateway(smoothing=FIXED, vendor=vendor, denoiser=name) as server,
    ):
        seen = asyncio.run(_latencies(Alone(name, side_px), side_px, vendor, server, images))
    call, denoised, made, hardened = (statistics.median(column) for column in zip(*seen[2:], strict=True))
    what = f"latency, {name} at {side_px} px"
    return {
        f"{what}: hardened / (one call + making the copies)": hardened / (call + made),
        f"{what}: hardened / (one call + denoiser alone)": hardened / (call + denoised),
        f"{what}: ms of one call": call * 1e3,
        f"{what}: ms of the denoiser for {N} copies": denoised * 1e3,
        f"{what}: ms of making {N} copies": made * 1e3,
        f"{what}: ms of a hardened answer": hardened * 1e3,
    }


async def _latencies(
    alone: Alone, side_px: int, vendor: Server, server: Server, images: Sequence[bytes]
) -> list[tuple[float, float, float, float]]:
    """One call, the denoiser, all of the making, a hardened answer; the first ones open connections and import."""
    asked = backend("aws-rekognition", endpoint=vendor.url, concurrency=2)
    seen = []
    for image, request in zip(images, signed(server.url, images), strict=True):
        start = time.perf_counter()
        await asked.classify([EncodedImage(image, "jpeg", side_px, side_px)])
        call = time.perf_counter() - start
        load = Load(server.url, [request], 1)
        await load.run()
        seen.append((call, alone.denoise_s(), alone.make_s(), load.latencies_s[0]))
    await asked.aclose()
    return seen


def queries(server: Server) -> float:
    """That the gateway has settled so far."""
    page = httpx.get(f"{server.url}/metrics").text
    lines = [line for line in page.splitlines() if line.startswith('smoothing_queries_total{kind="settled"}')]
    return float(lines[0].split()[1]) if lines else 0.0


def billed(vendor: Server) -> float:
    """That the vendor has answered so far."""
    return float(httpx.get(f"{vendor.url}/_simulator/till").json()["billed"])


def queries_per_s(server: Server, count: Callable[[], float], expected_per_s: float, side_px: int) -> float:
    """In steady state, from many customers who never stop asking."""
    requests = int(2.0 * (WARM_S + WINDOW_S) * expected_per_s / N) + 2 * CUSTOMERS
    asked = signed(server.url, pictures(requests, side_px, first=10_000))

    async def measure() -> float:
        load = asyncio.create_task(Load(server.url, asked, CUSTOMERS).run())
        await asyncio.sleep(WARM_S)
        before, start = await asyncio.to_thread(count), time.perf_counter()
        await asyncio.sleep(WINDOW_S)
        after, end = await asyncio.to_thread(count), time.perf_counter()
        if load.done():
            raise RuntimeError("the requests ran out before the measurement ended")
        load.cancel()
        await asyncio.gather(load, return_exceptions=True)
        return (after - before) / (end - start)

    return asyncio.run(measure())


def throughput_of_vendor(name: str, options: Sequence[str], limit_per_s: float) -> dict[str, float]:
    """Where the vendor is the limit."""
    with (
        simulator("-f", f"latency_s={LATENCY_S}", *options) as vendor,
        gateway(smoothing=FIXED, vendor=vendor, in_flight=IN_FLIGHT, rate=limit_per_s, options=PATIENT) as server,
    ):
        before = server.cpu_s(), billed(vendor)
        reached = queries_per_s(server, lambda: billed(vendor), limit_per_s, SMALL_PX)
        cpu_ms = (server.cpu_s() - before[0]) / (billed(vendor) - before[1]) * 1e3
    return {
        f"throughput, {name}: reached / limit": reached / limit_per_s,
        f"throughput, {name}: CPU ms of the gateway for one query": cpu_ms,
    }


PATIENT = "deadline_s = 600.0"


def throughput_of_denoiser() -> dict[str, float]:
    """Where the denoiser is the limit: as many copies a second as it manages alone, before and after."""

    alone = Alone(CHEAP, SIDE_PX)

    def per_s() -> float:
        return N / statistics.median(alone.denoise_s() for _ in range(REPEATS))

    before = per_s()
    with gateway(smoothing=FIXED, denoiser=CHEAP, options=PATIENT) as server:
        used, done = server.cpu_s(), queries(server)
        reached = queries_per_s(server, lambda: queries(server), before, SIDE_PX)
        cpu_ms = (server.cpu_s() - used) / (queries(server) - done) * 1e3
    limit = statistics.mean((before, per_s()))
    return {
        f"throughput, {CHEAP}: reached / limit": reached / limit,
        f"throughput, {CHEAP}: copies a second, the denoiser alone": limit,
        f"throughput, {CHEAP}: CPU ms of the gateway for one copy": cpu_ms,
    }


def overhead() -> dict[str, float]:
    """Of the gateway and of the bare application, in turns."""
    seen: dict[str, list[tuple[float, float, float]]] = {"gateway": [], "echo": []}
    images = pictures(REQUESTS * (ROUNDS + 1), SIDE_PX)
    with gateway(smoothing=f"sigma = {SIGMA}", options="harden = false") as server, echo() as bare:
        for turn in range(ROUNDS + 1):
            some = images[turn * REQUESTS : (turn + 1) * REQUESTS]
            seen["gateway"].append(_cost(server, some))
            seen["echo"].append(_cost(bare, some))
    medians = {
        name: [statistics.median(column) for column in zip(*costs[1:], strict=True)]
        for name, costs in seen.items()
    }
    ours, bare_ms = medians["gateway"], medians["echo"]
    figures = {"overhead: wall ms of a request more than the echo": ours[0] - bare_ms[0]}
    for name, (wall, cpu, half) in medians.items():
        figures[f"overhead, {name}: wall ms of a request"] = wall
        figures[f"overhead, {name}: CPU ms of a request"] = cpu
        figures[f"overhead, {name}: ms that half of {OVERHEAD_CUSTOMERS} customers wait"] = half
    return figures


def _cost(server: Server, images: Sequence[bytes]) -> tuple[float, float, float]:
    """For one request in milliseconds: seconds that all took, of the processor, and until half were answered."""
    load = Load(server.url, signed(server.url, images), OVERHEAD_CUSTOMERS)
    before = server.cpu_s()
    took = asyncio.run(load.run())
    used = server.cpu_s() - before
    return took / len(images) * 1e3, used / len(images) * 1e3, statistics.median(load.latencies_s) * 1e3


def main() -> None:
    """Print the figures and write them to benchmarks/results."""
    os.environ.update(VENDOR_KEYS)
    figures = overhead()
    for side_px in (SMALL_PX, SIDE_PX):
        figures |= latency("identity", side_px) | latency(CHEAP, side_px)
    limit = IN_FLIGHT / LATENCY_S
    figures |= throughput_of_vendor(f"{IN_FLIGHT} in flight at {LATENCY_S * 1e3:g} ms", (), limit)
    tps = ("-f", f"requests_per_s={TPS}", "-f", "burst=20")
    figures |= throughput_of_vendor(f"{TPS} requests a second", tps, TPS)
    figures |= throughput_of_denoiser()
    for name, value in figures.items():
        print(f"{value:9.3f}  {name}")
    report = {"figures": figures, "settings": _settings(), "machine": _machine(), "software": software_versions()}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def _settings() -> dict[str, Any]:
    return {
        "copies": N,
        "side_px": SIDE_PX,
        "small_side_px": SMALL_PX,
        "picture_bytes": len(pictures(1, SIDE_PX)[0]),
        "latency_s": LATENCY_S,
        "in_flight": IN_FLIGHT,
        "repeats": REPEATS,
        "customers": CUSTOMERS,
        "window_s": WINDOW_S,
        "overhead_requests": REQUESTS * ROUNDS,
        "overhead_customers": OVERHEAD_CUSTOMERS,
    }


def _machine() -> dict[str, Any]:
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "load_average": os.getloadavg()[0],
    }


if __name__ == "__main__":
    main()
