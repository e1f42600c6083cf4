"""An evaluation from its config: every denoiser in front of every target, certified, as a table and as JSON."""

from __future__ import annotations

import hashlib
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console

from denoiser_training.batches import centre_crops, to_unit
from denoiser_training.certify import Certified, Certifier, Pixels, answers
from denoiser_training.data import load_pictures, split
from denoiser_training.evaluate_config import EvaluationConfig
from denoiser_training.faults import memory_told
from denoiser_training.files import claimed
from denoiser_training.journal import Display
from denoiser_training.machine import device_named, hardware
from denoiser_training.pictures import Pictures
from denoiser_training.surrogates import Surrogate, load_surrogate
from denoiser_training.table import PAPER_ROWS, Row, markdown, read_report, write_report
from smoothing_proxy.denoisers.base import Denoiser
from smoothing_proxy.denoisers.identity import Identity
from smoothing_proxy.denoisers.registry import denoiser
from smoothing_proxy.errors import ConfigError
from smoothing_proxy.images.noise import new_entropy
from smoothing_proxy.stats.curves import Judged, abstention_rate, average_certified_radius, certified_accuracy
from smoothing_proxy.types import Certificate, Label

__all__ = ["evaluate"]

PACKAGES = ("smoothing-proxy", "numpy", "scipy", "torch", "torchvision", "pillow")


def evaluate(config: EvaluationConfig, out: Path, console: Console) -> Path:
    """Compute the rows that `out` does not hold yet; returns the table's path.

    out: gets evaluation.json, written again after each denoiser, and evaluation.md. Interrupted at any moment it
    keeps the finished rows. Bad input raises before anything is computed: ConfigError, ImageError, DenoiserError.
    TrainingError when memory runs out.
    """
    with memory_told(config.name, "set certify.batch lower"):
        panel = _panel(config, device_named(config.runtime.device))
        with claimed(out):
            return _evaluated(panel, out, console)


def _evaluated(panel: _Panel, out: Path, console: Console) -> Path:
    config = panel.config
    report_path, table_path = out / "evaluation.json", out / "evaluation.md"
    report = read_report(report_path, panel.question(), EvaluationConfig)
    work = [(spec, panel.without_row(spec, report.rows)) for spec in panel.denoisers]
    work = [(spec, targets) for spec, targets in work if targets]
    console.print(f"{config.data.shown}: {len(panel.pictures)} pictures", highlight=False, markup=False)
    with Display(console, config.name, len(work) * len(panel.pictures), 0) as display:
        display.news("without a denoiser")
        noisy = panel.noisy() if work else {}
        for number, (spec, targets) in enumerate(work):
            report = report.with_rows(panel.rows(spec, targets, noisy, display, number * len(panel.pictures)))
            write_report(report_path, report)
            table_path.write_text(panel.table(report.rows), encoding="utf-8")
    table_path.write_text(panel.table(report.rows), encoding="utf-8")
    console.print(table_path.read_text(encoding="utf-8"), highlight=False, markup=False)
    return table_path


@dataclass(frozen=True)
class _Target:
    """A classifier on the device. clean: its answers to the clean pictures. truth: the correct ones; int64 [n]."""

    classifier: Surrogate
    clean: npt.NDArray[np.int64]
    truth: npt.NDArray[np.int64]

    @property
    def name(self) -> str:
        return self.classifier.name


