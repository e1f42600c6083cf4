"""Money: the ledger's one number is tracked where it is enforced."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest
from PIL import Image

from smoothing_proxy.backends.base import Backend
from smoothing_proxy.backends.scripted import ScriptedBackend
from smoothing_proxy.denoisers.registry import denoiser
from smoothing_proxy.errors import BackendError, BackendTimeoutError, BudgetExceededError, RequestRejectedError
from smoothing_proxy.images.codec import EncodedImage, Encoding, encode
from smoothing_proxy.ledger.account import Account
from smoothing_proxy.ledger.records import PictureRecord
from smoothing_proxy.ledger.store import Ledger
from smoothing_proxy.runs.report import write_report
from smoothing_proxy.runs.runner import FolderRun
from smoothing_proxy.runs.waiting import Waiting
from smoothing_proxy.smoothing.base_classifier import BaseClassifier
from smoothing_proxy.smoothing.halt import Halt
from smoothing_proxy.smoothing.settings import Smoothing
from smoothing_proxy.transport.settings import TransportSettings
from smoothing_proxy.types import Certificate, Reply, ScoredLabel
from tests.runs.silent import Silent

SMOOTHING = Smoothing(sigma=0.25, n0=5, n=20, alpha=0.01)
PER_PICTURE = 25
HASTY = TransportSettings(requests_per_s=1_000, backoff_base_s=0.01, backoff_max_s=0.02)


@dataclass
class Folder:
    """Four pictures, and runs over them into one ledger."""

    path: Path
    spent: list[int] = field(default_factory=list)
    certificates: list[Certificate] = field(default_factory=list)

    def verdicts(self) -> list[Certificate]:
        return self.certificates

    def run(self, backend: Backend, limit: int | None, *, canaries: bool = False) -> tuple[Any, Mapping[str, Any]]:
        """What stopped the run, and its summary."""
        classifier = BaseClassifier(backend, denoiser("identity"), sigma=SMOOTHING.sigma)
        names = sorted(path.name for path in self.path.glob("*.png"))
        with Ledger(self.path / "ledger.db", limit_queries=limit) as ledger:
            run = FolderRun(
                ledger,
                classifier,
                SMOOTHING,
                self.path,
                names,
                dict.fromkeys(names, "cat"),
                transport=HASTY if backend.remote else None,
                canaries=canaries,
            )
            run.begin("here")
            fault = None
            try:
                anyio.run(run.run, Silent(), Halt())
            except Exception as error:  # noqa: BLE001 (returned)
                fault = error
            cost = ledger.totals.cost()
            assert ledger.account.spent == cost.queries + cost.unknown
            self.spent.append(ledger.account.spent)
            self.certificates = list(ledger.verdicts().values())
            return fault, write_report(ledger, self.path.parent)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    for number in range(4):
        Image.fromarray(np.full((8, 8, 3), 60 * number, np.uint8)).save(tmp_path / f"{number}.png")
    return Folder(tmp_path)


@pytest.mark.parametrize(("limit", "decided"), [(0, 0), (24, 0), (25, 1), (74, 2), (99, 3), (100, 4), (None, 4)])
def test_only_whole_proofs_are_begun(folder: Folder, limit: int | None, decided: int) -> None:
    fault, summary = folder.run(ScriptedBackend("cat", price_usd=0.001), limit)
    assert summary["pictures"]["decided"] == decided
    assert folder.spent == [decided * PER_PICTURE]
    assert isinstance(fault, BudgetExceededError) == (decided < 4)


def test_a_larger_budget_goes_on_where_the_smaller_one_ended(folder: Folder) -> None:
    backend = ScriptedBackend("cat", price_usd=0.001)
    folder.run(backend, 60)
    fault, summary = folder.run(backend, 100)
    assert fault is None
    assert summary["complete"]
    assert backend.asked == 100


@pytest.mark.parametrize(
    ("error", "spent"),
    [
        (lambda: BackendTimeoutError("no answer", backend="scripted"), 100),
        (lambda: RequestRejectedError("too small", backend="scripted"), 100 - 7),
    ],
    ids=["maybe billed", "not billed"],
)
def test_failures_are_charged_where_they_may_have_been_billed(
    folder: Folder, error: Callable[[], BackendError], spent: int
) -> None:
    backend = ScriptedBackend("cat", price_usd=0.001, failures={i: error() for i in range(3, 31, 4)})
    _, summary = folder.run(backend, None)
    assert summary["draws"]["failed"] == 7
    assert folder.spent == [spent]


def test_canaries_ask_at_the_start_in_the_middle_and_at_the_end(folder: Folder) -> None:
    backend = ScriptedBackend("cat", price_usd=0.001)
    fault, summary = folder.run(backend, None, canaries=True)
    assert fault is None
    assert backend.asked == 4 * PER_PICTURE + 3
    assert summary["drift"] == {
        "canaries": 3, "changed": False, "votes": ["cat"], "model_versions": [""], "confidence_change": 0.0
    }  # fmt: skip


class SilentAboutTheClean:
    """Never answers about one copy, and may have billed it each time."""

    name, batch_size, concurrency, price_usd, remote, encoding = "silent", 1, 4, 0.001, True, Encoding("png")
    fingerprint: Mapping[str, str] = {"name": "silent"}

    def __init__(self, clean: bytes) -> None:
        self._clean = clean

    async def classify(self, copies: Sequence[EncodedImage]) -> Sequence[Reply | BackendError]:
        if copies[0].data == self._clean:
            raise BackendTimeoutError("silent: no answer", backend="silent")
        return [Reply((ScoredLabel("cat", 0.9),))]

    async def aclose(self) -> None:
        """Nothing to close."""


def test_a_canary_that_needs_more_than_was_kept_for_it_takes_nothing_from_the_pictures(folder: Folder) -> None:
    clean = encode(np.zeros((8, 8, 3), np.uint8), Encoding("png")).data
    fault, summary = folder.run(SilentAboutTheClean(clean), 4 * PER_PICTURE + 3, canaries=True)
    assert fault is None
    assert summary["pictures"]["decided"] == 4
    assert folder.spent == [4 * PER_PICTURE + 3]


def test_a_classifier_that_changes_between_certificates_is_reported(folder: Folder) -> None:
    answers = iter(range(10_000))
    backend = ScriptedBackend(lambda _: "cat" if next(answers) < 60 else "dog", price_usd=0.001)
    _, summary = folder.run(backend, None, canaries=True)
    assert summary["drift"]["changed"]
    assert summary["drift"]["votes"] == ["cat", "dog"]
    assert summary["drift"]["confidence_change"] == 1.0


def test_a_finished_run_asks_no_canary(folder: Folder) -> None:
    backend = ScriptedBackend("cat", price_usd=0.001)
    folder.run(backend, None, canaries=True)
    folder.run(backend, None, canaries=True)
    assert backend.asked == 4 * PER_PICTURE + 3


@pytest.mark.parametrize(("limit", "decided"), [(103, 4), (102, 3), (2, 0)])
def test_canaries_are_promised_before_the_proofs(folder: Folder, limit: int, decided: int) -> None:
    _, summary = folder.run(ScriptedBackend("cat", price_usd=0.001), limit, canaries=True)
    assert summary["pictures"]["decided"] == decided
    assert summary["drift"]["canaries"] == min(3, limit)
    assert folder.spent == [decided * PER_PICTURE + summary["drift"]["canaries"]]


def test_an_account_lets_nobody_take_what_another_was_promised() -> None:
    account = Account(spent=10, limit=100)
    assert account.promise(1, 60)
    assert not account.promise(2, 31)
    account.charge(2, 30)
    with pytest.raises(BudgetExceededError) as refused:
        account.charge(2, 1)
    assert (refused.value.spent, refused.value.limit) == (40, 100)
    account.charge(1, 60)
    account.credit(1, 5)
    assert (account.promised(1), account.free) == (5, 0), "a send that cost nothing gives its promise back"
    account.release(1)
    assert (account.spent, account.free) == (95, 5)


def test_one_send_that_may_have_been_billed_takes_nothing_from_the_other_pictures(folder: Folder) -> None:
    error = BackendTimeoutError("no answer", backend="scripted")
    backend = ScriptedBackend("cat", price_usd=0.001, remote=True, failures={3: error})
    fault, summary = folder.run(backend, 100)
    assert isinstance(fault, BudgetExceededError)
    assert summary["pictures"]["decided"] == 3
    assert folder.spent == [100]
    fault, summary = folder.run(backend, 101)
    assert fault is None
    assert summary["complete"]


def test_what_is_left_of_a_budget_goes_to_a_picture_that_it_is_enough_for(folder: Folder) -> None:
    needs = {0: 25, 1: 5}
    account = Account(spent=90, limit=100)
    waiting = Waiting([PictureRecord(0, "a"), PictureRecord(1, "b")], lambda record: needs[record.id], account)
    taken = waiting.take()
    assert taken is not None
    assert (taken.id, waiting.take(), waiting.short) == (1, None, True)


def test_a_model_that_changed_before_a_pictures_first_draw_does_not_void_it(folder: Folder) -> None:
    answers = iter(range(10_000))
    backend = ScriptedBackend(
        lambda _: Reply((ScoredLabel("cat", 1.0),), "1" if next(answers) == 0 else "2"), price_usd=0.001
    )
    fault, summary = folder.run(backend, None, canaries=True)
    assert fault is None
    assert summary["pictures"]["decided"] == 4
    assert summary["drift"]["changed"]
    assert sum(certificate.cost.queries for certificate in folder.verdicts()) == 4 * PER_PICTURE


def test_a_backend_that_breaks_in_the_middle_of_a_send_is_charged_for_it(folder: Folder) -> None:
    class BrokenError(Exception): ...

    def answer(_: object) -> str:
        raise BrokenError

    fault, _ = folder.run(ScriptedBackend(answer, price_usd=0.001), None)
    assert isinstance(fault, BrokenError)
    assert folder.spent[0] >= 1
