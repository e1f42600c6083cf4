"""What is compared, and what is found: the nouns of compare.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from smoothing_proxy.redteam.attacks.registry import ATTACKS
from smoothing_proxy.redteam.networks import Network
from smoothing_proxy.redteam.targets import Int64, Target, UInt8
from smoothing_proxy.types import Certificate, Label

__all__ = ["Album", "Comparison", "Question", "Row", "Shown", "Sides"]


@dataclass(frozen=True, slots=True, eq=False)
class Album:
    """names: of n pictures. pixels: uint8 [h, w, 3] each, of any sizes. labels: the correct ones."""

    names: Sequence[str]
    pixels: Sequence[UInt8]
    labels: Sequence[Label]

    def groups(self) -> list[Int64]:
        """The places of the pictures of each size."""
        shapes: dict[tuple[int, ...], list[int]] = {}
        for place, picture in enumerate(self.pixels):
            shapes.setdefault(picture.shape, []).append(place)
        return [np.array(places, np.int64) for places in shapes.values()]


@dataclass(frozen=True, slots=True)
class Question:
    """attacks: by name. eps: on the [0, 1] scale, each above 0, in `norm` (None: each attack's usual one).

    options: of attacks, by their names. max_queries: for each picture, of attacks that ask. seed: of the attacks.
    """

    attacks: tuple[str, ...]
    eps: tuple[float, ...]
    norm: str | None = None
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    max_queries: int = 500
    seed: int = 0

    def norm_of(self, attack: str) -> str:
        """The norm that this attack works in."""
        return self.norm or ATTACKS[attack].norms[0]


class Sides(Protocol):
    """What is attacked: the raw and the hardened classifier."""

    def target(self, needs: str, hardened: bool) -> Target:  # noqa: FBT001 (the one thing that it chooses)
        """The classifier as an attack sees it that needs this of it. Raises ConfigError where it has it not."""
        ...

    def surrogate(self, hardened: bool) -> Network | None:  # noqa: FBT001
        """For transfer; None where there is none."""
        ...


@dataclass(frozen=True, slots=True)
class Row:
    """One attack at one size. Shares of all pictures, in [0, 1].

    raw, hardened: of pictures whose label stands under the attack. certified: whose label is proven to stand under
    any change of l2 size eps; None for attacks in linf. queries: of each picture in the mean, of the target that
    is attacked (one of the hardened classifier takes many draws). ms: of an attack on one picture, in the mean.
    by_proof: pictures under `hardened` on which the prediction abstained and the certificate decides. raw_failed:
    pictures whose last query of the raw classifier failed; these stand as they did before.
    """

    attack: str
    norm: str
    eps: float
    raw: float
    hardened: float
    certified: float | None
    raw_queries: float
    hardened_queries: float
    raw_ms: float
    hardened_ms: float
    by_proof: int
    raw_failed: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """One attacked picture, to be looked at. hardened: which classifier was attacked. answer: its, to `pixels`."""

    attack: str
    eps: float
    hardened: bool
    name: str
    label: Label
    answer: Label | None
    clean: UInt8
    pixels: UInt8
    l2: float
    stands: bool


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """raw, hardened: clean accuracy. certificates: of each picture. rows, shown: by attack and eps.

    broken: what to say of each proof that an attack broke.
    """

    raw: float
    hardened: float
    certificates: Sequence[Certificate]
    rows: Sequence[Row] = ()
    shown: Sequence[Shown] = ()
    broken: Sequence[str] = ()
