"""Where a step stands among the phases, and its learning rate."""

from __future__ import annotations

import math
from collections.abc import Sequence

from denoiser_training.batches import Place

__all__ = ["cosine", "locate"]


def locate(step: int, phases: Sequence[int]) -> Place:
    """The phase that `step` (from 0) falls into, and its number there. phases: steps of each.

    The end of training is one step behind the last phase's end.
    """
    for phase, length in enumerate(phases[:-1]):
        if step < length:
            return Place(phase, step)
        step -= length
    return Place(len(phases) - 1, step)


def cosine(step: int, steps: int, warm_up: int) -> float:
    """Factor of the learning rate, in (0, 1]: a straight line up, then half a cosine down (arXiv 1608.03983).

    step: within the phase, from 0. A warm-up longer than the phase is cut to its half.
    """
    warm_up = min(warm_up, steps // 2)
    if step < warm_up:
        return (step + 1) / (warm_up + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / (steps - warm_up)))
