"""The training loop: any network, any loss. Killed at any moment it resumes to the same losses."""

from __future__ import annotations

import copy
import json
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import torch
from rich.console import Console
from torch import Tensor, nn

from denoiser_training.batches import Place
from denoiser_training.checkpoint import Best, Checkpoint, read_checkpoint, write_checkpoint
from denoiser_training.config import OptimiserSettings, RuntimeSettings
from denoiser_training.errors import TrainingError
from denoiser_training.journal import CsvFile, Display, Meter
from denoiser_training.schedule import cosine, locate

__all__ = ["Loop", "Outcome", "Plan", "Stretch", "Task"]


class Task(Protocol):
    """What is trained, and for what."""

    @property
    def network(self) -> nn.Module:
        """On its device; the loop changes its weights."""
        ...

    def losses(self, place: Place) -> dict[str, Tensor]:
        """Scalars of one step's batch, decided by `place` alone; "loss" is made small, the others are logged."""
        ...

    def evaluate(self, network: nn.Module) -> dict[str, float]:
        """Figures on the validation pictures; the weights with the highest "score" are kept."""
        ...

    def sample(self, network: nn.Module, path: Path) -> None:
        """Write a picture that shows how well it does."""
        ...


@dataclass(frozen=True)
class Stretch:
    """A phase as the loop sees it. lr: at the top of its cosine. batch: pictures per step."""

    steps: int
    lr: float
    batch: int


@dataclass(frozen=True)
class Plan:
    """How to train. config: what a checkpoint must have been written with. *_every: in steps.

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
    Raises ConfigError when `folder` holds a checkpoint of another config.
    """

    def __init__(self, task: Task, plan: Plan, folder: Path, console: Console) -> None:
        self.task, self.plan, self.folder = task, plan, folder
        self.device = next(task.network.parameters()).device
        self.path = folder / "last.ckpt"
        old = read_checkpoint(self.path, plan.config)
        self.step = old.step if old else 0
        self.average = copy.deepcopy(task.network).eval() if plan.optimiser.ema else None
        self.optimiser = self._new_optimiser()
        self.meter, self.best, self.seconds = Meter(), old.best if old else None, old.seconds if old else 0.0
        if old:
            self._restore(old)
        sizes = old.journal if old else {}
        self.metrics = CsvFile(folder / "metrics.csv", size=sizes.get("metrics", 0))
        self.validation = CsvFile(folder / "validation.csv", size=sizes.get("validation", 0))
        self.display = Display(console, plan.name, plan.steps, self.step)
        self._since = (time.perf_counter(), self.step)

    def run(self) -> Outcome:
        """Train to the end, or until SIGINT or SIGTERM, which save first.

        Raises TrainingError when a loss is not finite or memory runs out; the last checkpoint stays.
        """
        try:
            with _interruptions() as interrupted, self.display:
                while self.step < self.plan.steps and not interrupted.is_set():
                    self._advance()
                    self._report()
                if self.step < self.plan.steps:
                    self._save()
        except RuntimeError as error:
            if not _out_of_memory(error):
                raise
            raise TrainingError(
                f"{self.plan.name}: out of memory at step {self.step + 1}; set optimiser.batch or the phase's "
                f"crop_px lower. {self._kept()}"
            ) from error
        finally:
            self.metrics.close()
            self.validation.close()
        return Outcome(self.step >= self.plan.steps, self.step, self.seconds, self.best)

    @property
    def trained(self) -> nn.Module:
        """The averaged weights where there are any, else the raw ones."""
        return self.task.network if self.average is None else self.average

    def _advance(self) -> None:
        start = time.perf_counter()
        place, settings = self.plan.at(self.step), self.plan.optimiser
        if place.step == 0 and self.step:
            self.optimiser = self._new_optimiser()
        stretch = self.plan.stretches[place.phase]
        for group in self.optimiser.param_groups:
            group["lr"] = stretch.lr * cosine(place.step, stretch.steps, settings.warm_up_steps)
        self.task.network.train()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=settings.precision == "bf16"):
            losses = self.task.losses(place)
        self.optimiser.zero_grad(set_to_none=True)
        losses["loss"].backward()  # type: ignore[no-untyped-call]
        limit = settings.clip_norm or float("inf")
        norm = nn.utils.clip_grad_norm_(self.task.network.parameters(), limit)
        self.optimiser.step()
        if self.average is not None:
            _follow(self.average, self.task.network, min(settings.ema, (1 + self.step) / (10 + self.step)))
        self.meter.add({**losses, "gradient": norm})
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
        if runtime.samples_every and (ends or self.step % runtime.samples_every == 0):
            self.task.sample(self.trained, self.folder / "samples" / f"step-{self.step:07d}.png")
        if evaluated or self.step % runtime.checkpoint_every == 0:
            self._save()

    def _save(self) -> None:
        self._check_finite()
        write_checkpoint(self.path, self._checkpoint())

    def _check_finite(self) -> None:
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
        self._check_finite()
        place, (then, before) = self.plan.at(self.step - 1), self._since
        speed = (self.step - before) * self.plan.stretches[place.phase].batch / (time.perf_counter() - then)
        self._since = (time.perf_counter(), self.step)
        means = self.meter.read()
        lr = self.optimiser.param_groups[0]["lr"]
        loss, gradient = means.pop("loss"), means.pop("gradient")
        parts = {name: means.get(name, "") for name in self.plan.parts}
        self.metrics.append(
            {
                "step": self.step,
                "phase": place.phase,
                "lr": lr,
                "loss": loss,
                "gradient": gradient,
                **parts,
                "pictures_per_s": round(speed, 1),
            }
        )
        self.display.news(
            f"phase {place.phase + 1}/{len(self.plan.stretches)}  loss {loss:.5f}  {speed:.0f} pictures/s"
        )

    def _evaluate(self) -> None:
        figures = self.task.evaluate(self.trained)
        self.validation.append({"step": self.step, **figures})
        shown = "  ".join(f"{name} {value:.4g}" for name, value in figures.items())
        self.display.say(f"{self.plan.name} step {self.step}/{self.plan.steps}: {shown}")
        if self.best is None or figures["score"] > self.best.score:
            self.best = Best(self.step, figures["score"], figures, _copied(self.trained))
        self._since = (time.perf_counter(), self.step)

    def _new_optimiser(self) -> torch.optim.Optimizer:
        settings = self.plan.optimiser
        parameters = self.task.network.parameters()
        return torch.optim.AdamW(parameters, betas=settings.betas, weight_decay=settings.weight_decay)

    def _checkpoint(self) -> Checkpoint:
        return Checkpoint(
            config=json.dumps(self.plan.config),
            step=self.step,
            network=_copied(self.task.network),
            average=None if self.average is None else _copied(self.average),
            optimiser=self.optimiser.state_dict(),
            sums=self.meter.totals(),
            count=self.meter.count,
            journal={"metrics": self.metrics.size, "validation": self.validation.size},
            seconds=self.seconds,
            best=self.best,
        )

    def _restore(self, old: Checkpoint) -> None:
        self.task.network.load_state_dict(old.network)
        if self.average is not None and old.average is not None:
            self.average.load_state_dict(old.average)
        self.optimiser.load_state_dict(old.optimiser)
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


def _out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error)


@contextmanager
def _interruptions() -> Iterator[threading.Event]:
    """Set by the first SIGINT or SIGTERM; the second acts as it did before. Outside the main thread, never set."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    signals = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in signals}

    def note(number: int, _: FrameType | None) -> None:
        asked.set()
        signal.signal(number, before[signal.Signals(number)])

    for number in signals:
        signal.signal(number, note)
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
