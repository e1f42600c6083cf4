"""Trains a classifier with the same loop and the same data: surrogates, judges of denoisers, and by itself."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import safetensors.torch
import torch
from rich.console import Console
from torch import Tensor, nn
from torch.nn import functional

from denoiser_training.batches import Batches, Place, centre_crops, to_unit
from denoiser_training.classifier_networks import starting_network, stored_weights
from denoiser_training.config import Config, RuntimeSettings, Seed, SurrogateSettings
from denoiser_training.copies import Copies, Kind
from denoiser_training.data_settings import DataSettings
from denoiser_training.faults import out_of_memory
from denoiser_training.files import replace_file
from denoiser_training.journal import write_strip
from denoiser_training.loop import Loop, Plan, Stretch
from denoiser_training.pictures import Pictures
from denoiser_training.surrogates import Surrogate, fitted
from denoiser_training.team import ALONE, Team
from smoothing_proxy.errors import ConfigError
from smoothing_proxy.settings_file import Settings
from smoothing_proxy.stats.curves import Share, share_of

__all__ = ["ClassifierTask", "classifier_plan", "classifier_task", "train_classifier"]

AT_A_TIME = 500
"""Held-out pictures in a batch."""


@dataclass(frozen=True)
class ClassifierTask:
    """A classifier to train with cross entropy (loop.Task). crops, labels: held out, on any device.

    input_px: side that crops are resized to, 0 for none. label_smoothing, copies: as in ClassifierSettings.
    """

    network: nn.Module
    input_px: int
    batches: Batches
    crops: Tensor
    labels: Tensor
    label_smoothing: float = 0.0
    copies: Copies = field(default_factory=Copies)

    def losses(self, network: Callable[..., Tensor], place: Place, part: slice) -> dict[str, Tensor]:
        """Cross entropy of one batch."""
        crops, labels = self.batches.at(place, part)
        assert labels is not None
        seen = self.copies.among(crops.to(self._device), place, part, self.batches.batch)
        logits = network(self._input(seen)).float()
        loss = functional.cross_entropy(logits, labels.to(self._device), label_smoothing=self.label_smoothing)
        return {"loss": loss}

    def evaluate(self, network: nn.Module) -> dict[str, float]:
        """Accuracy on the held-out pictures in %; with copies its mean over what training shows, and each."""
        found = {name: 100 * share.value for name, share in self.accuracy(network).items()}
        clean = found["clean"]
        if not self.copies.kinds:
            return {"score": clean}
        shares = {kind.name: kind.settings.share for kind in self.copies.kinds}
        score = clean * (1 - sum(shares.values())) + sum(found[name] * share for name, share in shares.items())
        return {"score": score, **found}

    @torch.no_grad()
    def accuracy(self, network: nn.Module) -> dict[str, Share]:
        """On the held-out pictures as they are ("clean"), and as copies of each kind."""
        network.eval()
        right = dict.fromkeys(["clean", *(kind.name for kind in self.copies.kinds)], 0)
        labels = torch.split(self.labels, AT_A_TIME)
        for part, crops in enumerate(torch.split(self.crops, AT_A_TIME)):
            truth = labels[part].to(self._device)
            for name, seen in self._shown(crops.to(self._device), Place(0, part)):
                right[name] += int((network(self._input(seen)).argmax(1) == truth).sum())
        return {name: share_of(count, len(self.labels)) for name, count in right.items()}

    def sample(self, network: nn.Module, path: Path) -> None:
        """Some held-out pictures that it gets wrong; none when it gets all right."""
        crops, labels = (held_out[:AT_A_TIME].to(self._device) for held_out in (self.crops, self.labels))
        with torch.no_grad():
            wrong = network.eval()(self._input(crops)).argmax(1) != labels
        if bool(wrong.any()):
            write_strip(path, to_unit(crops[wrong][:16]), enlarge=max(1, 64 // self.crops.shape[-1]))

    @property
    def _device(self) -> torch.device:
        return next(self.network.parameters()).device

    def _input(self, crops: Tensor) -> Tensor:
        return fitted(to_unit(crops), self.input_px)

    def _shown(self, crops: Tensor, place: Place) -> Iterator[tuple[str, Tensor]]:
        yield "clean", crops
        for number, kind in enumerate(self.copies.kinds):
            yield kind.name, self.copies.all_of(number, crops, place)


def classifier_task(
    settings: SurrogateSettings,
    data: DataSettings,
    seed: int,
    pictures: tuple[Pictures, Pictures],
    device: torch.device,
) -> ClassifierTask:
    """The classifier as it is before its first step, on `device`.

    pictures: training and validation, on any device. Raises ConfigError without labels, for crops that the network
    does not take and for weights that cannot be had; DenoiserError for copies that cannot be made.
    """
    assert settings.training is not None
    training, validation = pictures
    if training.labels is None or validation.labels is None:
        raise ConfigError(f"classifier {settings.name!r}: training needs one sub-folder of pictures per class")
    optimiser = settings.training.optimiser
    network = starting_network(settings, len(training.classes), settings.input_px or data.crop_px, seed)
    if optimiser.channels_last:
        network = network.to(memory_format=torch.channels_last)
    kinds = [Kind.of(copy) for copy in settings.training.copies]
    for kind in kinds:
        kind.check(data.crop_px)
    task = ClassifierTask(
        network=network.to(device),
        input_px=settings.input_px,
        batches=Batches(training, optimiser.batch, data.crop_px, data.pad_px, data.flip, seed),
        crops=centre_crops(validation, data.crop_px),
        labels=validation.labels,
        label_smoothing=settings.training.label_smoothing,
        copies=Copies(kinds, seed),
    )
    _check_classes(settings, task, len(training.classes))
    return task


def classifier_plan(
    settings: SurrogateSettings,
    runtime: RuntimeSettings,
    record: Settings,
    *,
    log_every: int,
    evaluate_every: int,
) -> Plan:
    """How the loop trains it. record: the settings that a resumed run must share."""
    training = settings.training
    assert training is not None
    return Plan(
        name=f"classifier {settings.name}",
        stretches=(Stretch(training.steps, training.optimiser.lr, training.optimiser.batch),),
        parts=(),
        optimiser=training.optimiser,
        log_every=log_every,
        evaluate_every=evaluate_every,
        runtime=runtime,
        config=record.model_dump(mode="json"),
        kind=type(record),
    )


class _Record(Settings):
    """What decides how a denoiser's surrogate is trained."""

    seed: Seed
    data: DataSettings
    classifier: SurrogateSettings


