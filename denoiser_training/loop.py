"""The training loop: any network, any loss. Killed at any moment it resumes to the same losses."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from rich.console import Console
from torch import Tensor, nn

from denoiser_training.batches import Place
from denoiser_training.checkpoint import Best, Checkpoint, read_checkpoint, write_checkpoint
from denoiser_training.config import OptimiserSettings, RuntimeSettings
from denoiser_training.descent import Descent
from denoiser_training.errors import TrainingError
from denoiser_training.faults import advice, refused
from denoiser_training.interruptions import interruptions
from denoiser_training.journal import Display, Meter, Records
from denoiser_training.schedule import cosine, locate
from denoiser_training.team import ALONE, Team
from smoothing_proxy.errors import ConfigError
from smoothing_proxy.settings_file import Settings

__all__ = ["Loop", "Outcome", "Plan", "Stretch", "Task"]


class Task(Protocol):
    """What is trained, and for what."""

    @property
    def network(self) -> nn.Module:
        """On its device; the loop changes its weights."""
        ...

    def losses(self, network: Callable[..., Tensor], place: Place, part: slice) -> dict[str, Tensor]:
        """Scalars of one step's batch, decided by `place` alone; "loss" is made small, the others are logged.

        network: the same parameters, to be called as `self.network` is. part: the batch's rows to look at.
        """
        ...

    def evaluate(self, network: nn.Module) -> dict[str, float]:
        """Figures on the validation pictures; the weights with the highest "score" are kept, or the last such."""
        ...

    def sample(self, network: nn.Module, path: Path) -> None:
        """Write a picture that shows how well it does."""
        ...


@dataclass(frozen=True)
class Stretch:
    """A phase as the loop sees it. lr: at the top of its cosine. batch: pictures per step.

    lr_steps: length of the cosine; 0 is the phase's own length.
    """

    steps: int
    lr: float
    batch: int
    lr_steps: int = 0


@dataclass(frozen=True)
class Plan:
    """How to train. *_every: in steps. config: dumped settings, as a checkpoint must have them; kind: which ones.

    parts: the names beside "loss" that a task's losses may have, each a column of the journal.
    """

    name: str
    stretches: tuple[Stretch, ...]
    parts: tuple[str, ...]
    optimiser: OptimiserSettings
    log_every: int
    evaluate_every: int
    runtime: RuntimeSettings
    config: Mapping[str, Any]
    kind: type[Settings] = Settings

    @property
    def steps(self) -> int:
        """Of all phases."""
        return sum(stretch.steps for stretch in self.stretches)

    def at(self, step: int) -> Place:
        """Phase and step within it."""
        return locate(step, [stretch.steps for stretch in self.stretches])


@dataclass(frozen=True)
class Outcome:
    """How it went. finished: False when it was interrupted and can be resumed. best: chosen on validation."""

    finished: bool
    steps: int
    seconds: float
    best: Best | None


class Loop:
    """Trains `task` as `plan` says; checkpoint, CSV files and samples lie in `folder`.

    Each phase has its own AdamW. A checkpoint is written only while every loss since the last one was finite.
    team: all its processes run the loop; the first one alone evaluates and writes.
    Raises ConfigError when `folder` holds a checkpoint of another config, or cannot be written.
    """

    def __init__(self, task: Task, plan: Plan, folder: Path, console: Console, team: Team = ALONE) -> None:
        self.task, self.plan, self.folder, self.team = task, plan, folder, team
        self.path = folder / "last.ckpt"
        old = team.first(lambda: read_checkpoint(self.path, plan.config, plan.kind))
        self.step = old.step if old else 0
        self.average = copy.deepcopy(task.network).eval() if plan.optimiser.ema else None
        self.descent = Descent(task.network, plan.optimiser, team, compiled=plan.runtime.compile)
        self.meter, self.best, self.seconds = Meter(), old.best if old else None, old.seconds if old else 0.0
        if old:
            self._restore(old)
        self.records = team.first_only(lambda: self._records(old.journal if old else {}))
        self.display = Display(console, plan.name, plan.steps, self.step)
        self._since = (time.perf_counter(), self.step)

    def run(self) -> Outcome:
        """Train to the end, or until SIGINT or SIGTERM, which save first.

        Raises TrainingError when a loss is not finite, memory runs out or the disk refuses; the last checkpoint
        stays.
        """
        try:
            with interruptions() as interrupted, self.display:
                while self.step < self.plan.steps and not self.team.any(here=interrupted.is_set()):
                    self._advance()
                    self._report()
                if self.step < self.plan.steps:
                    self._save()
        except RuntimeError as error:
            remedy = advice(error)
            if not remedy:
                raise
            raise TrainingError(f"{self.plan.name}: step {self.step + 1}: {remedy}. {self._kept()}") from error
        except OSError as error:
            reason = f"step {self.step}: cannot write into {self.folder}: {refused(error)}"
            raise TrainingError(f"{self.plan.name}: {reason}. {self._kept()}") from error
        finally:
            if self.records:
                self.records.close()
        # Batch norm counts in each process for itself: the first one's weights are everybody's.
        best = self.team.first(lambda: self.best)
        return Outcome(self.step >= self.plan.steps, self.step, self.seconds, best)

    @property
    def trained(self) -> nn.Module:
        """The averaged weights where there are any, else the raw ones."""
        return self.task.network if self.average is None else self.average

    def _advance(self) -> None:
        start = time.perf_counter()
        place, settings = self.plan.at(self.step), self.plan.optimiser
        if place.step == 0 and self.step:
            self.descent.begin()
        stretch = self.plan.stretches[place.phase]
        losses = self.descent.step(
            lambda network: self.task.losses(network, place, self.team.part),
            stretch.lr * cosine(place.step, stretch.lr_steps or stretch.steps, settings.warm_up_steps),
        )
        if self.average is not None:
            _follow(self.average, self.task.network, min(settings.ema, (1 + self.step) / (10 + self.step)))
        self.meter.add(losses)
        self.step += 1
        self.seconds += time.perf_counter() - start

    def _report(self) -> None:
        """Whatever is due after a step: row, evaluation, samples, checkpoint."""
        plan, runtime = self.plan, self.plan.runtime
        ends = self.step == plan.steps or plan.at(self.step).step == 0
        self.display.advance(self.step)
        evaluated = ends or self.step % plan.evaluate_every == 0
        if ends or self.step % plan.log_every == 0:
            self._log()
        if evaluated:
            self._evaluate()
        if self.team.leads and runtime.samples_every and (ends or self.step % runtime.samples_every == 0):
            self.task.sample(self.trained, self.folder / "samples" / f"step-{self.step:07d}.png")
        if evaluated or self.step % runtime.checkpoint_every == 0:
            self._save()

    def _save(self) -> None:
        self._settle()
        self.team.first(lambda: write_checkpoint(self.path, self._checkpoint()))

    def _settle(self) -> None:
        """Agree on the losses so far. Raises TrainingError when one is not finite, in every process."""
        self.meter.sums = self.team.mean(self.meter.sums)
        if not self.meter.finite():
            bad = [name for name, value in self.meter.totals().items() if value - value != 0]
            raise TrainingError(
                f"{self.plan.name}: {', '.join(bad)} not finite by step {self.step}; lower the learning rate of "
                f"phase {self.plan.at(self.step - 1).phase} or set optimiser.clip_norm. {self._kept()}"
            )

    def _kept(self) -> str:
        return (
            f"The last good checkpoint is {self.path}" if self.path.exists() else "No checkpoint was written yet"
        )

    def _log(self) -> None:
        self._settle()
        place, (then, before) = self.plan.at(self.step - 1), self._since
        speed = (self.step - before) * self.plan.stretches[place.phase].batch / (time.perf_counter() - then)
        self._since = (time.perf_counter(), self.step)
        means = self.meter.read()
        lr = self.descent.optimiser.param_groups[0]["lr"]
        loss, gradient = means.pop("loss"), means.pop("gradient")
        parts = {name: means.get(name, "") for name in self.plan.parts}
        row = {"step": self.step, "phase": place.phase, "lr": lr, "loss": loss, "gradient": gradient, **parts}
        if self.records:
            self.records.append("metrics", {**row, "pictures_per_s": round(speed, 1)})
        self.display.news(
            f"phase {place.phase + 1}/{len(self.plan.stretches)}  loss {loss:.5f}  {speed:.0f} pictures/s"
        )

    def _evaluate(self) -> None:
        figures = self.team.first(lambda: self.task.evaluate(self.trained))
        if self.records:
            self.records.append("validation", {"step": self.step, **figures})
        shown = "  ".join(f"{name} {value:.4g}" for name, value in figures.items())
        self.display.say(f"{self.plan.name} step {self.step}/{self.plan.steps}: {shown}")
        if self.best is None or figures["score"] >= self.best.score:  # few pictures often say the same
            self.best = Best(self.step, figures["score"], figures, _copied(self.trained))
        self._since = (time.perf_counter(), self.step)

    def _records(self, sizes: Mapping[str, int]) -> Records:
        try:
            return Records(self.folder, sizes, tensorboard=self.plan.runtime.tensorboard, step=self.step)
        except OSError as error:
            raise ConfigError(f"{self.folder}: cannot write there: {refused(error)}") from error

    def _checkpoint(self) -> Checkpoint:
        assert self.records is not None
        optimiser, scaler = self.descent.state()
        return Checkpoint(
            config=json.dumps(self.plan.config),
            step=self.step,
            network=_copied(self.task.network),
            average=None if self.average is None else _copied(self.average),
            optimiser=optimiser,
            sums=self.meter.totals(),
            count=self.meter.count,
            journal=self.records.sizes,
            seconds=self.seconds,
            best=self.best,
            scaler=scaler,
        )

    def _restore(self, old: Checkpoint) -> None:
        self.task.network.load_state_dict(old.network)
        if self.average is not None and old.average is not None:
            self.average.load_state_dict(old.average)
        self.descent.restore(old.optimiser, old.scaler)
        self.meter = Meter({name: torch.tensor(v, dtype=torch.float64) for name, v in old.sums.items()}, old.count)


def _copied(network: nn.Module) -> dict[str, Tensor]:
    return {key: tensor.detach().cpu().clone() for key, tensor in network.state_dict().items()}


@torch.no_grad()
def _follow(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Move the averaged weights a little towards the network's; counters are copied."""
    for mean, new in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
        if mean.is_floating_point():
            mean.lerp_(new, 1 - decay)
        else:
            mean.copy_(new)
