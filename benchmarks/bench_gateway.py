"""The gateway between its customers and a simulated Rekognition, each in another process, as ratios in one run.

    python benchmarks/bench_gateway.py

What is compared takes turns, and figures are medians, so that other work on the machine meets all of it alike.

    python benchmarks/bench_gateway.py --only overhead     one part, the others' figures stay as they are

latency: one customer's request answered from n = 32 copies, against a vendor that takes 100 ms, by one call of the
same backend and the denoiser alone with the same 32 copies, both measured here, in turns; and by one call and the
time in which one thread makes 32 copies (noise, denoiser, encoding).
throughput: queries a second in steady state with many customers, by what the vendor allows (places in flight by
latency, or requests a second; pictures of 80x80 px, so that neither noise nor encoder is the limit), or, where no
vendor is waited for, by what the denoiser manages alone: in batches as the gateway's sampler makes them, one at a
time, with as many threads of its own as it has there. Where the denoiser is as cheap as the noise, two cores
cannot do both at that pace; so there is a second limit: the sampler's threads making whole copies (noise,
denoiser, encoding) of one picture after another, with nobody to ask and no requests to answer.
overhead: with `harden = false` each picture is asked about once, as it is, and the classifier does nothing; beside
a bare Starlette application that answers the same requests. wall: seconds by requests, with 50 customers at once.
CPU: of the server's process, which other work on the machine does not change much.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import httpx
from gateway_alone import SIGMA, Alone, N
from gateway_parts import VENDOR_KEYS, Load, Server, echo, gateway, pictures, signed, simulator

from smoothing_proxy.backends.registry import backend
from smoothing_proxy.images.codec import EncodedImage
from smoothing_proxy.runs.manifest import software_versions

LATENCY_S, SIDE_PX, SMALL_PX = 0.1, 224, 80
CHEAP, SHIPPED = "wavelet:haar", "natural"
REPEATS, FEWER_REPEATS = 15, 7
IN_FLIGHT, TPS = 32, 100
CUSTOMERS, OVERHEAD_CUSTOMERS = 24, 50
WARM_S, WINDOW_S = 4.0, 10.0
REQUESTS, ROUNDS = 500, 5
RESULTS = Path(__file__).parent / "results" / "gateway.json"

FIXED = f'sigma = {SIGMA}\nmethod = "fixed"\nn0 = 1\nn = {N}'


def latency(name: str, side_px: int) -> dict[str, float]:
    """One request at a time, beside one call and one batch of copies."""
    repeats = FEWER_REPEATS if name == SHIPPED else REPEATS
    images = pictures(repeats + 2, side_px)
    with (
        simulator("-f", f"latency_s={LATENCY_S}") as vendor,
        gateway(smoothing=FIXED, vendor=vendor, denoiser=name) as server,
    ):
        seen = asyncio.run(_latencies(Alone(name, side_px), side_px, vendor, server, images))
    call, denoised, made, hardened = (statistics.median(column) for column in zip(*seen[2:], strict=True))
    what = f"latency, {name} at {side_px} px"
    return {
        f"{what}: hardened / (one call + denoiser alone)": hardened / (call + denoised),
        f"{what}: hardened / (one call + making the copies)": hardened / (call + made),
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
    """Where the vendor is the limit. name: of the figures."""
    with (
        simulator("-f", f"latency_s={LATENCY_S}", *options) as vendor,
        gateway(smoothing=FIXED, vendor=vendor, in_flight=IN_FLIGHT, rate=limit_per_s, options=PATIENT) as server,
    ):
        before = server.cpu_s(), billed(vendor)
        reached = queries_per_s(server, lambda: billed(vendor), limit_per_s, SMALL_PX)
        cpu_ms = (server.cpu_s() - before[0]) / (billed(vendor) - before[1]) * 1e3
    return {
        f"{name}: reached / limit": reached / limit_per_s,
        f"{name}: CPU ms of the gateway for one query": cpu_ms,
    }


PATIENT = "deadline_s = 600.0"


def throughput_of_denoiser(name: str, side_px: int, customers: int) -> dict[str, float]:
    """Where the denoiser is the limit: as many copies a second as it manages alone, before and after."""
    alone = Alone(name, side_px, "raw")
    limits = [(alone.denoised_per_s(), alone.made_per_s())]
    with gateway(smoothing=FIXED, denoiser=name, options=PATIENT) as server:
        reached = copies_per_s(server, limits[0][0], side_px, customers)
    limits.append((alone.denoised_per_s(), alone.made_per_s()))
    denoised, made = (statistics.mean(column) for column in zip(*limits, strict=True))
    what = f"throughput, {name} at {side_px} px"
    return {
        f"{what}: reached / the denoiser alone": reached / denoised,
        f"{what}: reached / the sampler's threads making copies": reached / made,
        f"{what}: copies a second, the gateway": reached,
        f"{what}: copies a second, the denoiser alone": denoised,
        f"{what}: copies a second, the sampler's threads making copies": made,
    }


def copies_per_s(server: Server, expected_per_s: float, side_px: int, customers: int) -> float:
    """In steady state: from the first answer after a while to the last one."""
    requests = int(1.5 * (WARM_S + WINDOW_S) * expected_per_s / N) + 2 * customers
    asked = signed(server.url, pictures(requests, side_px, first=10_000))

    async def measure() -> Sequence[float]:
        load = Load(server.url, asked, customers)
        running = asyncio.create_task(load.run())
        begun = time.perf_counter()
        await asyncio.sleep(WARM_S + WINDOW_S)
        if running.done():
            raise RuntimeError("the requests ran out before the measurement ended")
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        return [at for at in load.answered_s if at > begun + WARM_S]

    answered = asyncio.run(measure())
    return (len(answered) - 1) * N / (answered[-1] - answered[0])


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


def with_one_thread(part: Callable[[], dict[str, float]]) -> dict[str, float]:
    """The part where the denoiser has one thread, here and in the gateway, so that a core is left for the rest."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        return {key.replace(" px", " px, one thread", 1): value for key, value in part().items()}
    finally:
        del os.environ["OMP_NUM_THREADS"]
        torch.set_num_threads(threads)


