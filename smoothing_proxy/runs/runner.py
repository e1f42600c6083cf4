"""Certify a folder: many pictures at once, every draw in the ledger, interrupted at any moment and resumed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import anyio
import anyio.to_thread

from smoothing_proxy.errors import DenoiserError, ImageError, ModelChangedError
from smoothing_proxy.images import noise, pixels
from smoothing_proxy.ledger.records import PictureRecord
from smoothing_proxy.ledger.store import Ledger
from smoothing_proxy.runs.manifest import (
    check_same_question,
    check_same_software,
    describe_question,
    software_versions,
)
from smoothing_proxy.smoothing.base_classifier import BaseClassifier
from smoothing_proxy.smoothing.drive import count_draws
from smoothing_proxy.smoothing.halt import Halt
from smoothing_proxy.smoothing.observe import Observer
from smoothing_proxy.smoothing.picture import Picture, prepare
from smoothing_proxy.smoothing.plan import certify_plan
from smoothing_proxy.smoothing.sampler import Sampler
from smoothing_proxy.smoothing.settings import Smoothing
from smoothing_proxy.types import Certificate, Cost, Label

__all__ = ["FolderRun", "RunObserver"]


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
class FolderRun:
    """A run over picture files.

    ledger: open, fresh or of the same question. names: files relative to `folder`. reference: the correct label
    of each name; None asks the classifier about each clean picture, one more query, as in the paper.
    pictures_at_once: whose draws are under way together. insecure_seed: derives each picture's noise from this
    number, its name and its pixels, so that a run can be repeated; whoever knows it can defeat the proof.
    """

    ledger: Ledger
    classifier: BaseClassifier
    smoothing: Smoothing
    folder: Path
    names: Sequence[str]
    reference: Mapping[str, Label] | None = None
    in_flight: int | None = None
    pictures_at_once: int = 4
    insecure_seed: int | None = None

    def begin(self, where: str) -> None:
        """Write the question down, or check that it is the one which the ledger's draws answer.

        where: the run's folder, for messages. Raises RunMismatchError when it is another question, and
        DenoiserError when the denoiser cannot take this noise level.
        """
        self.classifier.check_sigma()
        question = describe_question(
            self.smoothing,
            self.classifier,
            reference="the classifier's own answer on the clean picture"
            if self.reference is None
            else "given labels",
            insecure_seed=self.insecure_seed,
        )
        recorded = self.ledger.manifest()
        if recorded is None:
            self.ledger.begin(question, software_versions())
        else:
            check_same_question(recorded, question, where=where)
            if self.ledger.totals.pictures_begun() - self.ledger.verdicts().keys():
                check_same_software(self.ledger.software(), where=where)
        there = {record.name for record in self.ledger.pictures()}
        self.ledger.add_pictures([name for name in self.names if name not in there])
        self.ledger.refer(self.reference or {})

    async def run(self, observer: RunObserver, halt: Halt) -> None:
        """Bring every picture of `names` that has no verdict to one.

        Raises what the halt was asked for (Interrupted, or the fault that stops every picture), once the draws
        in flight have settled and are kept.
        """
        asked = set(self.names)
        records = [record for record in self.ledger.pictures() if record.name in asked]
        verdicts = self.ledger.verdicts()
        done = [verdicts[record.id] for record in records if record.id in verdicts]
        draws = len(records) * (count_draws(certify_plan(self.smoothing)) + int(self.reference is None))
        observer.begun(len(records), draws, done, self.ledger.totals.settled(), self.ledger.totals.cost())
        sampler = Sampler(
            self.classifier, in_flight=self.in_flight, journal=self.ledger.draws, observers=[observer]
        )
        waiting = iter([record for record in records if record.id not in verdicts])
        async with anyio.create_task_group() as workers:
            for _ in range(self.pictures_at_once):
                workers.start_soon(self._work, sampler, waiting, observer, halt)
        halt.check()

    async def _work(
        self, sampler: Sampler, waiting: Iterator[PictureRecord], observer: RunObserver, halt: Halt
    ) -> None:
        for record in waiting:
            if halt.requested:
                return
            try:
                await self._certify(sampler, record, observer, halt)
            except (ImageError, ModelChangedError) as error:
                self._leave_out(record, error, observer)
            except Exception as reason:  # noqa: BLE001 (raised by `run` once everything in flight has settled)
                halt.request(reason)

    async def _certify(self, sampler: Sampler, record: PictureRecord, observer: RunObserver, halt: Halt) -> None:
        record, picture = await anyio.to_thread.run_sync(self._open, record)
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
