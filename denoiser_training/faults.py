"""What goes wrong on a machine that is no fault of this program: no memory, no compiler, no disk."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from denoiser_training.errors import TrainingError

__all__ = ["advice", "memory_told", "out_of_memory", "refused"]


def out_of_memory(error: BaseException) -> bool:
    """Whether the device's memory ran out, or the machine's."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "allocate memory" in str(error)


def advice(error: RuntimeError) -> str:
    """What went wrong in a step and what to do, for the faults that are not ours; else nothing."""
    if out_of_memory(error):
        return "out of memory; set optimiser.batch, the phase's crop_px or evaluate.batch lower"
    if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
        return f"the network cannot be compiled here; set runtime.compile to false: {str(error).splitlines()[0]}"
    return ""


@contextmanager
def memory_told(name: str, remedy: str) -> Iterator[None]:
    """Raises TrainingError in the place of an error for memory that ran out inside. name: of the run."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        raise TrainingError(f"{name}: out of memory; {remedy}") from error


def refused(error: OSError) -> str:
    """What a disk or a folder said, with the file where it names one."""
    file = f"{error.filename}: " if error.filename else ""
    return f"{file}{error.strerror or error}"
