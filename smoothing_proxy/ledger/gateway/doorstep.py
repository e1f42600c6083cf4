"""Before the door of a database that has not answered just now."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

__all__ = ["Doorstep"]

VAIN_S = 0.5
"""For so long nobody else need wait to hear the same."""


class Doorstep:
    """Who has waited for a database in vain tells those behind: or they would wait one after the other.

    now: seconds of any clock that only goes forward.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self.now = now
        self._lock = threading.Lock()
        self._until = -math.inf

    @property
    def is_vain(self) -> bool:
        """Whether somebody has just waited in vain."""
        with self._lock:
            return self.now() < self._until

    def leave(self) -> None:
        """It has not answered."""
        with self._lock:
            self._until = self.now() + VAIN_S
