"""Certify a folder: many pictures at once, every draw in the ledger, interrupted at any moment and resumed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import anyio
import anyio.to_thread

from smoothing_proxy.errors import DenoiserError, ImageError, RunMismatchError
from smoothing_proxy.images import noise, pixels
from smoothing_proxy.ledger.records import PictureRecord
from smoothing_proxy.ledger.store import Ledger
from smoothing_proxy.runs.manifest import (
    check_same_pictures,
    check_same_question,
    describe_question,
    software_versions,
)
from smoothing_proxy.smoothing.base_classifier import BaseClassifier
from smoothing_proxy.smoothing.halt import FATAL, Halt, Interrupted
from smoothing_proxy.smoothing.observe import CLEAN, Observer, Recalled
from smoothing_proxy.smoothing.picture import Picture, prepare
from smoothing_proxy.smoothing.plan import certify_plan
from smoothing_proxy.smoothing.sampler import Sampler
from smoothing_proxy.smoothing.settings import Smoothing
from smoothing_proxy.types import Certificate, Label

__all__ = ["FolderRun", "RunObserver"]


class RunObserver(Observer, Protocol):
    """Watches a run: draws settle, and pictures end."""

    def begun(self, pictures: int, decided: int, draws_per_picture: int) -> None:
        """The run begins or resumes with `decided` of its pictures done."""
        ...

    def decided(self, record: PictureRecord, certificate: Certificate) -> None:
        """A picture has its verdict."""
        ...

    def unreadable(self, record: PictureRecord) -> None:
        """A picture cannot be certified; record.error says why. The run goes on."""
        ...


@dataclass(frozen=True)
class FolderRun:
    """A run over picture files.

    ledger: open, fresh or of the same question. names: files relative to `folder`. reference: the correct label
    of each name; None asks the classifier about each clean picture, one more query, as in the paper.
    pictures_at_once: whose draws are under way together. insecure_seed: derives every picture's noise from this
    number, so that a run can be repeated; whoever knows it can defeat the proof.
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

    def begin(self) -> None:
        """Write the question down, or check that it is the one which the ledger's draws answer.

        Raises RunMismatchError when it is not, DenoiserError when the denoiser cannot take this noise level.
        """
        self.classifier.check_sigma()
        question = describe_question(self.smoothing, self.classifier, insecure_seed=self.insecure_seed)
        recorded = self.ledger.manifest()
        if recorded is None:
            self.ledger.begin(question, software_versions())
        else:
            check_same_question(recorded, question, where=str(self.folder))
        known = self.ledger.pictures()
        check_same_pictures(known, self.names, where=str(self.folder))
        there = {record.name for record in known}
        self.ledger.add_pictures([name for name in self.names if name not in there])

    async def run(self, observer: RunObserver, halt: Halt) -> None:
        """Bring every picture that has no verdict to one.

        Raises what the halt was asked for (Interrupted, or the fault that stops every picture), once the draws
        in flight have settled and are kept.
        """
        done = self.ledger.verdicts()
        records = self.ledger.pictures()
        observer.begun(len(records), len(done), self.smoothing.n0 + self.smoothing.n)
        sampler = Sampler(
            self.classifier,
            in_flight=self.in_flight,
            journal=self.ledger.draws,
            observers=[observer],
            halt=halt,
        )
        waiting = iter([record for record in records if record.id not in done])
        async with anyio.create_task_group() as workers:
            for _ in range(self.pictures_at_once):
                workers.start_soon(self._work, sampler, waiting, observer)
        halt.check()

    async def _work(self, sampler: Sampler, waiting: Iterator[PictureRecord], observer: RunObserver) -> None:
        for record in waiting:
            if sampler.halt.requested:
                return
            try:
                await self._certify(sampler, record, observer)
            except (*FATAL, RunMismatchError, Interrupted) as reason:
                sampler.halt.request(reason)

    async def _certify(self, sampler: Sampler, record: PictureRecord, observer: RunObserver) -> None:
        try:
            record, picture = await anyio.to_thread.run_sync(self._open, record)
            self.classifier.check(picture)
        except (ImageError, DenoiserError) as error:
            record = replace(record, error=str(error))
            self.ledger.describe(record)
            observer.unreadable(record)
            return
        recalled = self.ledger.draws.recall(record.id)
        record = await self._refer(sampler, record, picture, recalled)
        self.ledger.describe(record)
        certificate, _ = await sampler.run(picture, certify_plan(self.smoothing), recalled)
        cost = self.ledger.draws.recall(record.id).cost.at(self.classifier.backend.price_usd)
        certificate = replace(picture.place(certificate), cost=cost)
        self.ledger.decide(record.id, certificate)
        observer.decided(record, certificate)

    def _open(self, record: PictureRecord) -> tuple[PictureRecord, Picture]:
        """Decode a picture, with the entropy it had before, or with fresh bits that are kept before any draw."""
        image = pixels.read(self.folder / record.name)
        sha256 = pixels.pixels_sha256(image)
        if record.sha256 not in (None, sha256):
            raise RunMismatchError(
                f"{self.folder / record.name}: the picture has changed since its first draws; use another --out"
            )
        entropy = record.entropy or self._entropy(sha256)
        record = replace(record, sha256=sha256, size=image.shape[:2], entropy=entropy, error=None)
        self.ledger.describe(record)
        return record, prepare(image, self.smoothing.working_size, picture_id=record.id, entropy=entropy)

    def _entropy(self, sha256: str) -> bytes:
        if self.insecure_seed is None:
            return noise.new_entropy()
        return noise.insecure_entropy(self.insecure_seed, bytes.fromhex(sha256))

    async def _refer(
        self, sampler: Sampler, record: PictureRecord, picture: Picture, recalled: Recalled
    ) -> PictureRecord:
        """The record with the label that counts as correct."""
        if self.reference is not None:
            return replace(record, reference=self.reference[record.name])
        if CLEAN in recalled.votes:
            return replace(record, reference=recalled.votes[CLEAN])
        label, _ = await sampler.clean(picture, recalled)
        return replace(record, reference=label)
