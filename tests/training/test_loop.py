from __future__ import annotations

import csv
import math
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

from denoiser_training.batches import Place
from denoiser_training.checkpoint import Best, Checkpoint, read_checkpoint, write_checkpoint
from denoiser_training.config import OptimiserSettings, RuntimeSettings
from denoiser_training.errors import TrainingError
from denoiser_training.loop import Loop, Outcome, Plan, Stretch
from denoiser_training.schedule import cosine
from smoothing_proxy.errors import ConfigError

QUIET = Console(quiet=True)

NO_UTF8 = b"\x80\x02X\x04\x00\x00\x00\xff\xff\xff\xff."
"""A pickle of a text whose bytes are none."""


@dataclass
class Line:
    """Fits y = 3 x; `disaster` maps a step to what happens there."""

    network: nn.Module = field(default_factory=lambda: nn.Linear(1, 1))
    disaster: dict[int, Any] = field(default_factory=dict)
    seen: list[Place] = field(default_factory=list)

    def losses(self, network: Callable[..., Tensor], place: Place, part: slice) -> dict[str, Tensor]:
        self.seen.append(place)
        what = self.disaster.get(place.step, 1.0)
        if isinstance(what, Exception):
            raise what
        x = torch.randn(16, 1, generator=torch.Generator().manual_seed(place.step))[part]
        loss = (network(x) - 3 * x).square().mean() * what
        return {"loss": loss, "error": loss.detach().sqrt()}

    def evaluate(self, network: nn.Module) -> dict[str, float]:
        weight = network.get_parameter("weight").item()
        return {"score": -abs(weight - 3), "weight": weight}

    def sample(self, network: nn.Module, path: Path) -> None:
        path.parent.mkdir(exist_ok=True)
        path.write_text(str(network.get_parameter("weight").item()))


def plan(
    ema: float = 0.0,
    steps: tuple[int, ...] = (40, 20),
    precision: Literal["fp32", "fp16"] = "fp32",
    **runtime: bool,
) -> Plan:
    return Plan(
        name="line",
        stretches=tuple(Stretch(n, 0.3 / 2**i, 16) for i, n in enumerate(steps)),
        parts=("error", "unused"),
        optimiser=OptimiserSettings(ema=ema, warm_up_steps=2, precision=precision),
        log_every=10,
        evaluate_every=15,
        runtime=RuntimeSettings(checkpoint_every=7, samples_every=25).model_copy(update=runtime),
        config={"seed": 0},
    )


def run(task: Line, folder: Path, how: Plan | None = None) -> Outcome:
    return Loop(task, how or plan(), folder, QUIET).run()


def rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def from_two(**options: Any) -> Line:
    """A line whose weights are always the same at first."""
    task = Line(**options)
    task.network.load_state_dict({"weight": torch.tensor([[2.0]]), "bias": torch.tensor([0.5])})
    return task


def break_off(folder: Path, how: Plan, stop: int, **options: Any) -> None:
    """Train `stop` steps and end without a word."""
    loop = Loop(from_two(**options), how, folder, QUIET)
    advance = loop._advance

    def advance_or_break() -> None:
        if loop.step == stop:
            raise KeyboardInterrupt
        advance()

    loop._advance = advance_or_break  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        loop.run()


def journals(folder: Path) -> list[list[dict[str, str]]]:
    """Every row but for the one column that tells of time."""
    tables = [rows(folder / name) for name in ("metrics.csv", "validation.csv")]
    return [[{k: v for k, v in row.items() if k != "pictures_per_s"} for row in table] for table in tables]


@pytest.mark.parametrize("ema", [0.0, 0.8])
def test_it_learns_and_keeps_the_weights_with_the_best_score(tmp_path: Path, ema: float) -> None:
    task = Line()
    outcome = run(task, tmp_path, plan(ema))
    assert outcome.finished
    assert outcome.best is not None
    scores = {int(row["step"]): float(row["score"]) for row in rows(tmp_path / "validation.csv")}
    assert list(scores) == [15, 30, 40, 45, 60]
    assert outcome.best.step == max(scores, key=lambda step: scores[step])
    assert outcome.best.score == pytest.approx(max(scores.values()), rel=1e-5)
    assert outcome.best.weights["weight"].item() == pytest.approx(3, abs=0.2)


