"""How likely a label of known probability is to reach a boundary: exactly, by dynamic programming."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Operating", "operating", "reach_probability"]

NEGLIGIBLE = 1e-18
"""Mass that one step may leave out of the account; it counts as having reached the boundary."""

TRIM_EVERY = 16


def reach_probability(p: float, up: npt.NDArray[np.int64]) -> float:
    """The probability that a count with success probability p ever reaches `up` by its last draw, rounded up.

    p: in [0, 1]. up: int [n_max + 1], non-decreasing but perhaps for its last entry; up[n] > n is never reached.
    """
    reached = 0.0
    first = 0  # the count that mass[0] stands for
    mass = np.ones(1)
    fail, success = 1.0 - p, p
    for n in range(1, len(up)):
        stepped = np.empty(len(mass) + 1)
        np.multiply(mass, fail, out=stepped[:-1])
        stepped[-1] = 0.0
        stepped[1:] += mass * success
        inside = int(up[n]) - first
        if inside < len(stepped):
            reached += float(stepped[max(0, inside) :].sum())
            stepped = stepped[: max(0, inside)]
        mass = stepped
        if n % TRIM_EVERY == 0:
            mass, skipped, dropped = _trimmed(mass)
            first += skipped
            reached += dropped
        if not len(mass):
            break
    return min(1.0, reached * (1.0 + 1e-9) + len(up) * 1e-17)


@dataclass(frozen=True, slots=True)
class Operating:
    """What a boundary does to one picture. certifies: probability. draws: expected until it stops."""

    certifies: float
    draws: float


def operating(p: float, up: npt.NDArray[np.int64], low: npt.NDArray[np.int64]) -> Operating:
    """For a picture whose leading label has probability p: certified at up[n] votes, given up at low[n].

    up, low: int [n_max + 1], as in sequential.Boundary. The last draw ends it in any case.
    """
    certified, draws, first = 0.0, 0.0, 0
    mass = np.ones(1)
    for n in range(1, len(up)):
        draws += float(mass.sum())
        stepped = np.empty(len(mass) + 1)
        np.multiply(mass, 1.0 - p, out=stepped[:-1])
        stepped[-1] = 0.0
        stepped[1:] += mass * p
        inside = max(0, min(len(stepped), int(up[n]) - first))
        certified += float(stepped[inside:].sum())
        gone = max(0, min(inside, int(low[n]) + 1 - first))
        mass, first = stepped[gone:inside], first + gone
        if not len(mass):
            break
    return Operating(certified, draws)


def _trimmed(mass: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], int, float]:
    """Mass without its negligible ends, how many counts were cut off below, and how much mass was cut off."""
    low = int(np.searchsorted(np.cumsum(mass), NEGLIGIBLE))
    high = int(np.searchsorted(np.cumsum(mass[::-1]), NEGLIGIBLE))
    kept = mass[low : len(mass) - high] if low + high < len(mass) else mass[:0]
    cut = float(mass[:low].sum() + mass[len(mass) - high :].sum()) if high else float(mass[:low].sum())
    return kept, low, cut if len(kept) else float(mass.sum())
