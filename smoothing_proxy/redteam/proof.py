"""Certificates against attacks: a proven label cannot be changed within its radius, whatever the attack."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from smoothing_proxy.redteam.grid import distances, to_pictures
from smoothing_proxy.types import Certificate, Label, Prediction

if TYPE_CHECKING:
    from smoothing_proxy.redteam.comparison import Album
    from smoothing_proxy.redteam.judge import Judge
    from smoothing_proxy.redteam.targets import Int64, UInt8

__all__ = ["CONFIRMATIONS", "Standing", "covers", "standing"]

CONFIRMATIONS = 2
"""Further predictions, on fresh noise, that have to agree before a proof is called broken."""


@dataclass(frozen=True, slots=True, eq=False)
class Standing:
    """stands: bool [n], whose labels stand. answers: what is predicted for each, None where that abstains.

    broken: what to say of each certified label that was changed within its radius, which is either an event of
    chance alpha or a bug in this package; such a picture does not stand.
    """

    stands: npt.NDArray[np.bool_]
    answers: list[Label | None]
    broken: list[str]


def covers(certificate: Certificate, l2: float) -> bool:
    """Whether the certificate speaks of changes of this size of the picture that was given."""
    radius = certificate.radius if certificate.input_radius is None else certificate.input_radius
    return certificate.label is not None and l2 <= radius


def standing(
    album: Album,
    judge: Judge,
    pixels: Sequence[UInt8],
    subjects: Int64,
    certificates: Sequence[Certificate],
) -> Standing:
    """Whose labels stand under the hardened classifier, which is shown `pixels`.

    A prediction may abstain for want of draws where a certificate covers the change: the certificate decides then,
    since the label cannot have changed. A proof is broken where the prediction is another label than the one that
    was proven to stand, and stays so on fresh noise.
    """
    predictions = judge.predict(pixels, subjects)
    found = Standing(np.zeros(len(pixels), np.bool_), [one.label for one in predictions], [])
    for place, prediction in enumerate(predictions):
        proof = certificates[place]
        label: Label | None = prediction.label
        if covers(proof, _l2(album.pixels[place], pixels[place])):
            if label in (None, proof.label) or not _stays_so(judge, pixels[place], place, proof):
                label = proof.label
            else:
                found.broken.append(_complaint(album, pixels[place], place, proof, prediction))
                continue
        found.stands[place] = label == album.labels[place]
    return found


def _stays_so(judge: Judge, pixels: UInt8, place: int, proof: Certificate) -> bool:
    """Whether no prediction on fresh noise abstains or is the proven label."""
    again = judge.predict([pixels] * CONFIRMATIONS, np.full(CONFIRMATIONS, place))
    return not any(one.label in (None, proof.label) for one in again)


def _complaint(album: Album, pixels: UInt8, place: int, proof: Certificate, prediction: Prediction) -> str:
    radius = proof.radius if proof.input_radius is None else proof.input_radius
    return (
        f"{album.names[place]}: proven {proof.label!r} within l2 radius {radius:.4f}, and an attack made it "
        f"{prediction.label!r} at {_l2(album.pixels[place], pixels):.4f}, in {CONFIRMATIONS + 1} predictions. A "
        f"proof is false with probability at most alpha = {proof.alpha:g}; more often than that is a bug in this "
        "package: please report it"
    )


def _l2(clean: UInt8, pixels: UInt8) -> float:
    pair = to_pictures(np.stack([clean, pixels]))
    return float(distances(pair[1:], pair[:1], "l2")[0])
