"""The trained weights as a file and its card, which a certifier loads by path or name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from pydantic import JsonValue

from denoiser_training.config import Config, PhaseSettings
from denoiser_training.evaluate import Judges
from denoiser_training.loop import Outcome
from denoiser_training.pictures import Pictures
from denoiser_training.schedule import locate
from denoiser_training.sources import source_name
from denoiser_training.surrogates import Surrogate
from smoothing_proxy.denoisers import weights
from smoothing_proxy.denoisers.card import read_card

__all__ = ["export", "kept"]


def export(
    config: Config,
    outcome: Outcome,
    pictures: Pictures,
    surrogates: Sequence[Surrogate],
    folder: Path,
    *,
    figures: Mapping[str, JsonValue],
    kept: str,
    machine: str,
) -> Path:
    """Write NAME.safetensors and NAME.json with the best weights; returns the card's path.

    pictures: those trained on. figures: of these weights, as stored, on the validation pictures. kept: which
    weights they are. machine: of all the processes.
    """
    assert outcome.best is not None
    provenance = weights.Provenance(
        name=config.name,
        architecture=config.denoiser.architecture,
        options=config.denoiser.options,
        sigma_min=config.noise.sigma_min,
        sigma_max=config.noise.sigma_max,
        min_side_px=config.export.min_side_px,
        training_data=f"{len(pictures)} pictures of {source_name(config.data.source)}",
        training_data_license=config.data.license,
        schedule="; then ".join([*_start(config), *(_phase(phase, config) for phase in config.phases)]),
        surrogates=tuple(surrogate.origin for surrogate in surrogates),
        figures=dict(figures),
        hardware=machine,
        steps=outcome.best.step,
        kept=kept,
        seconds=round(outcome.seconds, 1),
        created=datetime.now(UTC).replace(microsecond=0),
        license=config.export.license,
    )
    return weights.save(folder, outcome.best.weights, provenance, dtype=config.export.dtype)


def kept(config: Config, outcome: Outcome, judges: Judges) -> str:
    """Which step's weights are the best, and by what they were chosen."""
    assert outcome.best is not None
    phase = locate(outcome.best.step - 1, [phase.steps for phase in config.phases]).phase + 1
    names = f" of {', '.join(judge.name for judge in judges.classifiers)}" if config.best == "accuracy" else ""
    sigmas = ", ".join(f"{sigma:g}" for sigma in config.evaluate.sigmas)
    return (
        f"after step {outcome.best.step} of {outcome.steps}, in phase {phase} of {len(config.phases)}: the "
        f"highest mean {config.best}{names} at sigma {sigmas} on {len(judges.crops)} validation pictures"
    )


def _start(config: Config) -> list[str]:
    if config.denoiser.start is None:
        return []
    card = read_card(config.denoiser.start.with_suffix(".json"))
    return [f"weights of {card.name} (sha256 {card.sha256[:16]}, {card.steps} steps of {card.training_data})"]


def _phase(phase: PhaseSettings, config: Config) -> str:
    objective = " + ".join(f"{weight:g} {name}" for name, weight in phase.objective.weights().items())
    batch, crop = phase.batch or config.optimiser.batch, phase.crop_px or config.data.crop_px
    falling = f" falling over {phase.lr_steps} steps" if phase.lr_steps else ""
    of = f" with {phase.copies} copies of each picture" if phase.copies > 1 else ""
    return (
        f"{phase.steps} steps of {objective} at lr {phase.lr or config.optimiser.lr:g}{falling}, "
        f"batch {batch}{of}, {crop} px"
    )
