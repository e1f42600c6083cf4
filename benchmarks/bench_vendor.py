"""Certification through a simulated AWS Rekognition in another process, as ratios in one run.

    python benchmarks/bench_vendor.py

ideal: draws x latency / in flight, what a vendor with that latency allows at best. The pictures are small, so that
neither denoiser nor encoder is the limit. a draw: processor time of one draw of that run, in this process, split
into making its copy (noise, denoiser, JPEG), the vendor's client (from the copy to its labels), and all the rest,
which is ours; and in the simulator's process. Processor time does not depend on what else the machine does, but
for its caches; Linux only. limit: the share of a vendor's 50 requests a second that is used, and of
the sends that it throttles, after the first seconds: with the limit known, and found by the rate limiter.
client: processor time of one query of a 60 KB copy, encoding apart. memory: what n = 10,000 needs more
than n = 100.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL, Popen
from typing import Any

import numpy as np
from PIL import Image

from smoothing_proxy.assembly import make_classifier, make_ledger, make_run
from smoothing_proxy.backends.registry import backend
from smoothing_proxy.cli.driving import set_aside_what_is_loaded
from smoothing_proxy.config import ProxyConfig
from smoothing_proxy.images.codec import Encoding, encode
from smoothing_proxy.runs.manifest import software_versions
from smoothing_proxy.settings_file import parse_settings
from smoothing_proxy.smoothing.halt import Halt
from smoothing_proxy.smoothing.picture import prepare

LATENCY_S, IN_FLIGHT, PICTURES, N0, N, TRIALS = 0.1, 64, 20, 20, 100, 3
TPS, BURST = 50, 10
RESULTS = Path(__file__).parent / "results" / "vendor.json"
KEYS = {
    "AWS_ACCESS_KEY_ID": "simulator",
    "AWS_SECRET_ACCESS_KEY": "simulator-secret",
    "AWS_DEFAULT_REGION": "us-east-1",
}


class Quiet:
    """A run's observer that keeps when draws settled, and how often they were throttled."""

    def __init__(self) -> None:
        self.settled_at: list[float] = []
        self.returned_at: list[float] = []

    def begun(self, *_: object) -> None:
        """Nothing."""

    def settled(self, _: int, outcomes: Any) -> None:
        """Keep when."""
        self.settled_at += [time.perf_counter()] * len(outcomes)

    def withdrawn(self, _: int, draws: Any, error: Exception) -> None:
        """Keep when."""
        self.returned_at += [time.perf_counter()] * len(draws)

    def decided(self, *_: object) -> None:
        """Nothing."""

    def left_out(self, *_: object) -> None:
        """Nothing."""


@dataclass(frozen=True)
class Simulator:
    """Another process. url: where it listens."""

    url: str
    process: Popen[bytes]

    @property
    def cpu_s(self) -> float:
        """Processor time that it has taken so far; see clock_getcpuclockid(3)."""
        return time.clock_gettime((~self.process.pid << 3) | 2)


@dataclass(frozen=True)
class Run:
    """What was seen, and how long it took. cpu_s: processor time of this process."""

    seen: Quiet
    took_s: float
    cpu_s: float


@contextmanager
def simulator(*options: str) -> Iterator[Simulator]:
    """In another process, trusting pictures, so that it leaves the cores to the client."""
    with tempfile.TemporaryDirectory() as folder:
        ready = Path(folder) / "ready.json"
        command = [sys.executable, "-m", "smoothing_proxy", "simulate", "aws", "--backend", "scripted:cat"]
        process = Popen([*command, "--no-check", "--ready-file", str(ready), *options], stdout=DEVNULL)
        try:
            while not ready.exists():
                time.sleep(0.05)
            yield Simulator(json.loads(ready.read_text())["url"], process)
        finally:
            process.kill()
            process.wait()


def settings_of(url: str, *, pictures: int, n: int, in_flight: int, transport: dict[str, Any]) -> ProxyConfig:
    """The run's question, and how it is asked."""
    settings = {
        "smoothing": {"sigma": 0.25, "n0": N0, "n": n},
        "backend": {"name": "aws-rekognition", "endpoint": url, "concurrency": max(16, in_flight)},
        "encoding": {"format": "jpeg"},
        "run": {"in_flight": in_flight, "pictures_at_once": pictures, "canaries": False},
        "transport": transport,
    }
    return parse_settings(ProxyConfig, settings, source="benchmark")


def run(url: str, *, pictures: int, n: int, in_flight: int, transport: dict[str, Any]) -> Run:
    """Certify flat pictures of 80x80 px into a durable ledger."""
    with tempfile.TemporaryDirectory() as folder:
        for number in range(pictures):
            Image.fromarray(np.full((80, 80, 3), number, np.uint8)).save(Path(folder) / f"{number:03}.png")
        config = settings_of(url, pictures=pictures, n=n, in_flight=in_flight, transport=transport)
        names = sorted(path.name for path in Path(folder).glob("*.png"))
        classifier, seen = make_classifier(config), Quiet()
        with make_ledger(Path(folder) / "run", paid=True) as ledger:
            work = make_run(
                config,
                classifier,
                ledger,
                folder=Path(folder),
                names=names,
                reference=dict.fromkeys(names, "cat"),
                insecure_seed=None,
            )
            work.begin(folder)
            set_aside_what_is_loaded()  # as `run` does
            start, cpu_before = time.perf_counter(), time.process_time()
            asyncio.run(_run(work, seen))
            return Run(seen, time.perf_counter() - start, time.process_time() - cpu_before)


