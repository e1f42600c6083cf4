"""How close the sampler comes to the ideal, and what the ledger costs, as ratios in one run.

    python benchmarks/bench_sampler.py

ideal: draws x latency / in flight, what a classifier with that latency allows at best.
ledger: the same draws with every one written down before it is sent and after it is answered.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import anyio
import numpy as np

from smoothing_proxy.backends.scripted import ScriptedBackend
from smoothing_proxy.denoisers.identity import Identity
from smoothing_proxy.ledger.store import Ledger
from smoothing_proxy.runs.manifest import software_versions
from smoothing_proxy.smoothing.base_classifier import BaseClassifier
from smoothing_proxy.smoothing.observe import ForgetfulJournal, Journal, Recalled
from smoothing_proxy.smoothing.picture import prepare
from smoothing_proxy.smoothing.plan import certify_plan
from smoothing_proxy.smoothing.sampler import Sampler
from smoothing_proxy.smoothing.settings import Smoothing

PICTURES, N0, N, IN_FLIGHT, LATENCY_S, TRIALS = 20, 20, 100, 64, 0.1, 5
RESULTS = Path(__file__).parent / "results" / "sampler.json"


async def certify(journal: Journal, in_flight: int, pictures: int) -> float:
    """Seconds for so many pictures of 32x32, all at once."""
    backend = ScriptedBackend("cat", latency_s=LATENCY_S)
    sampler = Sampler(BaseClassifier(backend, Identity(), sigma=0.25), in_flight=in_flight, journal=journal)
    plan = Smoothing(sigma=0.25, n0=N0, n=N)
    start = time.perf_counter()
    async with anyio.create_task_group() as tasks:
        for number in range(pictures):
            picture = prepare(np.full((32, 32, 3), 100, np.uint8), "original", picture_id=number)
            tasks.start_soon(sampler.run, picture, certify_plan(plan), Recalled())
    return time.perf_counter() - start


def timed(journal: Callable[[ExitStack], Journal], in_flight: int, pictures: int) -> float:
    """The same with a journal of its own, closed afterwards."""
    with ExitStack() as stack:
        return anyio.run(certify, journal(stack), in_flight, pictures)


def ledger(stack: ExitStack) -> Journal:
    """A durable ledger in a folder that goes away."""
    folder = stack.enter_context(tempfile.TemporaryDirectory())
    return stack.enter_context(Ledger(Path(folder) / "ledger.db")).draws


def main() -> None:
    """Print the ratios and write them to benchmarks/results."""
    draws = PICTURES * (N0 + N)
    ideal = draws * LATENCY_S / IN_FLIGHT
    bare, kept = [], []
    for _ in range(TRIALS):
        bare.append(timed(lambda stack: ForgetfulJournal(), IN_FLIGHT, PICTURES))
        kept.append(timed(ledger, IN_FLIGHT, PICTURES))
    one_by_one = timed(ledger, 1, 1) * PICTURES
    figures = {
        "without ledger / ideal": statistics.median(bare) / ideal,
        "with ledger / ideal": statistics.median(kept) / ideal,
        "one after another / with ledger": one_by_one / statistics.median(kept),
    }
    for name, ratio in figures.items():
        print(f"{ratio:8.3f}  {name}")
    report = {
        "figures": figures,
        "settings": {"draws": draws, "in_flight": IN_FLIGHT, "latency_s": LATENCY_S, "trials": TRIALS},
        "note": "one after another: one picture, times the number of pictures",
        "machine": {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "software": software_versions(),
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
