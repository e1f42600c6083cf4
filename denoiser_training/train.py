"""A config into a denoiser card: pictures, surrogates, phases, the best weights. The composition root."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from pydantic import JsonValue
from rich.console import Console
from torch import Tensor, nn

from denoiser_training.batches import Batches, centre_crops
from denoiser_training.classifier import train_classifier
from denoiser_training.config import Config, SurrogateSettings
from denoiser_training.data import load_pictures, split
from denoiser_training.evaluate import Judges, runner
from denoiser_training.export import export, kept
from denoiser_training.faults import memory_told
from denoiser_training.files import claimed, write_settings
from denoiser_training.loop import Loop, Plan, Stretch
from denoiser_training.machine import all_hardware, hardware
from denoiser_training.objectives import WeightedSum, check_labels
from denoiser_training.pictures import Pictures
from denoiser_training.placement import placed
from denoiser_training.step import DenoiserTask
from denoiser_training.surrogates import Surrogate, load_surrogate
from denoiser_training.team import Team, team_of
from smoothing_proxy.denoisers import architectures, weights
from smoothing_proxy.errors import DenoiserError

__all__ = ["check_batches", "train"]


def train(config: Config, out: Path, console: Console) -> Path | None:
    """Train, or go on with what `out` holds; returns the card's path, or None when it was interrupted.

    out: gets config.json, metrics.csv, validation.csv, samples/, surrogates/, last.ckpt, NAME.safetensors and
    NAME.json; one run at a time. Bad input raises before the first step: ConfigError, ImageError, DenoiserError.
    Then TrainingError.
    Under torchrun this is one of several processes; the first one writes, and silences the others' `console`.
    """
    with team_of(os.environ) as team:
        console.quiet = console.quiet or not team.leads
        with team.first_inside(claimed(out)), memory_told(config.name, "set evaluate.batch or data.limit lower"):
            return _train(config.completed(), out, console, team)


def _train(config: Config, out: Path, console: Console, team: Team) -> Path | None:
    check_batches(config, team)
    device = team.device(config.runtime.device)
    parts = split(load_pictures(config.data), config.data.validation_every)
    training, validation = placed(parts[0], device), parts[1]
    counts = f"{len(training)} pictures to train on, {len(validation)} held out"
    console.print(f"{config.data.shown}: {counts}", markup=False)
    network = _network(config).to(device)
    batches = _batches(config, training)
    held_out = validation.evenly(config.evaluate.pictures)
    crops = centre_crops(held_out, config.evaluate.crop_px or config.data.crop_px).to(device)
    pictures = (training, validation)
    surrogates = _classifiers(config.surrogates, config, pictures, device, out, console, team)
    judging = _classifiers(config.evaluate.classifiers, config, pictures, device, out, console, team)
    if surrogates is None or judging is None:
        return None
    judges = _judges(config, crops, held_out, judging or surrogates)
    _check(config, training, surrogates, judges)
    task = _task(config, network, batches, surrogates, judges)
    team.first(lambda: write_settings(out, config))
    outcome = Loop(task, _plan(config), out, console, team).run()
    if not outcome.finished or outcome.best is None:
        return None
    machine, chosen = all_hardware(team.each(hardware(device))), kept(config, outcome, judges)
    console.print(f"kept: {chosen}", highlight=False, markup=False)
    network.load_state_dict(weights.stored(outcome.best.weights, config.export.dtype))
    return team.first(
        lambda: export(
            config,
            outcome,
            training,
            surrogates,
            out,
            figures=_figures(judges, network, config),
            kept=chosen,
            machine=machine,
        )
    )


def _judges(config: Config, crops: Tensor, pictures: Pictures, classifiers: Sequence[Surrogate]) -> Judges:
    return Judges(
        crops=crops,
        labels=None if pictures.labels is None else pictures.labels.to(crops.device),
        known=len(pictures.classes),
        classifiers=classifiers,
        copies=config.evaluate.copies,
        batch=config.evaluate.batch,
        seed=config.seed,
    )


def _task(
    config: Config,
    network: nn.Module,
    batches: Sequence[Batches],
    surrogates: Sequence[Surrogate],
    judges: Judges,
) -> DenoiserTask:
    return DenoiserTask(
        network=network,
        batches=batches,
        objectives=[WeightedSum.of(phase.objective) for phase in config.phases],
        surrogates=surrogates,
        per_step=config.surrogates_per_step,
        noise=config.noise,
        judges=judges,
        sigmas=config.evaluate.sigmas,
        best=config.best,
        channels_last=config.optimiser.channels_last,
        seed=config.seed,
    )


def _network(config: Config) -> nn.Module:
    """Random weights that the seed decides, or those of `denoiser.start`."""
    settings = config.denoiser
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = architectures.build(settings.architecture, settings.options)
    if settings.start is not None:
        card, start = weights.load(settings.start)
        try:
            network.load_state_dict(start.state_dict())
        except RuntimeError as error:
            raise DenoiserError(
                f"denoiser.start: {card.name!r} is a {card.architecture} {card.options}"
            ) from error
    if config.optimiser.channels_last:
        return network.to(memory_format=torch.channels_last)
    return network


def _batches(config: Config, pictures: Pictures) -> list[Batches]:
    """One per phase. Raises ConfigError when a picture is smaller than the crops."""
    data = config.data
    return [
        Batches(
            pictures=pictures,
            batch=phase.batch or config.optimiser.batch,
            crop_px=phase.crop_px or data.crop_px,
            pad_px=data.pad_px,
            flip=data.flip,
            seed=config.seed,
            copies=phase.copies,
        )
        for phase in config.phases
    ]


def _classifiers(
    entries: Sequence[SurrogateSettings],
    config: Config,
    pictures: tuple[Pictures, Pictures],
    device: torch.device,
    out: Path,
    console: Console,
    team: Team,
) -> list[Surrogate] | None:
    """Loaded, or trained on the training split; None when that was interrupted."""
    ready: list[Surrogate] = []
    for settings in entries:
        if settings.training is None:
            ready.append(load_surrogate(settings).to(device))
            continue
        trained = train_classifier(settings, config, pictures, device, out / "surrogates", console, team)
        if trained is None:
            return None
        ready.append(trained)
    return ready


def check_batches(config: Config, team: Team) -> None:
    """Raises ConfigError unless every batch can be dealt out evenly to the team."""
    for phase in config.phases:
        team.check_batch(phase.batch or config.optimiser.batch, "optimiser.batch (or the phase's)", phase.copies)
    for classifier in (*config.surrogates, *config.evaluate.classifiers):
        if classifier.training is not None:
            team.check_batch(classifier.training.optimiser.batch, f"classifier {classifier.name}: batch")


def _check(config: Config, training: Pictures, surrogates: Sequence[Surrogate], judges: Judges) -> None:
    """Every classifier takes the crops that it will see, and knows as many classes as clf needs."""
    for judge in judges.classifiers:
        judge.classes(judges.crops.shape[-1])
    for phase in config.phases:
        if phase.objective.needs_surrogates:
            crop_px = phase.crop_px or config.data.crop_px
            counts = {surrogate.name: surrogate.classes(crop_px) for surrogate in surrogates}
            check_labels(phase.objective, training.labels, counts, len(training.classes))


def _plan(config: Config) -> Plan:
    settings = config.optimiser
    return Plan(
        name=config.name,
        stretches=tuple(
            Stretch(p.steps, p.lr or settings.lr, p.batch or settings.batch, p.lr_steps or 0)
            for p in config.phases
        ),
        parts=tuple(sorted({name for phase in config.phases for name in phase.objective.weights()})),
        optimiser=settings,
        log_every=config.log_every,
        evaluate_every=config.evaluate.every,
        runtime=config.runtime,
        config=json.loads(config.model_dump_json()),
        kind=Config,
    )


def _figures(judges: Judges, network: nn.Module, config: Config) -> dict[str, JsonValue]:
    """Clean, noisy and denoised, for the card. network: with the weights as they will be stored."""

    def rounded(values: dict[str, float]) -> dict[str, JsonValue]:
        return {name: round(value, 3) for name, value in values.items()}

    figures: dict[str, JsonValue] = {
        "on": f"{len(judges.crops)} validation pictures, noisy copies of each: {judges.copies}; accuracy in %; "
        f"of the weights as stored ({config.export.dtype})",
        "correct": {judge.name: judges.correct(judge) for judge in judges.classifiers},
        "clean": rounded(judges.clean()),
    }
    for sigma in config.evaluate.sigmas:
        figures[f"sigma {sigma:g}"] = {
            "noisy": rounded(judges.figures(lambda noisy, _: noisy, sigma)),
            "denoised": rounded(judges.figures(runner(network), sigma)),
        }
    return figures
