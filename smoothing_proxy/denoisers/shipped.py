"""The denoisers in the package: a card and weights each, in the folder `shipped`. Loads no torch."""

from __future__ import annotations

from pathlib import Path

from smoothing_proxy.denoisers.card import read_card

__all__ = ["covering", "fitting", "shipped_cards"]

FOLDER = Path(__file__).with_name("shipped")


LONGEST_SIDE_PX = {"digits": 8, "cifar10": 32, "cifar10-wide": 32}
"""Those trained on whole pictures of one size have seen no larger ones; the others are for any size."""


def shipped_cards() -> dict[str, Path]:
    """Name to card, by name; empty where nothing is shipped."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.json"))}


def covering(sigma: float) -> list[str]:
    """The shipped denoisers that were trained for sigma, tightest range first."""
    cards = [read_card(path) for path in shipped_cards().values()]
    fitting = [card for card in cards if card.sigma_min <= sigma <= card.sigma_max]
    return [card.name for card in sorted(fitting, key=lambda card: (card.sigma_max - card.sigma_min, card.name))]


def fitting(sigma: float, height: int, width: int) -> str | None:
    """The shipped denoiser for this noise and a picture of this size in pixels; None where there is none.

    Of those that fit, the one for the smallest pictures, and then with the tightest range of sigma.
    """
    cards = shipped_cards()
    fits = [
        name
        for name in covering(sigma)
        if read_card(cards[name]).min_side_px <= min(height, width)
        and max(height, width) <= LONGEST_SIDE_PX.get(name, max(height, width))
    ]
    return min(fits, key=lambda name: LONGEST_SIDE_PX.get(name, height + width), default=None)