def _parts() -> dict[str, Callable[[], dict[str, float]]]:
    """The benchmark's parts, by their names: each one's figures begin with a word of it."""
    parts: dict[str, Callable[[], dict[str, float]]] = {"overhead": overhead}
    for name in ("identity", CHEAP, SHIPPED):
        for side_px in (SMALL_PX, SIDE_PX):
            part = partial(latency, name, side_px)
            parts[f"latency, {name} at {side_px} px:"] = part
            if name == SHIPPED:
                parts[f"latency, {name} at {side_px} px, one thread:"] = partial(with_one_thread, part)
    at_most = f"throughput, {IN_FLIGHT} in flight at {LATENCY_S * 1e3:g} ms"
    parts[at_most] = partial(throughput_of_vendor, at_most, (), IN_FLIGHT / LATENCY_S)
    limited = f"throughput, {TPS} requests a second"
    parts[limited] = partial(throughput_of_vendor, limited, ("-f", f"requests_per_s={TPS}", "-f", "burst=20"), TPS)
    for name, side_px, customers in ((CHEAP, SIDE_PX, CUSTOMERS), (SHIPPED, SMALL_PX, 6), (SHIPPED, SIDE_PX, 3)):
        part = partial(throughput_of_denoiser, name, side_px, customers)
        parts[f"throughput, {name} at {side_px} px:"] = part
        if name == SHIPPED:
            parts[f"throughput, {name} at {side_px} px, one thread:"] = partial(with_one_thread, part)
    return parts


def main() -> None:
    """Print the figures and write them to benchmarks/results."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="", help="the parts whose names begin with this")
    only = parser.parse_args().only
    os.environ.update(VENDOR_KEYS)
    kept = json.loads(RESULTS.read_text(encoding="utf-8"))["figures"] if only else {}
    parts = _parts()
    seen: dict[str, float] = {}
    for name, part in parts.items():
        chosen = name.startswith(only)
        seen |= part() if chosen else {key: value for key, value in kept.items() if key.startswith(name)}
        if chosen:
            for key in [key for key in seen if key.startswith(name)]:
                print(f"{seen[key]:9.3f}  {key}", flush=True)
    report = {"figures": seen, "settings": _settings(), "machine": _machine(), "software": software_versions()}
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
