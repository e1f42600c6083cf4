"""Figures of a proof for a person to read: never better than what was proven."""

from __future__ import annotations

from decimal import ROUND_FLOOR, Decimal

__all__ = ["rounded_down"]


def rounded_down(value: float, digits: int) -> str:
    """`value` with so many decimals, rounded down: a printed radius or bound must not exceed its proof."""
    return str(Decimal(value).quantize(Decimal(1).scaleb(-digits), rounding=ROUND_FLOOR))
