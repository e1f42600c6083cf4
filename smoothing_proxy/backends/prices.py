"""What one picture costs: the user's own figure, or the shipped list price with its date."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from smoothing_proxy.errors import ConfigError
from smoothing_proxy.settings_file import read_toml

__all__ = ["Price", "price_of"]


LISTED = Path(__file__).with_name("prices.toml")


@dataclass(frozen=True, slots=True)
class Price:
    """usd: for one picture, >= 0. as_of: the day that it was written down, "" where nobody said."""

    usd: float
    as_of: str = ""


def price_of(backend: str, usd_per_1000: float | None, as_of: str = "") -> Price:
    """The price that the user gave for a thousand pictures, else the list price of prices.toml.

    Raises ConfigError when neither is known, or the price is negative or not a number.
    """
    if usd_per_1000 is None:
        listed = read_toml(LISTED).get(backend)
        if listed is None:
            raise ConfigError(
                f"{backend}: price_usd_per_1000: missing; say what a thousand pictures cost you (0 for nothing)"
            )
        return Price(listed["usd_per_1000"] / 1000, listed["as_of"])
    if not (math.isfinite(usd_per_1000) and usd_per_1000 >= 0):
        raise ConfigError(f"{backend}: price_usd_per_1000 is {usd_per_1000}; expected 0 or more dollars")
    return Price(usd_per_1000 / 1000, as_of)
