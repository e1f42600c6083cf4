"""What a table's figures rest on, in words under it: each defence's settings, and what eps is in whole bytes."""

from __future__ import annotations

import math

from smoothing_proxy.redteam.attacks.registry import ATTACKS
from smoothing_proxy.redteam.study.config import AttackEntry, DefenceEntry, SmoothingEntry, StudyConfig
from smoothing_proxy.stats.planning import largest_radius
from smoothing_proxy.stats.rounding import rounded_down

__all__ = ["notes_of"]

LEVELS = 255

SLACK = 1e-3
"""Of a level, by which an eps that is written with few digits misses a whole number of them."""


def notes_of(config: StudyConfig) -> str:
    """Markdown: an item for each defence that its name does not say all of, and for attacks that are not rounded,
    or whose eps bytes change.
    """
    told = [one for one in config.defences if one.smoothing or one.denoiser not in ("identity", one.name)]
    items = [f"* {defence.name}: {_defence(defence)}" for defence in told]
    items += [f"* {text}" for text in _rounding(config)]
    return "\n".join(items) + "\n" if items else ""


def _defence(defence: DefenceEntry) -> str:
    denoiser = "noise alone" if defence.denoiser == "identity" else f"`{defence.denoiser}`"
    if defence.smoothing is not None:
        return f"{denoiser}, {_smoothing(defence.smoothing)}."
    told = f", told sigma {defence.told_sigma:g}" if defence.denoiser.startswith("wavelet") else ""
    return f"{denoiser}{told}; no noise, and no proof."


def _smoothing(smoothing: SmoothingEntry) -> str:
    text = (
        f"noise of sigma {smoothing.sigma:g}; an answer is the majority of {smoothing.votes} votes, and "
        f"attacks with gradients see the mean of {smoothing.copies} noisy copies"
    )
    if not smoothing.certify:
        return f"{text}; nothing is certified"
    most = rounded_down(largest_radius(smoothing.n, smoothing.alpha, smoothing.sigma), 2)
    return (
        f"{text}; certified with n0 = {smoothing.n0}, n = {smoothing.n}, alpha = {smoothing.alpha:g} for each "
        f"picture, by which no radius above {most} can be proven"
    )


def _rounding(config: StudyConfig) -> list[str]:
    raw = [attack.name for attack in config.attacks if not attack.rounded]
    found = []
    if raw and len(raw) == len(config.attacks):
        found.append("Adversarial pictures are not rounded to bytes.")
    elif raw:
        found.append(f"Not rounded to bytes: {'; '.join(raw)}.")
    whole: dict[int, list[str]] = {}
    for attack in config.attacks:
        levels = _levels(attack)
        if levels is not None:
            whole.setdefault(levels, []).append(attack.name)
    for levels, names in sorted(whole.items()):
        size = f"{levels}/{LEVELS} = {rounded_down(levels / LEVELS, 4)}"
        found.append(
            f"Adversarial pictures are whole bytes, so that a pixel moves by {size} at most: {'; '.join(names)}."
        )
    return found


def _levels(attack: AttackEntry) -> int | None:
    """The whole levels that an attack in linf may move a pixel by, where its eps says more."""
    norm = attack.norm or ATTACKS[attack.attack].norms[0]
    if norm != "linf" or attack.eps is None or not attack.rounded:
        return None
    levels = attack.eps * LEVELS
    return None if abs(levels - round(levels)) < SLACK else math.floor(levels)
