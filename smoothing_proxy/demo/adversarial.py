"""Digits that the demo's black box takes for another one, found by walking along its decision function.

The black box looks at one pixel of each of 8 x 8 cells, as a classifier does that shrinks pictures without
averaging: whoever knows it changes these pixels alone, which hardly shows (Xiao et al., "Seeing is Not Believing:
Camouflage Attacks on Image Scaling Algorithms", USENIX Security 2019).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from smoothing_proxy.demo.digits import SIDE, read_digits, sampled_at, unseen_digit
from smoothing_proxy.demo.digits import margins as margins_of
from smoothing_proxy.errors import ConfigError

__all__ = ["AdversarialDigit", "adversarial_digit"]

Pixels = npt.NDArray[np.uint8]
Grey = npt.NDArray[np.float64]

STEP = 0.1
"""The longest step, l2 over the 64 grey levels."""

STEPS = 100

BEYOND = 0.02
"""How far past the border of another class to go, in the decision function's own unit, so that rounding to 8 bits
does not bring the digit back."""


@dataclass(frozen=True, slots=True)
class AdversarialDigit:
    """clean, adversarial: uint8 [side, side, 3]. label: what the digit is, and is read as.

    taken_for: what `adversarial` is read as. l2: of the difference, all colours, on the [0, 1] pixel scale.
    """

    clean: Pixels
    adversarial: Pixels
    label: str
    taken_for: str
    l2: float


def adversarial_digit(number: int, side_px: int = 80) -> AdversarialDigit:
    """A test digit, enlarged to side_px x side_px, and a picture near it that is taken for another digit.

    number: of the digit in the data set, a multiple of 5. side_px: a multiple of 8. Each step goes straight to the
    nearest border of another class as the decision function's slope at this place has it.

    Raises ConfigError for a digit that is none of the test's, that the classifier does not read even when it is
    clean, or for which the walk does not arrive.
    """
    if side_px % SIDE:
        raise ConfigError(f"side_px = {side_px}: expected a multiple of {SIDE}")
    digit, label = unseen_digit(number)
    cell = side_px // SIDE
    clean = np.repeat(np.kron(digit, np.ones((cell, cell), np.uint8))[..., np.newaxis], 3, axis=2)
    adversarial = clean.copy()
    walked = np.round(_walk(digit.reshape(-1) / 255.0, label) * 255).astype(np.uint8)
    adversarial[sampled_at(side_px)[:, np.newaxis], sampled_at(side_px)] = walked.reshape(SIDE, SIDE, 1)
    before, after = read_digits(np.stack([clean, adversarial]))
    if before != label or after == label:
        raise ConfigError(f"digit {number} is a {label}; it is read as {before}, and after the walk as {after}")
    return AdversarialDigit(clean, adversarial, label, after, _l2(clean, adversarial))


def _walk(digit: Grey, label: str) -> Grey:
    """From the 64 grey levels on [0, 1] to some that have less of `label` than of another class."""
    here = digit
    for _ in range(STEPS):
        ahead, slopes = _leads(here, label)
        if ahead.min() <= -BEYOND:
            break
        nearest = int(np.argmin(ahead / np.linalg.norm(slopes, axis=0)))
        slope = slopes[:, nearest]
        wanted = (ahead[nearest] + BEYOND) / float(slope @ slope)
        length = min(STEP, wanted * float(np.linalg.norm(slope)))
        here = np.clip(here - slope * (length / float(np.linalg.norm(slope))), 0.0, 1.0)
    return here


def _leads(here: Grey, label: str) -> tuple[Grey, Grey]:
    """By how much `label` is ahead of each other class, [9], and the slopes of that, [64, 9], by asking nearby."""
    small = 1e-3
    classes, values = margins_of(np.vstack([here, here + small * np.eye(len(here))]))
    own = classes.index(label)
    leads = values[:, [own]] - np.delete(values, own, axis=1)
    return leads[0], (leads[1:] - leads[0]) / small


def _l2(one: Pixels, other: Pixels) -> float:
    return float(np.linalg.norm((one.astype(np.float64) - other.astype(np.float64)) / 255.0))