def train_classifier(
    settings: SurrogateSettings,
    config: Config,
    pictures: tuple[Pictures, Pictures],
    device: torch.device,
    folder: Path,
    console: Console,
    team: Team = ALONE,
) -> Surrogate | None:
    """Train as `settings.training` says; None when it was interrupted.

    pictures: training and validation. folder: gets NAME.safetensors and the run's own files; a
    finished run there is taken as it is. Raises as `classifier_task` does.
    """
    assert settings.training is not None
    task = classifier_task(settings, config.data, config.seed, pictures, device)
    record = _Record(seed=config.seed, data=config.data, classifier=settings)
    often = max(1, settings.training.steps // 4)
    plan = classifier_plan(settings, config.runtime, record, log_every=config.log_every, evaluate_every=often)
    outcome = Loop(task, plan, folder / settings.name, console, team).run()
    if not outcome.finished or outcome.best is None:
        return None
    task.network.load_state_dict(outcome.best.weights)
    weights = safetensors.torch.save({key: t.contiguous() for key, t in stored_weights(task.network).items()})
    team.first(lambda: replace_file(folder / f"{settings.name}.safetensors", weights))
    digest = hashlib.sha256(weights).hexdigest()[:16]
    origin = f"{settings.name} ({settings.network} trained on the training split, sha256 {digest})"
    return Surrogate(settings.name, task.network, input_px=settings.input_px, origin=origin)


def _check_classes(settings: SurrogateSettings, task: ClassifierTask, wanted: int) -> None:
    """One output per class, at least; what comes from a factory may have any number."""
    seen = fitted(to_unit(task.crops[:1].to(next(task.network.parameters()).device)), settings.input_px)
    try:
        with torch.no_grad():
            logits = task.network.eval()(seen)
    except (RuntimeError, ValueError, TypeError, IndexError, AssertionError) as error:
        if out_of_memory(error):
            raise
        raise ConfigError(
            f"classifier {settings.name!r} cannot take these crops (set input_px): {error}"
        ) from error
    if logits.ndim != 2 or logits.shape[1] < wanted:
        raise ConfigError(
            f"classifier {settings.name!r}: outputs {list(logits.shape)} do not fit {wanted} classes of pictures"
        )
