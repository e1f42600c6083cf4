"""Attacks by name. A new one is a line here."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from smoothing_proxy.errors import ConfigError, nearest
from smoothing_proxy.redteam.attacks.base import AttackKind, Needs
from smoothing_proxy.redteam.grid import Norm

__all__ = ["ATTACKS", "L2_SQUARE_PX", "Entry", "attack_named", "names_needing"]

_HERE = "smoothing_proxy.redteam.attacks"

L2_SQUARE_PX = 10
"""ART's Square in l2 lays five tiles along a side, each of at least two pixels."""


class Entry:
    """Where an attack is, loaded when it is asked for. The fields are those of AttackKind."""

    def __init__(self, run: str, options: str, norms: tuple[Norm, ...], needs: Needs, *, nearest: bool = False):
        self.run, self.options, self.norms, self.needs, self.nearest = run, options, norms, needs, nearest


ATTACKS: dict[str, Entry] = {
    "fgsm": Entry("gradient:fgsm", "base:Batched", ("linf", "l2"), "gradients"),
    "bim": Entry("gradient:bim", "gradient:StepsOptions", ("linf",), "gradients"),
    "pgd": Entry("gradient:pgd", "gradient:PgdOptions", ("linf", "l2"), "gradients"),
    "deepfool": Entry("nearest:deepfool", "nearest:DeepFoolOptions", ("l2",), "gradients", nearest=True),
    "cw": Entry("nearest:carlini_wagner", "nearest:CarliniWagnerOptions", ("l2",), "gradients", nearest=True),
    "autoattack": Entry("ensemble:autoattack", "ensemble:AutoAttackOptions", ("linf", "l2"), "gradients"),
    "eot-pgd": Entry("eot_pgd:eot_pgd", "eot_pgd:EotPgdOptions", ("l2", "linf"), "gradients"),
    "descend": Entry("descend:descend", "descend:DescendOptions", ("l2",), "gradients", nearest=True),
    "transfer": Entry("transfer:transfer", "transfer:TransferOptions", ("linf", "l2"), "labels"),
    "square": Entry("black_box:square", "black_box:SquareOptions", ("linf", "l2"), "scores"),
    "hopskipjump": Entry(
        "black_box:hop_skip_jump", "black_box:HopSkipJumpOptions", ("l2", "linf"), "labels", nearest=True
    ),
    "boundary": Entry("black_box:boundary", "black_box:BoundaryOptions", ("l2",), "labels", nearest=True),
}
"""Also the order in which they are listed."""


def attack_named(name: str) -> AttackKind:
    """The attack. Raises ConfigError for an unknown name, with the nearest known one."""
    if name not in ATTACKS:
        raise ConfigError(f"no attack is named {name!r}{nearest(name, ATTACKS)}")
    entry = ATTACKS[name]
    return AttackKind(name, entry.norms, entry.needs, _loaded(entry.run), _loaded(entry.options), entry.nearest)


def names_needing(needs: Needs) -> list[str]:
    """The attacks that need this of a target, but for transfer, which needs a surrogate."""
    return [name for name, entry in ATTACKS.items() if entry.needs == needs and name != "transfer"]


def _loaded(where: str) -> Any:
    module, _, name = where.partition(":")
    return getattr(import_module(f"{_HERE}.{module}"), name)
