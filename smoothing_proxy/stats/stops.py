"""Every way for a target procedure to end, counted once and for all pictures.

A stop is a number of draws and of votes at which it ends; log_paths is the logarithm of how many orders of votes
lead there. For a picture of which a draw votes for the label with probability p, its probability is exp(log_paths)
p^k (1 - p)^(n - k), so that one dynamic programme serves all pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

from smoothing_proxy.stats.sequential import Boundary

__all__ = ["Stops", "stops"]

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Stops:
    """Every way for a target procedure to end: after n draws of which k voted for the label, with so many rungs.

    n, k, proven: int [m]. log_paths: float [m].
    """

    n: Ints
    k: Ints
    proven: Ints
    log_paths: Floats

    def chances(self, p: Floats) -> Floats:
        """float [len(p), m]: of each stop, for pictures of these probabilities."""
        q = p[:, np.newaxis]
        log = self.log_paths + special.xlogy(self.k, q) + special.xlog1py(self.n - self.k, -q)
        chances: Floats = np.exp(log)
        return chances


def stops(rungs: Sequence[Boundary]) -> Stops:
    """All stops of a ladder of boundaries with one n_max, smallest radius first, as smoothing.plan climbs it."""
    climb = _Climb(rungs)
    for n in range(rungs[0].n_max + 1):
        climb.draw(n)
    return climb.stops()


class _Climb:
    """The dynamic programme. Each rung has its own count of paths, weighted by the p0 of the rung.

    So weighted, the counts that matter are near 1 whatever n is.
    """

    def __init__(self, rungs: Sequence[Boundary]) -> None:
        self._rungs = rungs
        self._first = [0] * len(rungs)  # the count that mass[rung][0] stands for
        self._mass = [np.zeros(0) for _ in rungs]
        self._found: list[tuple[int, int, Ints, Floats]] = []  # n, rungs proven, counts, log_paths

    def draw(self, n: int) -> None:
        """All counts after n draws, sorted into stops, into rungs that are climbed and into what goes on."""
        counts, log_paths = (np.zeros(1, dtype=np.int64), np.zeros(1)) if n == 0 else _nothing()
        for rung, boundary in enumerate(self._rungs):
            self._step(rung, boundary.p0)
            self._join(rung, counts, log_paths + self._log_weight(rung, n, counts))
            first, mass = self._first[rung], self._mass[rung]
            up = int(np.clip(int(boundary.up[n]) - first, 0, len(mass)))
            low = n if n == boundary.n_max else int(boundary.low[n])
            gone = int(np.clip(low + 1 - first, 0, up))
            self._stop(n, rung, *self._paths(rung, n, first, mass[:gone]))
            counts, log_paths = self._paths(rung, n, first + up, mass[up:])
            self._first[rung], self._mass[rung] = first + gone, mass[gone:up]
            if rung + 1 < len(self._rungs):
                counts, log_paths = self._sent_on(n, rung + 1, counts, log_paths)
        self._stop(n, len(self._rungs), counts, log_paths)

    def stops(self) -> Stops:
        """All that was found."""
        n, proven, counts, log_paths = zip(*self._found, strict=True)
        sizes = [len(part) for part in counts]
        return Stops(
            np.repeat(n, sizes), np.concatenate(counts), np.repeat(proven, sizes), np.concatenate(log_paths)
        )

    def _sent_on(self, n: int, rung: int, counts: Ints, log_paths: Floats) -> tuple[Ints, Floats]:
        """What arrives at the next rung: counts that are hopeless there stop at once, at full precision."""
        boundary = self._rungs[rung]
        hopeless = (counts < boundary.up[n]) & ((counts <= boundary.low[n]) | (n == boundary.n_max))
        self._stop(n, rung, counts[hopeless], log_paths[hopeless])
        return counts[~hopeless], log_paths[~hopeless]

    def _stop(self, n: int, proven: int, counts: Ints, log_paths: Floats) -> None:
        if len(counts):
            self._found.append((n, proven, counts, log_paths))

    def _step(self, rung: int, p: float) -> None:
        mass = self._mass[rung]
        if len(mass):
            stepped = np.zeros(len(mass) + 1)
            stepped[:-1] = mass * (1.0 - p)
            stepped[1:] += mass * p
            self._mass[rung] = stepped

    def _join(self, rung: int, counts: Ints, log_mass: Floats) -> None:
        if not len(counts):
            return
        mass, first = self._mass[rung], self._first[rung] if len(self._mass[rung]) else int(counts[0])
        start, end = min(first, int(counts[0])), max(first + len(mass), int(counts[-1]) + 1)
        joined = np.zeros(end - start)
        joined[first - start : first - start + len(mass)] = mass
        joined[counts - start] += np.exp(log_mass)
        self._first[rung], self._mass[rung] = start, joined

    def _paths(self, rung: int, n: int, first: int, mass: Floats) -> tuple[Ints, Floats]:
        there = np.flatnonzero(mass > 0)
        counts = first + there
        return counts, np.log(mass[there]) - self._log_weight(rung, n, counts)

    def _log_weight(self, rung: int, n: int, counts: Ints) -> Floats:
        p0 = self._rungs[rung].p0
        weight: Floats = counts * np.log(p0) + (n - counts) * np.log1p(-p0)
        return weight


def _nothing() -> tuple[Ints, Floats]:
    return np.zeros(0, dtype=np.int64), np.zeros(0)
