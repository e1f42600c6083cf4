"""A config into a denoiser card: pictures, surrogates, phases, the best weights. The composition root."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from pydantic import JsonValue
from rich.console import Console
from torch import Tensor, nn

from denoiser_training.batches import Batches, centre_crops
from denoiser_training.classifier import train_classifier
from denoiser_training.config import Config, SurrogateSettings
from denoiser_training.data import Pictures, load_pictures, split
from denoiser_training.evaluate import Judges, runner
from denoiser_training.export import export
from denoiser_training.loop import Loop, Plan, Stretch
from denoiser_training.objectives import WeightedSum, check_labels
from denoiser_training.step import DenoiserTask
from denoiser_training.surrogates import Surrogate, load_surrogate
from smoothing_proxy.denoisers import architectures, weights
from smoothing_proxy.errors import ConfigError, DenoiserError

__all__ = ["train"]


def train(config: Config, out: Path, console: Console) -> Path | None:
    """Train, or go on with what `out` holds; returns the card's path, or None when it was interrupted.

    out: gets config.json, metrics.csv, validation.csv, samples/, surrogates/, last.ckpt, NAME.safetensors and
    NAME.json. Bad input raises before the first step: ConfigError, ImageError, DenoiserError. Then TrainingError.
    """
    device = _device(config.runtime.device)
    parts = split(load_pictures(config.data), config.data.validation_every)
    training, validation = (part.to(device) for part in parts)
    console.print(f"{config.data.source}: {len(training)} pictures to train on, {len(validation)} held out")
    network = _network(config).to(device)
    batches = _batches(config, training)
    held_out = validation.evenly(config.evaluate.pictures)
    crops = centre_crops(held_out, config.evaluate.crop_px or config.data.crop_px)
    out.mkdir(parents=True, exist_ok=True)
    surrogates = _classifiers(config.surrogates, config, (training, validation), out, console)
    judging = _classifiers(config.evaluate.classifiers, config, (training, validation), out, console)
    if surrogates is None or judging is None:
        return None
    judges = _judges(config, crops, held_out, judging or surrogates)
    _check(config, training, surrogates, judges)
    task = _task(config, network, batches, surrogates, judges)
    (out / "config.json").write_text(config.model_dump_json(indent=2) + "\n", encoding="utf-8")
    outcome = Loop(task, _plan(config), out, console).run()
    if not outcome.finished or outcome.best is None:
        return None
    network.load_state_dict(outcome.best.weights)
    return export(config, outcome, training, surrogates, _figures(judges, network, config), out, device)


def _judges(config: Config, crops: Tensor, pictures: Pictures, classifiers: Sequence[Surrogate]) -> Judges:
    return Judges(
        crops=crops,
        labels=pictures.labels,
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
        best=config.evaluate.best,
        channels_last=config.optimiser.channels_last,
        seed=config.seed,
    )


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.zeros(1, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"runtime.device {name!r}: {str(error).splitlines()[0]}") from error


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
        )
        for phase in config.phases
    ]


def _classifiers(
    entries: Sequence[SurrogateSettings],
    config: Config,
    pictures: tuple[Pictures, Pictures],
    out: Path,
    console: Console,
) -> list[Surrogate] | None:
    """Loaded, or trained on the training split; None when that was interrupted."""
    ready: list[Surrogate] = []
    for settings in entries:
        if settings.training is None:
            ready.append(load_surrogate(settings).to(pictures[0].pixels[0].device))
            continue
        trained = train_classifier(settings, config, pictures, out / "surrogates", console)
        if trained is None:
            return None
        ready.append(trained)
    return ready


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
        stretches=tuple(Stretch(p.steps, p.lr or settings.lr, p.batch or settings.batch) for p in config.phases),
        parts=tuple(sorted({name for phase in config.phases for name in phase.objective.weights()})),
        optimiser=settings,
        log_every=config.log_every,
        evaluate_every=config.evaluate.every,
        runtime=config.runtime,
        config=json.loads(config.model_dump_json()),
    )


def _figures(judges: Judges, network: nn.Module, config: Config) -> dict[str, JsonValue]:
    """Clean, noisy and denoised, for the card."""

    def rounded(values: dict[str, float]) -> dict[str, JsonValue]:
        return {name: round(value, 3) for name, value in values.items()}

    figures: dict[str, JsonValue] = {
        "on": f"{len(judges.crops)} validation pictures, {judges.copies} noisy copies of each; accuracy in %",
        "clean": rounded(judges.clean()),
    }
    for sigma in config.evaluate.sigmas:
        figures[f"sigma {sigma:g}"] = {
            "noisy": rounded(judges.figures(lambda noisy, _: noisy, sigma)),
            "denoised": rounded(judges.figures(runner(network), sigma)),
        }
    return figures