def test_the_journal_has_a_row_per_stretch_of_steps_and_a_column_per_loss(tmp_path: Path) -> None:
    run(Line(), tmp_path)
    journal = rows(tmp_path / "metrics.csv")
    assert [(int(row["step"]), int(row["phase"])) for row in journal] == [
        (10, 0),
        (20, 0),
        (30, 0),
        (40, 0),
        (50, 1),
        (60, 1),
    ]
    assert all(float(row["error"]) > 0 and row["unused"] == "" for row in journal)
    assert sorted(path.name for path in (tmp_path / "samples").iterdir()) == [
        f"step-{n:07d}.png" for n in (25, 40, 50, 60)
    ]


def test_each_phase_counts_its_own_steps(tmp_path: Path) -> None:
    task = Line()
    run(task, tmp_path)
    assert task.seen == [*(Place(0, i) for i in range(40)), *(Place(1, i) for i in range(20))]


def test_a_phase_may_end_before_its_rate_has(tmp_path: Path) -> None:
    how = replace(plan(), stretches=(Stretch(10, 0.3, 16, lr_steps=20), Stretch(10, 0.1, 16)))
    run(Line(), tmp_path, how)
    rates = [float(row["lr"]) for row in rows(tmp_path / "metrics.csv")]
    assert rates == pytest.approx([0.3 * cosine(9, 20, 2), 0.1 * cosine(9, 10, 2)])


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    first = run(Line(), tmp_path)
    task = Line()
    again = run(task, tmp_path)
    assert task.seen == []
    assert (again.steps, again.best) == (first.steps, first.best)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_checkpoint(tmp_path: Path, value: float) -> None:
    with pytest.raises(TrainingError, match=r"loss.* not finite by step 28.*last\.ckpt"):
        run(Line(disaster={22: value}), tmp_path)
    kept = read_checkpoint(tmp_path / "last.ckpt", plan().config)
    assert kept is not None
    assert kept.step == 21
    assert all(bool(torch.isfinite(tensor).all()) for tensor in kept.network.values())
    healed = run(Line(), tmp_path)
    assert healed.finished


def test_without_memory_it_stops_with_advice(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"step 18: out of memory; set optimiser.batch"):
        run(Line(disaster={17: torch.OutOfMemoryError("CUDA out of memory")}), tmp_path)
    assert read_checkpoint(tmp_path / "last.ckpt", plan().config) is not None
    with pytest.raises(RuntimeError, match="something else"):
        run(Line(disaster={17: RuntimeError("something else")}), tmp_path)


@pytest.mark.parametrize("ema", [0.0, 0.8])
@pytest.mark.parametrize("stop", [3, 7, 16, 39, 41, 58])
def test_a_run_that_broke_off_goes_on_to_the_same_losses(tmp_path: Path, stop: int, ema: float) -> None:
    whole = run(from_two(), tmp_path / "whole", plan(ema))
    break_off(tmp_path / "broken", plan(ema), stop)
    resumed = run(from_two(), tmp_path / "broken", plan(ema))
    assert resumed.best == whole.best
    assert journals(tmp_path / "whole") == journals(tmp_path / "broken")


@pytest.mark.parametrize("stop", [10, 50])
def test_in_fp16_a_step_that_overflows_is_left_out_and_the_scale_is_kept(tmp_path: Path, stop: int) -> None:
    how = plan(precision="fp16")
    whole = run(from_two(disaster={5: 1e4}), tmp_path / "whole", how)
    assert whole.best is not None
    assert whole.best.weights["weight"].item() == pytest.approx(3, abs=0.2)
    kept = read_checkpoint(tmp_path / "whole/last.ckpt", how.config)
    assert kept is not None
    assert kept.scaler["scale"] < 2**16
    break_off(tmp_path / "broken", how, stop, disaster={5: 1e4})
    resumed = run(from_two(disaster={5: 1e4}), tmp_path / "broken", how)
    assert resumed.best == whole.best
    assert journals(tmp_path / "whole") == journals(tmp_path / "broken")


def test_in_fp16_a_loss_that_is_not_finite_still_stops(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"loss.* not finite by step 28"):
        run(Line(disaster={22: math.nan}), tmp_path, plan(precision="fp16"))


def test_a_compiled_network_learns_the_same_and_keeps_its_own_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = run(from_two(), tmp_path / "plain")
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    compiled = run(from_two(), tmp_path / "compiled", plan(compile=True))
    assert compiled.best == plain.best
    kept = read_checkpoint(tmp_path / "compiled/last.ckpt", plan().config)
    assert kept is not None
    assert set(kept.network) == {"weight", "bias"}