@dataclass(frozen=True)
class _Panel:
    """What is evaluated. pictures: uint8 [n, h, w, 3]. denoisers: by spec."""

    config: EvaluationConfig
    pictures: Pixels
    labels: npt.NDArray[np.int64] | None
    denoisers: Mapping[str, Denoiser]
    targets: Sequence[_Target]
    device: torch.device

    def question(self) -> dict[str, Any]:
        """The settings that all rows share; the pictures stand in it by their digest."""
        digest = hashlib.sha256(self.pictures.tobytes())
        digest.update(b"" if self.labels is None else self.labels.tobytes())
        return {**self.config.question(), "pictures_sha256": digest.hexdigest()}

    def without_row(self, spec: str, rows: Sequence[Row]) -> list[_Target]:
        """The targets that this denoiser has not met in `rows`."""
        met = {row.key for row in rows}
        return [target for target in self.targets if _key(self.denoisers[spec], target) not in met]

    def noisy(self) -> dict[str, float]:
        """Accuracy of each target on single noisy copies: the mean over n0 copies of each picture."""
        undefended = self._certifier(Identity(), self.targets)
        draws = self.config.certify.n0
        right = dict.fromkeys((target.name for target in self.targets), 0)
        for i, picture in enumerate(self.pictures):
            votes = undefended.votes(picture, new_entropy(), draws)
            for target, given in zip(self.targets, votes, strict=True):
                right[target.name] += given.of(_label(target, i))
        return {name: count / (draws * len(self.pictures)) for name, count in right.items()}

    def rows(
        self, spec: str, targets: Sequence[_Target], noisy: Mapping[str, float], display: Display, done: int
    ) -> list[Row]:
        """One per target. done: pictures before these, for the display."""
        start = time.perf_counter()
        display.news(spec)
        certifier = self._certifier(self.denoisers[spec], targets)
        found: list[Certified] = []
        for picture in self.pictures:
            found.append(certifier.certify(picture, new_entropy()))
            display.advance(done + len(found))
        seconds = round(time.perf_counter() - start, 1)
        return [self._row(spec, target, i, found, noisy[target.name], seconds) for i, target in enumerate(targets)]

    def table(self, rows: Sequence[Row]) -> str:
        """Markdown, the denoisers and targets of the config only, in its order."""
        sigma = self.config.certify.sigma
        pairs = [(one, target) for one in self.denoisers.values() for target in self.targets]
        wanted = {_key(one, target): i for i, (one, target) in enumerate(pairs)}
        chosen = sorted((row for row in rows if row.key in wanted), key=lambda row: wanted[row.key])
        paper = [row for row in PAPER_ROWS if row.sigma == sigma] if self.config.paper else []
        return f"{self._caption()}\n\n{markdown(chosen, self.config.radii, paper)}"

    def _caption(self) -> str:
        settings, config = self.config.certify, self.config
        correct = "the picture's label" if config.reference == "label" else "the target's own clean answer"
        height, width = self.pictures.shape[1:3]
        return (
            "Accuracy in % and certified accuracy in % by l2 radius on [0, 1] pixels, with "
            f"{100 * config.confidence:g} % intervals: "
            f"{len(self.pictures)} pictures of {height}x{width}, sigma = {settings.sigma:g}, "
            f"n0 = {settings.n0}, n = {settings.n}, alpha = {settings.alpha:g}; correct is {correct}."
        )

    def _certifier(self, one: Denoiser, targets: Sequence[_Target]) -> Certifier:
        return Certifier(one, [target.classifier for target in targets], self.config.certify, self.device)

    def _row(
        self, spec: str, target: _Target, column: int, found: Sequence[Certified], noisy: float, seconds: float
    ) -> Row:
        config = self.config
        certificates = [each.certificates[column] for each in found]
        truth = [_label(target, i) for i in range(len(found))]
        judged = [_judged(*pair) for pair in zip(certificates, truth, strict=True)]
        right = [_share_right(*pair) for pair in zip(certificates, truth, strict=True)]
        return Row(
            denoiser=spec,
            fingerprint=self.denoisers[spec].fingerprint,
            target=target.name,
            origin=target.classifier.origin,
            input_px=target.classifier.input_px,
            psnr=float(np.mean([each.psnr for each in found])),
            ssim=float(np.mean([each.ssim for each in found])),
            clean=float(np.mean(target.clean == target.truth)),
            noisy=noisy,
            denoised=float(np.mean(right)),
            certified=certified_accuracy(judged, config.radii, confidence=config.confidence),
            average_radius=average_certified_radius(judged),
            abstained=abstention_rate(judged, confidence=config.confidence),
            seconds=seconds,
            machine=hardware(self.device),
            versions={"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        )


def _panel(config: EvaluationConfig, device: torch.device) -> _Panel:
    """Everything loaded and checked; nothing is computed but the targets' answers to the clean pictures."""
    side = config.data.crop_px
    denoisers = {spec: denoiser(spec) for spec in config.denoisers}
    for one in denoisers.values():
        one.check(config.certify.sigma, side, side)
    _check_distinct(denoisers)
    classifiers = [load_surrogate(settings) for settings in config.targets]
    counts = {classifier.name: classifier.classes(side) for classifier in classifiers}
    pictures = load_pictures(config.data)
    _check_classes(config, pictures, counts)
    if config.part == "validation":
        _, pictures = split(pictures, config.data.validation_every)
    pictures = pictures.evenly(config.pictures)
    crops = centre_crops(pictures, side).permute(0, 2, 3, 1).contiguous().numpy()
    labels = None if config.reference == "clean" or pictures.labels is None else pictures.labels.numpy()
    targets = [_target(classifier, crops, labels, config.certify.batch, device) for classifier in classifiers]
    return _Panel(config, crops, labels, denoisers, targets, device)


def _check_distinct(denoisers: Mapping[str, Denoiser]) -> None:
    """No two specs name the same denoiser, as "median" and "median:3" do."""
    specs: dict[str, str] = {}
    for spec, one in denoisers.items():
        other = specs.setdefault(one.fingerprint, spec)
        if other != spec:
            raise ConfigError(f"denoisers: {other!r} and {spec!r} are the same; keep one")


def _check_classes(config: EvaluationConfig, pictures: Pictures, counts: dict[str, int]) -> None:
    """With labels as the reference, every target has one output per class folder."""
    if config.reference == "clean":
        return
    advice = 'set reference = "clean" to judge a target by its own clean answers'
    if pictures.labels is None:
        raise ConfigError(f"{config.data.shown}: its pictures lie in no class folders; {advice}")
    for name, count in counts.items():
        if count != len(pictures.classes):
            raise ConfigError(
                f"target {name!r} knows {count} classes, {config.data.shown} has {len(pictures.classes)}; {advice}"
            )


def _target(
    classifier: Surrogate,
    pictures: Pixels,
    labels: npt.NDArray[np.int64] | None,
    batch: int,
    device: torch.device,
) -> _Target:
    placed = classifier.to(device).to(memory_format=torch.channels_last)
    parts = torch.split(torch.from_numpy(pictures).permute(0, 3, 1, 2), batch)
    clean = np.concatenate([answers(placed, to_unit(part.to(device))) for part in parts])
    return _Target(placed, clean, clean if labels is None else labels)


def _key(one: Denoiser, target: _Target) -> tuple[str, str, int]:
    return (one.fingerprint, target.classifier.origin, target.classifier.input_px)


def _label(target: _Target, index: int) -> Label:
    return str(target.truth[index])


def _judged(certificate: Certificate, truth: Label) -> Judged:
    return Judged(certificate.label == truth, certificate.radius, abstained=certificate.label is None)


def _share_right(certificate: Certificate, truth: Label) -> float:
    """Of single copies, over the draws of both phases."""
    votes = certificate.selection + certificate.votes
    return votes.of(truth) / votes.n
