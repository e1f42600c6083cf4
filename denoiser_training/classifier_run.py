"""A classifier's config into weights and their card. The composition root of `... classifier CONFIG`."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import JsonValue
from rich.console import Console
from torch import nn

from denoiser_training.batches import centre_crops
from denoiser_training.classifier import ClassifierTask, classifier_plan, classifier_task
from denoiser_training.classifier_card import save_classifier
from denoiser_training.classifier_config import ClassifierConfig
from denoiser_training.classifier_networks import resolved, stored_weights
from denoiser_training.config import CopySettings
from denoiser_training.copies import Kind
from denoiser_training.data import load_pictures, split
from denoiser_training.faults import memory_told
from denoiser_training.files import claimed, write_settings
from denoiser_training.loop import Loop, Outcome
from denoiser_training.machine import all_hardware, hardware
from denoiser_training.pictures import Pictures
from denoiser_training.placement import placed
from denoiser_training.sources import source_name
from denoiser_training.team import Team, team_of
from smoothing_proxy.errors import ConfigError
from smoothing_proxy.stats.curves import Share

__all__ = ["train_alone"]

PACKAGES = ("smoothing-proxy", "torch", "torchvision", "numpy", "pillow")


def train_alone(config: ClassifierConfig, out: Path, console: Console) -> Path | None:
    """Train, or go on with what `out` holds; returns the card's path, or None when it was interrupted.

    out: gets config.json, metrics.csv, validation.csv, samples/, last.ckpt, NAME.safetensors and NAME.json. Bad
    input raises before the first step: ConfigError, ImageError, DenoiserError. Then TrainingError. Under torchrun
    this is one of several processes, as in train.train.
    """
    with team_of(os.environ) as team:
        console.quiet = console.quiet or not team.leads
        with team.first_inside(claimed(out)), memory_told(config.name, "set data.limit lower"):
            return _train(config, out, console, team)


def _train(config: ClassifierConfig, out: Path, console: Console, team: Team) -> Path | None:
    settings = config.classifier()
    team.check_batch(config.training.optimiser.batch, "training.optimiser.batch")
    device = team.device(config.runtime.device)
    parts = split(load_pictures(config.data), config.data.validation_every)
    training, validation = placed(parts[0], device), parts[1]
    counts = f"{len(training)} pictures to train on, {len(validation)} held out"
    console.print(f"{config.data.shown}: {counts}", markup=False)
    task = classifier_task(settings, config.data, config.seed, (training, validation), device)
    exam = _Exam(task, _test_task(config, task, training.classes))
    before = exam.figures(task.network) if config.start is not None else {}
    if before:
        console.print(f"before: {exam.told(before)}", highlight=False)
    plan = classifier_plan(
        settings, config.runtime, config, log_every=config.log_every, evaluate_every=config.evaluate_every
    )
    loop = Loop(task, plan, out, console, team)
    team.first(lambda: write_settings(out, config))
    outcome = loop.run()
    if not outcome.finished or outcome.best is None:
        return None
    task.network.load_state_dict(outcome.best.weights)
    after = exam.figures(task.network)
    console.print(f"after: {exam.told(after)}", highlight=False)
    figures: dict[str, JsonValue] = {
        "on": f"{len(task.labels)} held-out pictures, which also chose the weights; accuracy in %, 95 % intervals",
        **({"before": before} if before else {}),
        "after": after,
    }
    weights, machine = stored_weights(task.network), all_hardware(team.each(hardware(device)))
    return team.first(lambda: save_classifier(out, weights, _facts(config, outcome, figures, training, machine)))


@dataclass(frozen=True)
class _Exam:
    """The pictures that classifiers are judged by: those of training's own task, and perhaps a test."""

    held_out: ClassifierTask
    test: ClassifierTask | None

    def figures(self, network: nn.Module) -> dict[str, JsonValue]:
        """Accuracy in %, with its interval, on every kind of picture; as JSON."""
        found = _percentages(self.held_out.accuracy(network))
        if self.test is None:
            return found
        return {
            **found,
            **{f"test {name}": value for name, value in _percentages(self.test.accuracy(network)).items()},
        }

    def told(self, figures: Mapping[str, Any]) -> str:
        """One line."""
        return ", ".join(f"{name} {figure['accuracy']:.2f} %" for name, figure in figures.items())


def _test_task(config: ClassifierConfig, task: ClassifierTask, classes: tuple[str, ...]) -> ClassifierTask | None:
    """The same task, judged by the pictures of [test]. Raises ConfigError when these have other classes."""
    if config.test is None:
        return None
    pictures = load_pictures(config.test)
    if pictures.labels is None or pictures.classes != classes:
        raise ConfigError(f"{config.test.shown}: has not the classes of {config.data.shown}")
    return replace(task, crops=centre_crops(pictures, config.data.crop_px), labels=pictures.labels)


def _facts(
    config: ClassifierConfig,
    outcome: Outcome,
    figures: dict[str, JsonValue],
    training: Pictures,
    machine: str,
) -> dict[str, Any]:
    """The card's fields."""
    assert outcome.best is not None
    return {
        "name": config.name,
        "network": resolved(config.classifier()).network,
        "classes": training.classes,
        "side_px": config.data.crop_px,
        "input_px": config.input_px,
        "training_data": f"{len(training)} pictures of {source_name(config.data.source)}",
        "training_data_license": config.data.license,
        "start": _start(config),
        "schedule": _schedule(config),
        "figures": figures,
        "hardware": machine,
        "steps": outcome.best.step,
        "seconds": round(outcome.seconds, 1),
        "created": datetime.now(UTC).replace(microsecond=0),
        "license": config.license,
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
    }


def _percentages(shares: Mapping[str, Share]) -> dict[str, JsonValue]:
    return {
        name: {
            "accuracy": round(100 * share.value, 3),
            "low": round(100 * share.low, 3),
            "high": round(100 * share.high, 3),
            "right": share.count,
        }
        for name, share in shares.items()
    }


def _start(config: ClassifierConfig) -> str:
    if config.start is None:
        return "random weights"
    digest = hashlib.sha256(config.start.read_bytes()).hexdigest()
    return f"{config.start.name} (sha256 {digest[:16]})"


def _schedule(config: ClassifierConfig) -> str:
    training, data, optimiser = config.training, config.data, config.training.optimiser
    smoothing = f", label smoothing {training.label_smoothing:g}" if training.label_smoothing else ""
    return (
        f"{training.steps} steps of cross entropy at lr {optimiser.lr:g}, batch {optimiser.batch}, "
        f"{data.crop_px} px crops of pictures padded by {data.pad_px} px{', mirrored' if data.flip else ''}"
        f"{smoothing}{''.join(map(_copy, training.copies))}"
    )


def _copy(copy: CopySettings) -> str:
    kind = Kind.of(copy)
    told = "" if copy.noise or not copy.denoisers else f" told sigma {copy.told_sigma:g}"
    return f"; {100 * copy.share:g} % as copies: {kind.name}{told}"