@pytest.mark.slow
def test_a_compiled_network_learns_the_same_with_the_real_compiler(tmp_path: Path) -> None:
    plain, compiled = (run(from_two(), tmp_path / str(on), plan(compile=on)) for on in (False, True))
    assert plain.best is not None
    assert compiled.best is not None
    assert compiled.best.weights["weight"].item() == pytest.approx(plain.best.weights["weight"].item(), rel=1e-4)


def test_a_compiler_that_fails_is_told_from_a_fault_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise OSError("no compiler")

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=broken))
    with pytest.raises(TrainingError, match=r"step 1: the network cannot be compiled here; set runtime\.compile"):
        run(Line(), tmp_path, plan(compile=True))


def test_tensorboard_shows_what_the_journal_says_once(tmp_path: Path) -> None:
    board = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    how = plan(tensorboard=True)
    break_off(tmp_path, how, 41)
    run(from_two(), tmp_path, how)
    events = board.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    for file, column in (("metrics", "loss"), ("metrics", "lr"), ("validation", "score")):
        shown = {event.step: event.value for event in events.Scalars(f"{file}/{column}")}
        journal = {int(row["step"]): float(row[column]) for row in rows(tmp_path / f"{file}.csv")}
        assert shown == pytest.approx(journal, rel=1e-6)
    assert "metrics/unused" not in events.Tags()["scalars"]


def test_without_tensorboard_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ConfigError, match=r"pip install 'smoothing-proxy\[training\]'"):
        run(Line(), tmp_path, plan(tensorboard=True))
    assert list(tmp_path.iterdir()) == []


def some_checkpoint(step: int = 5) -> Checkpoint:
    weights = {"w": torch.arange(3.0)}
    optimiser = torch.optim.AdamW([nn.Parameter(torch.ones(2))]).state_dict()
    best = Best(4, 1.5, {"score": 1.5}, weights)
    return Checkpoint('{"seed": 0}', step, weights, None, optimiser, {"loss": 2.5}, 2, {"metrics": 10}, 1.25, best)


def test_a_checkpoint_comes_back_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    assert read_checkpoint(path, {"seed": 0}) is None
    write_checkpoint(path, some_checkpoint(4))
    write_checkpoint(path, some_checkpoint(5))
    back = read_checkpoint(path, {"seed": 0})
    assert back is not None
    assert back.best is not None
    assert torch.equal(back.network["w"], torch.arange(3.0))
    assert (back.step, back.sums, back.best.score) == (5, {"loss": 2.5}, 1.5)
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


def test_another_config_and_a_damaged_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    write_checkpoint(path, some_checkpoint())
    with pytest.raises(ConfigError, match=r"another config; different: phases\.0\.steps, seed"):
        read_checkpoint(path, {"seed": 1, "phases": [{"steps": 3}]})
    for damaged in (path.read_bytes()[:200], NO_UTF8, b""):
        path.write_bytes(damaged)
        with pytest.raises(ConfigError, match="not a checkpoint"):
            read_checkpoint(path, {"seed": 0})


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """The operating system lets no file of this process grow beyond so many bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(
    ("log_every", "says"),
    [
        (1, r"line: step 1: cannot write into .*: File too large\. No checkpoint was written yet"),
        (99, r"cannot write the checkpoint: .*File too large"),
    ],
)
def test_a_disk_that_is_full_ends_it_with_a_word_and_it_goes_on_later(
    tmp_path: Path, log_every: int, says: str
) -> None:
    how = replace(plan(steps=(12,)), log_every=log_every)
    with files_of_at_most(60), pytest.raises(TrainingError, match=says):
        run(from_two(), tmp_path / "full", how)
    assert run(from_two(), tmp_path / "full", how).finished
    run(from_two(), tmp_path / "whole", how)
    assert journals(tmp_path / "full") == journals(tmp_path / "whole")


def test_of_weights_with_the_same_score_the_last_are_kept(tmp_path: Path) -> None:
    class Content(Line):
        def evaluate(self, network: nn.Module) -> dict[str, float]:
            return {"score": 70.0}

    outcome = run(Content(), tmp_path)
    assert outcome.best is not None
    assert outcome.best.step == outcome.steps == 60


def test_a_disk_that_refuses_keeps_the_old_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "last.ckpt").mkdir()
    with pytest.raises(TrainingError, match="cannot write the checkpoint"):
        write_checkpoint(tmp_path / "last.ckpt", some_checkpoint())
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]
