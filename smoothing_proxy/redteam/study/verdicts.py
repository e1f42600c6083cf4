"""Where few votes and a certificate disagree, the certificate decides: its label cannot have changed."""

from __future__ import annotations

from collections.abc import Sequence

from smoothing_proxy.redteam.study.cells import Cell
from smoothing_proxy.redteam.study.config import Row, evenly

__all__ = ["covered", "decided"]

ROUNDED = 1e-6
"""What a kept distance may have lost."""


def covered(l2: float, radius: float) -> bool:
    """Whether a certificate of this radius speaks of such a change; radius 0 is none."""
    return radius > 0 and l2 + ROUNDED <= radius


def decided(
    row: Row,
    right: Sequence[bool],
    l2: Sequence[float],
    certified: Cell | None,
    *,
    pictures: int,
    shown: int,
    broken: Sequence[int] = (),
) -> tuple[list[bool], int]:
    """Which answers are right, and how many of these are so by proof alone.

    right, l2: of the row's votes on the evenly spread `shown` (0: all) of so many `pictures`. certified: its cell.
    broken: numbers of pictures whose proof the attack broke, so that it decides nothing.
    """
    smoothing = row.defence.smoothing
    if certified is None or smoothing is None:
        return list(right), 0
    numbers = evenly(pictures, smoothing.certify_pictures)
    proofs = dict(zip(numbers, zip(certified.right, certified.l2, strict=True), strict=True))
    found, by_proof = [], 0
    for number, one, far in zip(evenly(pictures, shown), right, l2, strict=True):
        proven, radius = proofs.get(number, (False, 0.0))
        verdict = proven if covered(far, radius) and number not in broken else one
        found.append(verdict)
        by_proof += verdict and not one
    return found, by_proof
