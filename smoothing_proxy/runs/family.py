"""What the certificates of a run say together: each for itself, or all of them at once but for one alpha."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, get_args

from smoothing_proxy.errors import ConfigError, RunMismatchError, nearest
from smoothing_proxy.ledger.reader import LedgerReader
from smoothing_proxy.ledger.replay import recorded_smoothing
from smoothing_proxy.smoothing.label_plans import estimation_draws
from smoothing_proxy.smoothing.settings import Smoothing
from smoothing_proxy.stats.familywise import Method, bonferroni_alpha, holm_radii
from smoothing_proxy.stats.planning import largest_radius
from smoothing_proxy.types import Certificate

__all__ = ["NOT_SHARED", "Family", "asked_again", "radii_together", "recorded_family"]

NOT_SHARED = "family_size: nothing is shared out per picture; say --family bonferroni or holm as well"
DECLARE = "say --family-size, a number of pictures that was fixed before the first draw, or certify them anew"


@dataclass(frozen=True, slots=True)
class Family:
    """The statement of a folder, fixed before the first draw.

    method: "per-picture": each certificate is false with probability <= alpha. "bonferroni": any of them is; each
    picture is certified at alpha / size. "holm": any claim "the label stays within the picture's family radius"
    is, of `radii`; the certificates themselves are at alpha each.
    alpha: of the statement, in (0, 1). size: pictures that alpha is shared out over, and the most that the run may
    ever have; under "per-picture" those that it began with, None where that is unknown. radii: of "holm" alone,
    l2, in the space where the noise is added.

    Raises ConfigError for "holm" without radii, radii with another method, and values out of range.
    """

    method: str
    alpha: float
    size: int | None
    radii: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.method not in get_args(Method):
            raise ConfigError(f"family = {self.method!r}{nearest(str(self.method), get_args(Method))}")
        object.__setattr__(self, "radii", tuple(sorted({*self.radii})))
        if not all(0.0 <= radius < math.inf for radius in self.radii):
            raise ConfigError(f"family_radii {self._radii}: expected l2 distances >= 0 on the [0, 1] pixel scale")
        if self.method == "holm" and not self.radii:
            raise ConfigError(
                'family = "holm": say at which radii with family_radii (--family-radius), before the first draw'
            )
        if self.method != "holm" and self.radii:
            raise ConfigError(f'family = "{self.method}" holds at every radius: family_radii go with "holm"')
        if self.method != "per-picture" and (self.size is None or self.size < 1):
            raise ConfigError(f"family_size = {self.size!r}: expected a number of pictures, at least 1")

    @property
    def alpha_each(self) -> float:
        """What each picture is certified at. Raises ConfigError where that is less than 1e-100."""
        return bonferroni_alpha(self.alpha, self.size or 1) if self.method == "bonferroni" else self.alpha

    def each(self, smoothing: Smoothing) -> Smoothing:
        """The settings of one picture. smoothing: the folder's, whose alpha is the statement's.

        Raises ConfigError where so many pictures leave too little alpha to prove anything, and for settings that
        this statement does not cover.
        """
        try:
            shared = replace(smoothing, alpha=self.alpha_each)
        except ConfigError as error:
            if self.method != "bonferroni":
                raise
            raise ConfigError(f"alpha {self.alpha:g} shared out over {self.size:,} pictures: {error}") from None
        self.check(shared)
        return shared

    def check(self, smoothing: Smoothing) -> None:
        """smoothing: of one picture. Raises ConfigError for settings that this statement does not cover."""
        if smoothing.alpha != self.alpha_each:
            raise ConfigError(
                f'family = "{self.method}": pictures are certified at alpha {self.alpha_each:g} each, '
                f"not at {smoothing.alpha:g}"
            )
        if self.method == "holm":
            self._check_holm(smoothing)

    def _check_holm(self, smoothing: Smoothing) -> None:
        if smoothing.certify_method == "target":
            raise ConfigError(
                'family = "holm": with a target radius the draws that test a label have chosen it, which Holm\'s '
                'argument does not cover; use family = "bonferroni", or method "fixed" or "largest"'
            )
        if smoothing.two_sided:
            raise ConfigError('family = "holm" tests the label\'s own votes alone: leave out two_sided')
        n = estimation_draws(smoothing)
        first = largest_radius(n, bonferroni_alpha(self.alpha, self.size or 1), smoothing.sigma)
        if self.radii[0] > first or self.radii[-1] > largest_radius(n, self.alpha, smoothing.sigma):
            raise ConfigError(
                f"family_radii {self._radii}: at sigma {smoothing.sigma:g}, {n:,} draws of which all agree prove "
                f"at most {first:.4g} for the first of {self.size:,} pictures at alpha {self.alpha:g}; "
                "ask for smaller radii, or more draws"
            )

    def check_pictures(self, pictures: int, *, where: str) -> None:
        """Raises RunMismatchError when the run has more pictures than alpha was shared out over."""
        if self.method != "per-picture" and pictures > (self.size or 0):
            raise RunMismatchError(
                f"{where}: {pictures:,} pictures, and alpha was shared out over {self.size:,} before the first "
                "draw: no further one can be proven together with those; use another --out, and say with "
                "--family-size how many there will be at most"
            )

    @property
    def statement(self) -> str:
        """What holds, in one sentence."""
        if self.method == "per-picture":
            return f"per picture: each certificate is false with probability <= {self.alpha:g}"
        if self.method == "bonferroni":
            return (
                f"all together: that any certificate is false, of at most {self.size:,} pictures, has probability "
                f"<= {self.alpha:g}; each is at {self.alpha_each:g} (Bonferroni)"
            )
        return (
            f"all together: that any family_radius is false, of at most {self.size:,} pictures, has probability "
            f"<= {self.alpha:g} (Holm, at radii {self._radii}); beyond it, per picture: each certificate is false "
            f"with probability <= {self.alpha:g}"
        )

    @property
    def _radii(self) -> str:
        return ", ".join(f"{radius:g}" for radius in self.radii)

    def described(self) -> dict[str, Any]:
        """As JSON values."""
        return {**asdict(self), "radii": list(self.radii)}


def recorded_family(ledger: LedgerReader) -> Family:
    """The statement that the run was begun with. Raises LedgerError in a ledger where no run was begun."""
    alpha = recorded_smoothing(ledger).alpha
    recorded = (ledger.manifest() or {}).get("family")
    return Family("per-picture", alpha, None) if recorded is None else Family(**recorded)


def asked_again(
    ledger: LedgerReader,
    method: str | None,
    *,
    size: int | None = None,
    radii: Sequence[float] = (),
    alpha: float | None = None,
) -> Family:
    """Another statement about a run's recorded draws; None and () leave it as the run began.

    alpha: of the statement. size: only where it was fixed before the first draw; the pictures that the run began
    with, or declared then, are known. A number that depends on what was proven shares out nothing.
    Raises ConfigError where no such number is known, it is less than was declared, or the run has grown beyond it.
    """
    recorded, pictures = recorded_family(ledger), len(ledger.pictures())
    method = method or recorded.method
    alpha = recorded.alpha if alpha is None else alpha
    if method == "per-picture":
        if size is not None:
            raise ConfigError(NOT_SHARED)
        return Family(method, alpha, recorded.size, tuple(radii))
    size, began = size or recorded.size, recorded.size
    if size is None:
        raise ConfigError(f"the ledger does not say how many pictures the run began with: {DECLARE}")
    if began is not None and size < began:
        raise ConfigError(f"family_size = {size:,}: the run was begun with {began:,} pictures, which all count")
    if pictures > size:
        raise ConfigError(f"the run has {pictures:,} pictures, and was begun with {began or size:,}: {DECLARE}")
    return Family(method, alpha, size, tuple(radii) or (recorded.radii if method == recorded.method else ()))


def radii_together(family: Family, certificates: Mapping[int, Certificate]) -> dict[int, float]:
    """The radius within which each label holds together with all others', by picture; none is left unproven.

    certificates: of the pictures that have one. Empty under "per-picture".
    """
    if family.method == "bonferroni":
        return {picture: made.radius for picture, made in certificates.items() if made.label is not None}
    if family.method != "holm":
        return {}
    held = holm_radii([*certificates.values()], family.radii, alpha=family.alpha, m=family.size or 0)
    return {picture: radius for picture, radius in zip(certificates, held, strict=True) if radius is not None}
