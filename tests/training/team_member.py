"""What each process of test_team.py runs: `torchrun -m tests.training.team_member FOLDER`."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor, nn

from denoiser_training.batches import Place
from denoiser_training.loop import Loop
from denoiser_training.team import Team, team_of
from smoothing_proxy.errors import ConfigError

from .test_loop import Line, plan


class Normalised(Line):
    """A line behind a batch norm, whose counters differ between processes until somebody agrees on them."""

    def losses(self, network: Callable[..., Tensor], place: Place, part: slice) -> dict[str, Tensor]:
        x = torch.randn(16, 1, generator=torch.Generator().manual_seed(place.step))[part]
        self.rows = x
        return {"loss": (network(x) - 3 * x).square().mean(), "error": x.mean()}

    def evaluate(self, network: nn.Module) -> dict[str, float]:
        assert int(os.environ["RANK"]) == 0
        return {"score": float(network.get_parameter("1.weight").item())}

    def sample(self, network: nn.Module, path: Path) -> None:
        assert int(os.environ["RANK"]) == 0


def said(team: Team) -> str:
    """The error that the first process's action raises."""

    def fail() -> None:
        raise ConfigError("said by the first")

    try:
        team.first(fail)
    except ConfigError as error:
        return str(error)
    return ""


def train(team: Team, folder: Path) -> None:
    """Seven steps, then this process's end of it."""
    torch.manual_seed(team.rank)
    task = Normalised(network=nn.Sequential(nn.BatchNorm1d(1), nn.Linear(1, 1)))
    outcome = Loop(task, plan(steps=(4, 3)), folder, Console(quiet=True), team).run()
    assert outcome.best is not None
    end = {
        "best": outcome.best.weights,
        "last": {name: parameter.detach() for name, parameter in task.network.named_parameters()},
        "steps": outcome.steps,
        "rows": task.rows.tolist(),
        "error": said(team),
        "each": team.each(f"process {team.rank}"),
    }
    torch.save(end, folder / f"rank-{team.rank}.pt")


def threads() -> list[str]:
    """Names of this process's threads, of those that carry messages between processes."""
    names = []
    for path in Path("/proc/self/task").glob("*/comm"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            names.append(path.read_text().strip())
    return sorted(name for name in names if "gloo" in name)


def threads_left(within_s: float = 5.0) -> list[str]:
    """Those that are there for good: one that has been joined may stand in /proc for a moment more."""
    deadline = time.monotonic() + within_s
    while (left := threads()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    with team_of(os.environ) as team:
        train(team, folder)
        during = threads()
    gc.collect()
    (folder / f"threads-{team.rank}.json").write_text(json.dumps([during, threads_left()]))
