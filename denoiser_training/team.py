"""The processes that train one network together, as torchrun starts them; one process is a team of itself.

Every process sees the same row of batches and takes its part of each; gradients are averaged, so that a step is
what one process would have made of the whole batch, up to rounding. (A classifier's batch norm counts over the
part.) The first process alone evaluates and writes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn

from denoiser_training.machine import device_named
from smoothing_proxy.errors import ConfigError, SmoothingProxyError

__all__ = ["ALONE", "Team", "team_of"]

T = TypeVar("T")

PATIENCE = timedelta(hours=2)
"""How long a process waits for the others, which may be evaluating."""


@dataclass(frozen=True)
class Team:
    """rank: this process's number, from 0. size: how many there are. local: its number on its machine."""

    rank: int = 0
    size: int = 1
    local: int = 0

    @property
    def leads(self) -> bool:
        """Whether this is the process that evaluates and writes."""
        return self.rank == 0

    @property
    def part(self) -> slice:
        """The rows of each batch that this process takes."""
        return slice(self.rank, None, self.size)

    def check_batch(self, batch: int, key: str, copies: int = 1) -> None:
        """Raises ConfigError when a batch cannot be dealt out evenly: the mean of means would be another mean.

        copies: of each picture, which stay together in one process.
        """
        if batch % (self.size * copies):
            of = f", with {copies} copies of each picture" if copies > 1 else ""
            raise ConfigError(
                f"{key} = {batch}{of}: not a multiple of the {self.size} processes that share a batch"
            )

    def device(self, name: str) -> torch.device:
        """Where this process works: `name`, and of several GPUs its own. "auto" takes a GPU where there is one.

        Raises ConfigError when there is no such device.
        """
        if name == "auto":
            name = "cuda" if torch.cuda.is_available() else "cpu"
        device = device_named(f"cuda:{self.local}" if name == "cuda" and self.size > 1 else name)
        if device.type == "cuda":
            torch.cuda.set_device(device)
        return device

    def shared(self, network: nn.Module) -> nn.Module:
        """`network` to call in training: its gradients come back averaged over the team. Same parameters."""
        if self.size == 1:
            return network
        from torch.nn.parallel import DistributedDataParallel

        return DistributedDataParallel(network)

    def first(self, action: Callable[[], T]) -> T:
        """What `action` returns in the first process, in all of them; or raises its error in all of them."""
        if self.size == 1:
            return action()
        box: list[Any] = [None, None]
        if self.leads:
            try:
                box[0] = action()
            except (SmoothingProxyError, OSError) as error:
                box[1] = error
        distributed.broadcast_object_list(box, device=torch.device("cpu"))
        if box[1] is not None:
            raise box[1]
        result: T = box[0]
        return result

    def first_only(self, action: Callable[[], T]) -> T | None:
        """What `action` returns, in the first process; None in the others. Its error is raised in all of them."""
        kept: list[T] = []
        self.first(lambda: kept.append(action()))
        return kept[0] if kept else None

    @contextmanager
    def first_inside(self, block: AbstractContextManager[None]) -> Iterator[None]:
        """`block` around the first process alone. Its error on entering is raised in all of them."""
        with ExitStack() as entered:
            self.first_only(lambda: entered.enter_context(block))
            yield

    def each(self, value: T) -> list[T]:
        """The values of all the processes, by rank, in all of them."""
        if self.size == 1:
            return [value]
        found: list[T] = []
        for rank in range(self.size):
            box = [value]
            distributed.broadcast_object_list(box, src=rank, device=torch.device("cpu"))
            found.append(box[0])
        return found

    def any(self, *, here: bool) -> bool:
        """Whether it is so in any process; all must ask."""
        if self.size == 1:
            return here
        flag = torch.tensor(float(here))
        distributed.all_reduce(flag, distributed.ReduceOp.MAX)
        return bool(flag)

    def mean(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Of scalars with the same names in every process."""
        if self.size == 1 or not values:
            return dict(values)
        sums = torch.stack([value.double().cpu() for value in values.values()])
        distributed.all_reduce(sums)
        return dict(zip(values, sums / self.size, strict=True))


ALONE = Team()


@contextmanager
def team_of(environment: Mapping[str, str]) -> Iterator[Team]:
    """The team that torchrun's variables in `environment` describe; without them, ALONE.

    Raises ConfigError when the processes do not find each other.
    """
    size = int(environment.get("WORLD_SIZE", "1"))
    if size == 1:
        yield ALONE
        return
    # Its functions have the process group as a default argument. Imported later, as DistributedDataParallel does,
    # they would keep the group beyond its end, and its threads could abort the process as the interpreter ends.
    import torch.distributed.nn.functional

    try:
        # Control goes over gloo, so that nobody waits for a GPU; gradients over NCCL where they are on one.
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        distributed.init_process_group(backend, timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise ConfigError(f"{size} processes were asked for and do not find each other: {error}") from error
    try:
        yield Team(int(environment["RANK"]), size, int(environment.get("LOCAL_RANK", "0")))
    finally:
        distributed.destroy_process_group()
