"""The denoisers in the package: a card and weights each, in the folder `shipped`. Loads no torch."""

from __future__ import annotations

from pathlib import Path

from smoothing_proxy.denoisers.card import read_card

__all__ = ["covering", "shipped_cards"]

FOLDER = Path(__file__).with_name("shipped")


def shipped_cards() -> dict[str, Path]:
    """Name to card, by name; empty where nothing is shipped."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.json"))}


def covering(sigma: float) -> list[str]:
    """The shipped denoisers that were trained for sigma, tightest range first."""
    cards = [read_card(path) for path in shipped_cards().values()]
    fitting = [card for card in cards if card.sigma_min <= sigma <= card.sigma_max]
    return [card.name for card in sorted(fitting, key=lambda card: (card.sigma_max - card.sigma_min, card.name))]
