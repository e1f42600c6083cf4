"""A vendor that fails in every way it can: verdicts stay valid, and every send is in the ledger."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import anyio
import numpy as np
import pytest
from PIL import Image

from smoothing_proxy.backends.base import Backend
from smoothing_proxy.backends.scripted import ScriptedBackend
from smoothing_proxy.denoisers.registry import denoiser
from smoothing_proxy.errors import (
    AuthenticationError,
    BackendError,
    BackendTimeoutError,
    BackendUnavailableError,
    MalformedReplyError,
    QuotaExceededError,
    RateLimitedError,
    RequestRejectedError,
)
from smoothing_proxy.images.codec import EncodedImage, Encoding
from smoothing_proxy.ledger.store import Ledger
from smoothing_proxy.runs.report import write_report
from smoothing_proxy.runs.runner import FolderRun
from smoothing_proxy.smoothing.base_classifier import BaseClassifier
from smoothing_proxy.smoothing.halt import Halt
from smoothing_proxy.smoothing.settings import Smoothing
from smoothing_proxy.transport.settings import TransportSettings
from smoothing_proxy.types import Reply
from tests.runs.silent import Silent

SMOOTHING = Smoothing(sigma=0.25, n0=10, n=60, alpha=0.01)
HASTY = TransportSettings(
    requests_per_s=10_000,
    backoff_base_s=0.001,
    backoff_max_s=0.002,
    circuit_pause_s=0.01,
    circuit_pause_max_s=0.02,
)

BILLED, MAYBE, FREE = "billed", "maybe billed", "not billed"
FAULTS: Mapping[Callable[..., BackendError], str] = {
    BackendTimeoutError: MAYBE,
    BackendUnavailableError: FREE,
    RateLimitedError: FREE,
    RequestRejectedError: FREE,
    MalformedReplyError: MAYBE,
}


class Unreliable:
    """Fails 30 % of the sends, a few at a time, and keeps its own bill. batch_size: copies per request."""

    name, concurrency, price_usd, remote, encoding = "unreliable", 16, 0.0, True, Encoding()
    fingerprint: Mapping[str, str] = {"name": "unreliable"}

    def __init__(self, rng: random.Random, batch_size: int) -> None:
        self.batch_size = batch_size
        self.bill: Counter[str] = Counter()
        self._vendor = ScriptedBackend("cat")
        self._rng = rng

    async def aclose(self) -> None:
        await self._vendor.aclose()

    async def classify(self, copies: Sequence[EncodedImage]) -> Sequence[Reply | BackendError]:
        return [self._spoiled(answer) for answer in await self._vendor.classify(copies)]

    def _spoiled(self, answer: Reply | BackendError) -> Reply | BackendError:
        if self._rng.random() > 0.3:
            self.bill[BILLED] += 1
            return answer
        kind = self._rng.choice(list(FAULTS))
        self.bill[FAULTS[kind]] += 1
        error: BackendError = kind("failed for a test", backend=self.name)
        return error


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for number in range(4):
        Image.fromarray(np.full((8, 8, 3), 60 * number, np.uint8)).save(tmp_path / f"{number}.png")
    return tmp_path


def certify(folder: Path, backend: Backend, ledger: Ledger) -> Exception | None:
    """Run the folder; returns what stopped it."""
    classifier = BaseClassifier(backend, denoiser("identity"), sigma=SMOOTHING.sigma)
    names = [f"{number}.png" for number in range(4)]
    run = FolderRun(ledger, classifier, SMOOTHING, folder, names, dict.fromkeys(names, "cat"), transport=HASTY)
    run.begin("here")
    try:
        anyio.run(run.run, Silent(), Halt())
    except Exception as error:  # noqa: BLE001 (returned)
        return error
    return None


@pytest.mark.parametrize("batch", [1, 7])
@pytest.mark.parametrize("seed", range(3))
def test_the_ledger_knows_every_send_of_an_unreliable_vendor(pictures: Path, seed: int, batch: int) -> None:
    backend = Unreliable(random.Random(seed), batch)
    with Ledger(pictures / "ledger.db", durable=False) as ledger:
        assert certify(pictures, backend, ledger) is None
        cost = ledger.totals.cost()
        assert cost.queries == backend.bill[BILLED]
        assert cost.unknown == backend.bill[MAYBE]
        assert ledger.account.spent == cost.queries + cost.unknown
        assert ledger.totals.settled() == 4 * 70, "none dropped, none drawn twice"
        summary = write_report(ledger, pictures)
        certificates = ledger.verdicts().values()
    assert summary["complete"]
    assert summary["draws"]["failed"] > 0
    assert sum(c.votes.failed + c.selection.failed for c in certificates) == summary["draws"]["failed"]
    assert all(c.votes.n == 60 for c in certificates)
    assert sum(c.cost.queries for c in certificates) == cost.queries
    assert sum(c.cost.unknown for c in certificates) == cost.unknown


@pytest.mark.parametrize("fatal", [AuthenticationError, QuotaExceededError])
def test_what_stops_the_run_costs_nothing_and_is_asked_again(pictures: Path, fatal: type[BackendError]) -> None:
    refused = ScriptedBackend(
        "cat", remote=True, failures={i: fatal("no more", backend="scripted") for i in range(100, 1000)}
    )
    with Ledger(pictures / "ledger.db", durable=False) as ledger:
        assert isinstance(certify(pictures, refused, ledger), fatal)
        assert ledger.totals.cost().queries == 100
        assert ledger.totals.cost().unknown == 0
        again = ScriptedBackend("cat", remote=True)
        assert certify(pictures, again, ledger) is None
        assert again.asked == 4 * 70 - 100
        assert ledger.totals.failures() == {}
