"""Networks that were saved for one batch size, or for a range of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["BatchLimits"]

Array: TypeAlias = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """How many pictures a network takes in one call: from `least` to `most`, None for any number."""

    least: int = 1
    most: int | None = None

    def call(self, network: Callable[[Array], Array], inputs: Array) -> Array:
        """network(inputs) in calls within the limits; what fills a call up is empty pictures, then dropped.

        inputs: [n, ...], n >= 1. Returns [n, ...].
        """
        step = self.most or len(inputs)
        parts = [inputs[start : start + step] for start in range(0, len(inputs), step)]
        return np.concatenate([network(self._filled_up(part))[: len(part)] for part in parts])

    def _filled_up(self, inputs: Array) -> Array:
        missing = max(self.least - len(inputs), 0)
        return (
            np.concatenate([inputs, np.zeros((missing, *inputs.shape[1:]), inputs.dtype)]) if missing else inputs
        )
