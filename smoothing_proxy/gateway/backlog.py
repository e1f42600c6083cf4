"""What the pictures under way still need, at least."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from smoothing_proxy.gateway.pages import Meter

__all__ = ["Backlog", "Load"]


@dataclass(eq=False, slots=True)
class Load:
    """One picture. draws: that it needs when all agree. pixels: of each copy. meter: what it has cost so far."""

    draws: int
    pixels: int
    meter: Meter

    @property
    def left(self) -> int:
        """Draws, >= 0: one that takes more than it needed at least hides no other's."""
        return max(0, self.draws - self.meter.settled)


class Backlog:
    """All of them together."""

    def __init__(self) -> None:
        self._loads: set[Load] = set()

    @property
    def draws(self) -> int:
        """Draws that are still needed."""
        return sum(load.left for load in self._loads)

    @property
    def pixels(self) -> int:
        """Pixels of the copies that are still needed."""
        return sum(load.left * load.pixels for load in self._loads)

    def add(self, loads: Iterable[Load]) -> None:
        """These are under way."""
        self._loads.update(loads)

    def drop(self, loads: Iterable[Load]) -> None:
        """These are no longer, if they ever were."""
        self._loads.difference_update(loads)
