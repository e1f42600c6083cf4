"""What an attack is given, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from pydantic import Field

from smoothing_proxy.errors import ConfigError
from smoothing_proxy.redteam.grid import Norm, Pictures
from smoothing_proxy.redteam.networks import Network
from smoothing_proxy.redteam.targets import GradientTarget, Int64, Target
from smoothing_proxy.settings_file import Settings

__all__ = ["AttackKind", "AttackResult", "Batched", "Found", "Job", "Needs", "network_of"]

Needs: TypeAlias = Literal["gradients", "scores", "labels"]
Float64: TypeAlias = npt.NDArray[np.float64]


class Batched(Settings):
    """batch_size: pictures that are worked on together."""

    batch_size: int = Field(default=64, ge=1)


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """pictures: float32 [n, 3, h, w] on the 8-bit grid. labels: int64 [n], indices into the target's classes.

    eps: on the [0, 1] scale, in `norm`; None for attacks that look for the nearest picture. options: the attack's
    own settings, checked. max_queries: for each picture, of attacks without gradients. surrogate: for transfer.
    done: told how many pictures are finished. subjects: int64 [n], the pictures' numbers in the target's books.
    aims: int64 [n], classes that a targeted attack is to reach; None leaves them to the attack.
    """

    target: Target
    pictures: Pictures
    labels: Int64
    norm: Norm
    eps: float | None
    options: Any
    seed: int
    max_queries: int
    surrogate: Network | None
    done: Callable[[int], None]
    subjects: Int64
    aims: Int64 | None = None

    @property
    def radius(self) -> float:
        """eps where it has to be given."""
        assert self.eps is not None
        return self.eps


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """pictures: float32 [n, 3, h, w], not rounded yet. queries: int64 [n], of each picture.

    Of gradient attacks, whose pictures share their passes, queries are the passes forward in the mean.
    answers: int64 [n], the target's to these very pictures, where they are rounded already and it was asked about
    them; None where it has to be asked. aims: int64 [n], the classes that a targeted attack wanted.
    """

    pictures: Pictures
    queries: Int64
    answers: Int64 | None = None
    aims: Int64 | None = None

    def reached(self, answers: Int64, labels: Int64) -> npt.NDArray[np.bool_]:
        """bool [n]: which answers are what the attack wanted, another one than the label or the one aimed at."""
        return np.asarray(answers != labels if self.aims is None else answers == self.aims)


@dataclass(frozen=True, slots=True)
class AttackKind:
    """name: as users write it. norms: that it can work in, the usual one first. needs: of the target.

    nearest: it looks for the nearest picture with another answer; eps then says which of them count as success,
    and may be left out. options: the class of its settings.
    """

    name: str
    norms: tuple[Norm, ...]
    needs: Needs
    run: Callable[[Job], Found]
    options: type[Settings]
    nearest: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class AttackResult:
    """What an attack came to, picture by picture.

    pictures: float32 [n, 3, h, w] in [0, 1], on the 8-bit grid, and within eps in `norm` where eps is a bound that
    the attack keeps. All else speaks of these. unrounded: the same before rounding, for comparison with works that
    never round. l2, linf: float64 [n], distances from the clean pictures. answers: int64 [n], the target's, OTHER
    where it is none of its classes. success: bool [n], the answer is another one than the label (or the one that
    was aimed at), and where eps was given the picture is within it. queries: int64 [n], see Found. seconds: of all
    pictures together.
    """

    name: str
    norm: Norm
    eps: float | None
    pictures: Pictures
    unrounded: Pictures
    l2: Float64
    linf: Float64
    answers: Int64
    success: npt.NDArray[np.bool_]
    queries: Int64
    seconds: float

    @property
    def accuracy(self) -> float:
        """The share of the pictures whose label stood."""
        return float(1.0 - self.success.mean())


def network_of(job: Job) -> Network:
    """The target's network. Raises ConfigError where it has none."""
    if not isinstance(job.target, GradientTarget):
        raise ConfigError(f"{job.target.name}: has no gradients")
    return job.target.network
