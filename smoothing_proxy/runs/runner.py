"""Certify a folder: many pictures at once, every draw in the ledger, interrupted at any moment and resumed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import anyio
import anyio.to_thread

from smoothing_proxy.errors import BudgetExceededError, DenoiserError, ImageError, ModelChangedError
from smoothing_proxy.images import noise, pixels
from smoothing_proxy.ledger.records import PictureRecord
from smoothing_proxy.ledger.store import Ledger
from smoothing_proxy.runs.canary import Canary
from smoothing_proxy.runs.family import Family
from smoothing_proxy.runs.manifest import (
    check_same_question,
    check_same_software,
    describe_question,
    software_versions,
)
from smoothing_proxy.runs.waiting import Waiting
from smoothing_proxy.smoothing.base_classifier import BaseClassifier
from smoothing_proxy.smoothing.halt import Halt
from smoothing_proxy.smoothing.observe import CLEAN, Observer
from smoothing_proxy.smoothing.picture import Picture, prepare
from smoothing_proxy.smoothing.plan import certify_plan, most_draws, warm
from smoothing_proxy.smoothing.sampler import Sampler
from smoothing_proxy.smoothing.settings import Smoothing
from smoothing_proxy.transport.settings import TransportSettings
from smoothing_proxy.types import Certificate, Cost, Label

__all__ = ["FolderRun", "RunObserver"]

FEW_PICTURES, MANY_PICTURES = 4, 64
"""Under way at once. More of them finish later: a run that is stopped has then more halves of proofs."""

DRAWS_AT_ONCE = 8
"""That a sequential proof has in flight, or a few more."""


class RunObserver(Observer, Protocol):
    """Watches a run: draws settle, and pictures end."""

    def begun(self, pictures: int, draws: int, decided: Sequence[Certificate], settled: int, cost: Cost) -> None:
        """The run begins or resumes.

        pictures, draws: of the whole run. decided, settled, cost: what an earlier process did of them.
        """
        ...

    def decided(self, record: PictureRecord, certificate: Certificate) -> None:
        """A picture has its verdict."""
        ...

    def left_out(self, record: PictureRecord) -> None:
        """A picture cannot be certified; record.error says why. The run goes on."""
        ...


@dataclass(frozen=True)
class _Work:
    """What the workers of one process share. middle: pictures left when half are done."""

    sampler: Sampler
    waiting: Waiting
    observer: RunObserver
    halt: Halt
    canary: Canary | None
    middle: int

    async def ask_canary(self) -> None:
        """A fault that stops every picture stops the run here as well."""
        if self.canary is not None:
            try:
                await self.canary.ask(self.halt)
            except BudgetExceededError:
                pass  # its one query may have been billed, and the rest is promised to pictures
            except Exception as reason:  # noqa: BLE001 (raised by `run` once everything in flight has settled)
                self.halt.request(reason)


@dataclass(frozen=True)
class FolderRun:
    """A run over picture files.

    ledger: open, fresh or of the same question. names: files relative to `folder`. reference: the correct label
    of each name; None asks the classifier about each clean picture, one more query, as in the paper.
    transport: retries, rate and outages; None as the sampler has it. pictures_at_once: whose draws are under way
    together; None takes as many as keep the vendor busy. canaries: ask about one clean picture as well, at the
    start, in the middle and at the end. insecure_seed: derives each picture's noise from this number, its name
    and its pixels, so that a run can be repeated; whoever knows it can defeat the proof.
    family: what the certificates say together; `smoothing` has what it leaves to one picture. None: each for
    itself. beside: further entries of the run's question, as JSON values.
    """

    ledger: Ledger
    classifier: BaseClassifier
    smoothing: Smoothing
    folder: Path
    names: Sequence[str]
    reference: Mapping[str, Label] | None = None
    in_flight: int | None = None
    transport: TransportSettings | None = None
    pictures_at_once: int | None = None
    canaries: bool = False
    insecure_seed: int | None = None
    family: Family | None = None
    beside: Mapping[str, Any] = field(default_factory=dict)

    def begin(self, where: str) -> None:
        """Write the question down, or check that it is the one which the ledger's draws answer.

        where: the run's folder, for messages. Raises RunMismatchError when it is another question, or the folder
        has grown beyond what its family was shared out over; ConfigError when the settings are not those that the
        family leaves to one picture; DenoiserError when the denoiser cannot take this noise level.
        """
        self.classifier.check_sigma()
        there = {record.name for record in self.ledger.pictures()}
        family = self.family or Family("per-picture", self.smoothing.alpha, len({*self.names}))
        family.check(self.smoothing)
        question = describe_question(
            self.smoothing,
            self.classifier,
            reference="the classifier's own answer on the clean picture"
            if self.reference is None
            else "given labels",
            insecure_seed=self.insecure_seed,
            beside={"family": family.described(), **self.beside},
        )
        recorded = self.ledger.manifest()
        if recorded is not None:
            check_same_question(recorded, question, where=where)
            if self.ledger.totals.pictures_begun() - self.ledger.verdicts().keys():
                check_same_software(self.ledger.software(), where=where)
        family.check_pictures(len(there.union(self.names)), where=where)
        if recorded is None:
            self.ledger.begin(question, software_versions())
        self.ledger.add_pictures([name for name in self.names if name not in there])
        self.ledger.refer(self.reference or {})

    async def run(self, observer: RunObserver, halt: Halt) -> None:
        """Bring every picture of `names` that has no verdict to one.

        Raises what the halt was asked for (Interrupted, or the fault that stops every picture), once the draws
        in flight have settled and are kept; BudgetExceededError when no further picture can be afforded.
        """
        asked = set(self.names)
        records = [record for record in self.ledger.pictures() if record.name in asked]
        verdicts = self.ledger.verdicts()
        done = [verdicts[record.id] for record in records if record.id in verdicts]
        draws = len(records) * self._queries_per_picture
        await anyio.to_thread.run_sync(warm, self.smoothing)
        observer.begun(len(records), draws, done, self.ledger.totals.settled(), self.ledger.totals.cost())
        sampler = Sampler(
            self.classifier,
            in_flight=self.in_flight,
            transport=self.transport,
            journal=self.ledger.draws,
            observers=[observer],
        )
        left = [record for record in records if record.id not in verdicts]
        canary = await self._canary(sampler, records) if self.canaries and left else None
        waiting = Waiting(left, self._queries_left, self.ledger.account)
        work = _Work(sampler, waiting, observer, halt, canary, middle=len(left) // 2)
        await work.ask_canary()
        before = -1
        while len(waiting) not in (0, before) and not halt.requested:
            before = len(waiting)
            async with anyio.create_task_group() as workers:
                for _ in range(self.pictures_at_once or self._enough_pictures()):
                    workers.start_soon(self._work, work)
        await work.ask_canary()
        if waiting.short:
            halt.request(self.ledger.account.exceeded())
        halt.check()

    async def _work(self, work: _Work) -> None:
        try:
            while not work.halt.requested and (record := work.waiting.take()) is not None:
                if len(work.waiting) == work.middle:
                    await work.ask_canary()
                await self._one(work, record)
                work.waiting.done(record)
        except Exception as reason:  # noqa: BLE001 (raised by `run` once everything in flight has settled)
            work.halt.request(reason)

    async def _one(self, work: _Work, record: PictureRecord) -> None:
        try:
            await self._certify(work.sampler, record, work.observer, work.halt)
        except (ImageError, ModelChangedError) as error:
            self._leave_out(record, error, work.observer)
        except BudgetExceededError:
            # Sends that may have been billed have used up its promise; other pictures still have theirs.
            work.waiting.put_back(record)

    def _enough_pictures(self) -> int:
        """So many that the places in flight are taken although a sequential proof takes few at a time."""
        if self.smoothing.certify_method == "fixed":
            return FEW_PICTURES
        backend = self.classifier.backend
        places = (self.in_flight or backend.concurrency) * backend.batch_size
        return min(MANY_PICTURES, max(FEW_PICTURES, places // DRAWS_AT_ONCE))

    def _queries_left(self, record: PictureRecord) -> int:
        """The most that this picture still needs: what its plan may ask for and is not settled."""
        settled = sum(number >= CLEAN for number in self.ledger.recall(record.id).votes)
        return max(0, self._queries_per_picture - settled)

    @property
    def _queries_per_picture(self) -> int:
        return most_draws(self.smoothing) + int(self.reference is None)

    async def _canary(self, sampler: Sampler, records: Sequence[PictureRecord]) -> Canary | None:
        """On the first picture that can be read, whichever process asks."""
        for record in records:
            try:
                _, picture = await anyio.to_thread.run_sync(self._open, record)
            except ImageError:
                continue
            canary = Canary(self.ledger, sampler, picture)
            canary.promise()
            return canary
        return None

    async def _certify(self, sampler: Sampler, record: PictureRecord, observer: RunObserver, halt: Halt) -> None:
        record, picture = await anyio.to_thread.run_sync(self._open, self.ledger.picture(record.id))
        try:
            self.classifier.check(picture)
        except DenoiserError as error:
            raise ImageError(str(error)) from error
        recalled = self.ledger.recall(record.id)
        if self.reference is None and record.reference is None:
            label, cost = await sampler.clean(picture, recalled, halt)
            recalled = replace(recalled, cost=cost)
            record = replace(record, reference=label)
            self.ledger.describe(record)
        certificate, cost = await sampler.run(picture, certify_plan(self.smoothing), recalled, halt)
        certificate = replace(picture.place(certificate), cost=cost.at(self.classifier.backend.price_usd))
        self.ledger.decide(record.id, certificate)
        observer.decided(record, certificate)

    def _leave_out(self, record: PictureRecord, error: Exception, observer: RunObserver) -> None:
        record = replace(self.ledger.picture(record.id), error=str(error))
        self.ledger.describe(record)
        observer.left_out(record)

    def _open(self, record: PictureRecord) -> tuple[PictureRecord, Picture]:
        """Decode a picture, with the entropy it had before, or with fresh bits that are kept before any draw."""
        image = pixels.read(self.folder / record.name)
        sha256 = pixels.pixels_sha256(image)
        if record.sha256 not in (None, sha256):
            raise ImageError(f"{self.folder / record.name}: the picture has changed since its first draws")
        entropy = record.entropy or self._entropy(record.name, sha256)
        record = replace(record, sha256=sha256, size=image.shape[:2], entropy=entropy, error=None)
        self.ledger.describe(record)
        return record, prepare(image, self.smoothing.working_size, picture_id=record.id, entropy=entropy)

    def _entropy(self, name: str, sha256: str) -> bytes:
        if self.insecure_seed is None:
            return noise.new_entropy()
        return noise.insecure_entropy(self.insecure_seed, f"{sha256} {name}".encode())