async def _run(work: Any, seen: Quiet) -> None:
    await work.run(seen, Halt())
    await work.classifier.backend.aclose()


def speed() -> dict[str, float]:
    """Against the ideal, and against one draw after another; what one draw costs."""
    draws = PICTURES * (N0 + N)
    ideal = draws * LATENCY_S / IN_FLIGHT
    unlimited = {"requests_per_s": 10_000}
    with simulator("-f", f"latency_s={LATENCY_S}") as vendor:
        run(vendor.url, pictures=2, n=N, in_flight=IN_FLIGHT, transport=unlimited)  # connections, imports
        before_s = vendor.cpu_s
        many = [
            run(vendor.url, pictures=PICTURES, n=N, in_flight=IN_FLIGHT, transport=unlimited)
            for _ in range(TRIALS)
        ]
        vendor_ms = (vendor.cpu_s - before_s) / TRIALS / draws * 1e3
        alone = run(vendor.url, pictures=1, n=N, in_flight=1, transport=unlimited).took_s * PICTURES
    took = statistics.median(one.took_s for one in many)
    draw_ms = statistics.median(one.cpu_s for one in many) / draws * 1e3
    return {
        "certification / ideal": took / ideal,
        "one after another / certification": alone / took,
        **split(draw_ms),
        "a draw: CPU ms of the simulator": vendor_ms,
    }


def split(draw_ms: float) -> dict[str, float]:
    """What of a draw's processor time goes where."""
    picture = np.zeros((80, 80, 3), np.uint8)
    with simulator() as vendor:
        config = settings_of(vendor.url, pictures=1, n=N, in_flight=IN_FLIGHT, transport={})
        classifier = make_classifier(config)
        prepared = prepare(picture, config.smoothing.working_size, picture_id=0, entropy=bytes(16))
        size = classifier.denoiser.batch_size
        copies = classifier.copies(prepared, range(size))
        before_s = time.process_time()
        for start in range(0, 512, size):
            classifier.copies(prepared, range(start, start + size))
        made_ms = (time.process_time() - before_s) / -(-512 // size) / size * 1e3
        asked_ms = asyncio.run(_client(classifier.backend, copies[0], 2000))
    return {
        "a draw: CPU ms": draw_ms,
        "a draw: CPU ms of making its copy": made_ms,
        "a draw: CPU ms of the vendor's client": asked_ms,
        "a draw: CPU ms of all the rest": draw_ms - made_ms - asked_ms,
    }


def limit(transport: dict[str, Any], name: str) -> dict[str, float]:
    """How much of TPS is used, and how much is throttled, from 10 s on (the search for an unknown limit)."""
    with simulator("-f", f"latency_s={LATENCY_S}", "-f", f"requests_per_s={TPS}", "-f", f"burst={BURST}") as there:
        seen = run(there.url, pictures=PICTURES, n=N, in_flight=IN_FLIGHT, transport=transport).seen
    start, end = seen.settled_at[0] + 10, seen.settled_at[-1] - 0.5
    settled = sum(start <= at < end for at in seen.settled_at)
    returned = sum(start <= at < end for at in seen.returned_at)
    return {
        f"{name}: used / limit": settled / (end - start) / TPS,
        f"{name}: throttled / sends": returned / (settled + returned),
    }


def client_ms(queries: int = 2000) -> tuple[float, int]:
    """CPU milliseconds of this process for one query, without encoding, and the bytes of its copy."""
    rng = np.random.default_rng(0)
    copy = encode(rng.integers(0, 255, (200, 150, 3), np.uint8), Encoding("jpeg", 92))
    with simulator() as there:
        vendor = backend("aws-rekognition", endpoint=there.url, concurrency=IN_FLIGHT)
        return asyncio.run(_client(vendor, copy, queries)), len(copy.data)


async def _client(vendor: Any, copy: Any, queries: int) -> float:
    async def ask(count: int) -> None:
        for _ in range(count):
            await vendor.classify([copy])

    await asyncio.gather(*(ask(2) for _ in range(IN_FLIGHT)))
    start = time.process_time()
    await asyncio.gather(*(ask(queries // IN_FLIGHT) for _ in range(IN_FLIGHT)))
    used = time.process_time() - start
    await vendor.aclose()
    return used / (queries // IN_FLIGHT * IN_FLIGHT) * 1e3


def memory_mib() -> float:
    """Further peak memory of n = 10,000 after n = 100 (a peak never falls, so the larger run comes second)."""
    with simulator() as there:
        run(there.url, pictures=2, n=N, in_flight=IN_FLIGHT, transport={"requests_per_s": 10_000})
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        run(there.url, pictures=1, n=10_000, in_flight=IN_FLIGHT, transport={"requests_per_s": 10_000})
        return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def main() -> None:
    """Print the figures and write them to benchmarks/results."""
    os.environ.update(KEYS)
    figures = speed()
    figures |= limit({"requests_per_s": TPS}, "known limit")
    figures |= limit({}, "unknown limit")
    figures["client: CPU ms for one query of 60 KB"], size = client_ms()
    figures["memory: MiB more for n = 10,000"] = memory_mib()
    for name, value in figures.items():
        print(f"{value:8.3f}  {name}")
    report = {
        "figures": figures,
        "settings": {
            "pictures": PICTURES,
            "draws": PICTURES * (N0 + N),
            "in_flight": IN_FLIGHT,
            "latency_s": LATENCY_S,
            "trials": TRIALS,
            "limit_per_s": TPS,
            "limit_burst": BURST,
            "copy_bytes": size,
        },
        "note": "one after another: one picture, times the number of pictures",
        "machine": {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "software": software_versions(),
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
