"""The demo: a folder of digits certified with and without a denoiser, every draw in a ledger."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import numpy as np

from smoothing_proxy.assembly import make_ledger
from smoothing_proxy.backends.prices import price_of
from smoothing_proxy.demo.digits import export_test_digits
from smoothing_proxy.demo.figure import Column, draw_figure
from smoothing_proxy.demo.vendor import Vendor
from smoothing_proxy.denoisers.registry import denoiser
from smoothing_proxy.images import noise, pixels
from smoothing_proxy.ledger.records import PictureRecord
from smoothing_proxy.ledger.store import Ledger
from smoothing_proxy.runs.report import write_report
from smoothing_proxy.runs.runner import FolderRun, RunObserver
from smoothing_proxy.smoothing.base_classifier import BaseClassifier
from smoothing_proxy.smoothing.client import AsyncSmoothedClassifier
from smoothing_proxy.smoothing.halt import Halt
from smoothing_proxy.smoothing.settings import Smoothing
from smoothing_proxy.transport.settings import TransportSettings
from smoothing_proxy.types import Certificate

__all__ = ["Demo"]

SHOWN = 8

UNHURRIED = TransportSettings(requests_per_s=10_000)
"""The vendor on this machine has no limit to search for."""


@dataclass(frozen=True)
class Demo:
    """out: its folder; run again, what is settled there is not asked again. digits: how many test digits.

    vendor: where the black box is asked.
    """

    out: Path
    digits: int
    smoothing: Smoothing
    vendor: Vendor

    @property
    def folder(self) -> Path:
        """Where the digits lie as PNG files."""
        return self.out / "digits"

    @property
    def price_usd(self) -> float:
        """Of one query, by Amazon's list."""
        return price_of("aws-rekognition", None).usd

    def export(self) -> dict[str, str]:
        """Write the digits; returns file -> label."""
        return export_test_digits(self.folder, self.digits)

    def clean_accuracy(self, labels: dict[str, str]) -> float:
        """Share of the clean digits that the bare classifier gets right."""
        return anyio.run(self._clean_accuracy, labels)

    def certify(self, name: str, labels: dict[str, str], observer: RunObserver) -> dict[str, Any]:
        """Certify the digits behind the denoiser `name`, in the run folder of that name; returns its summary."""
        classifier = BaseClassifier(self.vendor.backend(), denoiser(name), sigma=self.smoothing.sigma)
        with make_ledger(self.out / name, paid=False) as ledger:
            run = FolderRun(
                ledger, classifier, self.smoothing, self.folder, list(labels), labels, transport=UNHURRIED
            )
            run.begin(str(self.out / name))
            anyio.run(_run_and_close, run, observer)
            self._draw(ledger, run, self.out / f"{name}.png")
            return write_report(ledger, self.out / name)

    async def _clean_accuracy(self, labels: dict[str, str]) -> float:
        vendor = self.vendor.backend()
        async with AsyncSmoothedClassifier(vendor, smoothing=self.smoothing, transport=UNHURRIED) as classifier:
            answers = [await classifier.classify(self.folder / name) for name in labels]
        return sum(answer == label for answer, label in zip(answers, labels.values(), strict=True)) / len(labels)

    def _draw(self, ledger: Ledger, run: FolderRun, path: Path) -> None:
        verdicts = ledger.verdicts()
        shown = _spread([record for record in ledger.pictures() if record.id in verdicts], verdicts)
        columns = [self._column(record, verdicts[record.id], run.classifier) for record in shown]
        draw_figure(columns, path, sigma=self.smoothing.sigma)

    def _column(self, record: PictureRecord, certificate: Certificate, classifier: BaseClassifier) -> Column:
        assert record.entropy is not None
        grid = noise.pixels_to_grid(pixels.read(self.folder / record.name))
        noisy = noise.noisy_batch(grid, record.entropy, [0], self.smoothing.sigma)
        denoised = classifier.denoiser.denoise(noisy, self.smoothing.sigma)
        clean = grid.astype(np.float32) / np.float32(noise.GRID_SCALE)
        return Column(clean, noisy[0], denoised[0], record.reference or "", certificate)


def _spread(records: list[PictureRecord], verdicts: dict[int, Certificate]) -> Iterator[PictureRecord]:
    """A few of the records, from the one proven furthest to the one proven least."""
    ranked = sorted(records, key=lambda record: -verdicts[record.id].radius)
    places = np.linspace(0, len(ranked) - 1, min(SHOWN, len(ranked))).round().astype(int)
    return (ranked[place] for place in places)


async def _run_and_close(run: FolderRun, observer: RunObserver) -> None:
    try:
        await run.run(observer, Halt())
    finally:
        await run.classifier.backend.aclose()
