"""Trains a classifier with the same loop and the same data: surrogates, and judges of denoisers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from rich.console import Console
from torch import Tensor, nn
from torch.nn import functional

from denoiser_training.batches import Batches, Place, centre_crops, to_unit
from denoiser_training.config import Config, SurrogateSettings
from denoiser_training.data import Pictures
from denoiser_training.journal import write_strip
from denoiser_training.loop import Loop, Plan, Stretch
from denoiser_training.networks import fresh
from denoiser_training.surrogates import Surrogate, load_network
from denoiser_training.team import ALONE, Team
from smoothing_proxy.errors import ConfigError

__all__ = ["ClassifierTask", "train_classifier"]


@dataclass(frozen=True)
class ClassifierTask:
    """A classifier to train with cross entropy on clean pictures (loop.Task). crops, labels: held out."""

    network: nn.Module
    batches: Batches
    crops: Tensor
    labels: Tensor

    def losses(self, network: Callable[..., Tensor], place: Place, part: slice) -> dict[str, Tensor]:
        """Cross entropy of one batch."""
        crops, labels = self.batches.at(place, part)
        assert labels is not None
        device = next(self.network.parameters()).device
        logits = network(to_unit(crops.to(device))).float()
        return {"loss": functional.cross_entropy(logits, labels.to(device))}

    @torch.no_grad()
    def evaluate(self, network: nn.Module) -> dict[str, float]:
        """Accuracy on the held-out pictures, in %."""
        network.eval()
        answers = torch.cat([network(to_unit(batch)).argmax(1) for batch in torch.split(self.crops, 500)])
        return {"score": 100 * float((answers == self.labels).float().mean())}

    def sample(self, network: nn.Module, path: Path) -> None:
        """Some held-out pictures that it gets wrong; none when it gets all right."""
        with torch.no_grad():
            wrong = network.eval()(to_unit(self.crops[:500])).argmax(1) != self.labels[:500]
        if bool(wrong.any()):
            write_strip(path, to_unit(self.crops[:500][wrong][:16]), enlarge=max(1, 64 // self.crops.shape[-1]))


def train_classifier(
    settings: SurrogateSettings,
    config: Config,
    pictures: tuple[Pictures, Pictures],
    folder: Path,
    console: Console,
    team: Team = ALONE,
) -> Surrogate | None:
    """Train as `settings.training` says; None when it was interrupted.

    pictures: training and validation, on the device. folder: gets NAME.safetensors and the run's own files; a
    finished run there is taken as it is. Raises ConfigError without labels.
    """
    assert settings.training is not None
    training, validation = pictures
    if training.labels is None or validation.labels is None:
        raise ConfigError(f"classifier {settings.name!r}: training needs one sub-folder of pictures per class")
    device = training.pixels[0].device
    network = _start(settings, config, len(training.classes)).to(device)
    data, optimiser = config.data, settings.training.optimiser
    batches = Batches(training, optimiser.batch, data.crop_px, data.pad_px, data.flip, config.seed)
    task = ClassifierTask(network, batches, centre_crops(validation, data.crop_px), validation.labels)
    outcome = Loop(task, _plan(settings, config), folder / settings.name, console, team).run()
    if not outcome.finished or outcome.best is None:
        return None
    network.load_state_dict(outcome.best.weights)
    weights = safetensors.torch.save(outcome.best.weights)
    team.first(lambda: (folder / f"{settings.name}.safetensors").write_bytes(weights))
    digest = hashlib.sha256(weights).hexdigest()[:16]
    origin = f"{settings.name} ({settings.network} trained on the training split, sha256 {digest})"
    return Surrogate(settings.name, network, input_px=settings.input_px, origin=origin)


def _start(settings: SurrogateSettings, config: Config, classes: int) -> nn.Module:
    """Fine-tuning starts from given weights, else from random ones that the seed and the name decide."""
    if settings.weights is not None:
        return load_network(settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed + int.from_bytes(hashlib.sha256(settings.name.encode()).digest()[:4], "big"))
        return fresh(settings.network, classes, settings.input_px or config.data.crop_px)


def _plan(settings: SurrogateSettings, config: Config) -> Plan:
    training = settings.training
    assert training is not None
    described: Mapping[str, Any] = {
        "seed": config.seed,
        "data": config.data.model_dump(mode="json"),
        "classifier": settings.model_dump(mode="json"),
    }
    return Plan(
        name=f"classifier {settings.name}",
        stretches=(Stretch(training.steps, training.optimiser.lr, training.optimiser.batch),),
        parts=(),
        optimiser=training.optimiser,
        log_every=config.log_every,
        evaluate_every=max(1, training.steps // 4),
        runtime=config.runtime,
        config=described,
    )
