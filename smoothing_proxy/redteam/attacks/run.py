"""Running one attack: what is asked of it checked, its result rounded and looked at again."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from smoothing_proxy.errors import ConfigError
from smoothing_proxy.redteam.attacks.base import AttackKind, AttackResult, Found, Job
from smoothing_proxy.redteam.attacks.registry import ATTACKS, L2_SQUARE_PX, attack_named
from smoothing_proxy.redteam.grid import Norm, Pictures, check_norm, distances, rounded, to_pixels
from smoothing_proxy.redteam.networks import Network
from smoothing_proxy.redteam.targets import GradientTarget, Int64, Target
from smoothing_proxy.settings_file import parse_settings

__all__ = ["ScaleWarning", "check_eps", "check_side", "run_attack"]

FURTHER = (1.0, 1.01, 1.02, 1.05, 1.1, 1.2, 1.5, 2.0, 3.0, 5.0)
"""How much further along the same line a nearest picture is looked for that stays another answer in bytes: where
the way is of a few levels in all, bytes point in quite another direction.
"""

LOOKS = 8
"""At a nearest picture, of a target that answers by chance: one answer alone may be luck."""

TINY = 1e-12

FURTHEST_L2 = 10.0
"""Above it an l2 eps is doubted: two photographs of 32 x 32 pixels are about so far from each other."""

SLACK = 1.0 + 1e-5
"""For an eps that is a whole number of levels, written with few digits."""


class ScaleWarning(UserWarning):
    """An eps that looks as if it were on the 0..255 scale."""


def run_attack(
    name: str,
    target: Target,
    pictures: Pictures,
    labels: Int64,
    *,
    eps: float | None = None,
    norm: str | None = None,
    options: Mapping[str, Any] = {},
    seed: int = 0,
    max_queries: int = 1000,
    surrogate: Network | None = None,
    subjects: Int64 | None = None,
    aims: Int64 | None = None,
    done: Callable[[int], None] = lambda _: None,
    clock: Callable[[], float] = time.perf_counter,
) -> AttackResult:
    """Attack every picture, and say what came of it once it is rounded to 8 bits.

    name: one of registry.ATTACKS. pictures: float32 [n, 3, h, w] on the 8-bit grid of [0, 1]. labels: int64 [n],
    indices into the target's classes; pictures whose answer is another one already are successes at distance 0
    or whatever the attack makes of them. eps: on the [0, 1] scale; only attacks that look for the nearest picture
    do without. norm: None takes the attack's usual one. options: the attack's own settings. max_queries: for each
    picture, of attacks without gradients. surrogate: for transfer. subjects: int64 [n], the pictures' numbers in
    the target's books; None counts from 0. aims: int64 [n], a class that each picture is to reach, for attacks
    with an option `aim`, which is then left out. done: told how many pictures are finished.

    Raises ConfigError for an unknown name, norm or option, an eps that is missing or not above 0, a target that
    lacks what the attack needs (with those that work on it), aims that are no classes, a class-count mismatch of
    surrogate and target, and a missing library. Warns (ScaleWarning) of an eps that looks like one on the 0..255
    scale.
    """
    kind = attack_named(name)
    used = check_norm(norm or kind.norms[0])
    _check(kind, target, used, eps, pictures, labels)
    settings = parse_settings(kind.options, options, source=f"attack {name}")
    _check_aims(kind, target, labels, aims)
    subjects = np.arange(len(labels)) if subjects is None else subjects
    job = Job(target, pictures, labels, used, eps, settings, seed, max_queries, surrogate, done, subjects, aims)
    if max_queries < 1:
        raise ConfigError(f"max_queries = {max_queries}: an attack takes at least one query")
    begun = clock()
    found = kind.run(job)
    final, answers, looks = _settled(job, kind, found)
    seconds = clock() - begun
    away = {n: distances(final, pictures, n) for n in ("l2", "linf")}
    success = found.reached(answers, labels)
    if eps is not None:
        success &= away[used] <= eps * SLACK
    return AttackResult(
        name=name,
        norm=used,
        eps=eps,
        pictures=final,
        unrounded=found.pictures if eps is None or kind.nearest else _within(found.pictures, pictures, used, eps),
        l2=away["l2"],
        linf=away["linf"],
        answers=answers,
        success=success,
        queries=found.queries + looks,
        seconds=seconds,
    )


def check_eps(norm: Norm, eps: float) -> None:
    """Raises ConfigError unless eps is a number above 0; warns where it looks like one on the 0..255 scale."""
    if not (math.isfinite(eps) and eps > 0):
        raise ConfigError(f"eps = {eps!r}: expected a number above 0, on the [0, 1] scale")
    if norm == "linf" and eps >= 1:
        warnings.warn(
            f"eps = {eps:g} looks like a 0..255 scale: in linf, 1 is the whole range from black to white; "
            f"{eps:g} of 255 is {eps / 255:.4g} here",
            ScaleWarning,
            stacklevel=3,
        )
    if norm == "l2" and eps >= FURTHEST_L2:
        warnings.warn(
            f"eps = {eps:g} looks like a 0..255 scale: in l2, where proofs reach to 1 or so, {eps:g} of 255 is "
            f"{eps / 255:.4g} here",
            ScaleWarning,
            stacklevel=3,
        )


def check_side(name: str, norm: str, side_px: int) -> None:
    """Raises ConfigError for pictures whose shorter side is too small for the attack."""
    if name == "square" and norm == "l2" and side_px < L2_SQUARE_PX:
        raise ConfigError(
            f"square: in l2 pictures need sides of at least {L2_SQUARE_PX} px, not {side_px}; linf takes any"
        )


def _check(
    kind: AttackKind, target: Target, norm: Norm, eps: float | None, pictures: Pictures, labels: Int64
) -> None:
    if norm not in kind.norms:
        raise ConfigError(f"{kind.name} works in {' and '.join(kind.norms)}, not in {norm}")
    if kind.needs not in target.gives:
        works = [name for name, entry in ATTACKS.items() if entry.needs in target.gives and name != "transfer"]
        raise ConfigError(
            f"{kind.name} needs {kind.needs}, and {target.name} has none; attacks that work on it: "
            f"{', '.join(works)}, and transfer from a surrogate"
        )
    if eps is None and not kind.nearest:
        raise ConfigError(f"{kind.name}: say how far it may go with eps, on the [0, 1] scale")
    if eps is not None:
        check_eps(norm, eps)
    if pictures.ndim != 4 or pictures.shape[1] != 3 or len(labels) != len(pictures) or len(pictures) == 0:
        raise ConfigError(
            f"{len(labels)} labels and pictures {list(pictures.shape)}: expected [n, 3, h, w], n >= 1"
        )
    check_side(kind.name, norm, min(pictures.shape[2:]))
    _check_outputs(target, pictures[:1])
    if labels.min() < 0 or labels.max() >= len(target.classes):
        raise ConfigError(f"labels from {labels.min()} to {labels.max()}: {target.name} has {len(target.classes)}")


def _check_aims(kind: AttackKind, target: Target, labels: Int64, aims: Int64 | None) -> None:
    if aims is None:
        return
    if "aim" not in kind.options.model_fields:
        raise ConfigError(f"{kind.name}: aims at no class; aims are for descend")
    if len(aims) != len(labels) or aims.min() < 0 or aims.max() >= len(target.classes):
        raise ConfigError(
            f"{kind.name}: {len(aims)} aims from {aims.min()} to {aims.max()} for {len(labels)} pictures; "
            f"{target.name} has {len(target.classes)} classes, from 0"
        )
    if (aims == labels).any():
        raise ConfigError(f"{kind.name}: an aim is the picture's own label")


def _check_outputs(target: Target, picture: Pictures) -> None:
    """Raises ConfigError where a network's outputs are not as many as its classes: answers would be misread."""
    if isinstance(target, GradientTarget):
        outputs = list(target.network.logits(torch.from_numpy(picture)).shape[1:])
        if outputs != [len(target.classes)]:
            raise ConfigError(
                f"{target.name}: {len(target.classes)} classes are named, and its outputs are {outputs}"
            )


def _settled(job: Job, kind: AttackKind, found: Found) -> tuple[Pictures, Int64, Int64]:
    """The rounded pictures, the target's answers to them, and how many queries that took for each.

    A nearest picture lies on the boundary, where rounding may take it back; it then goes further along its line.
    """
    looks = np.zeros_like(job.labels)
    if found.answers is not None:
        return found.pictures, found.answers, looks
    answers, final = job.labels.copy(), job.pictures.copy()
    left = np.arange(len(job.pictures))
    for further in FURTHER if kind.nearest else FURTHER[:1]:
        clean = job.pictures[left]
        moved = clean + np.float32(further) * (found.pictures[left] - clean)
        final[left] = rounded(moved, clean, job.norm, None if kind.nearest else job.eps)
        heard, asked = _looked_at(job, final, left, LOOKS if kind.nearest and job.target.noisy else 1)
        answers[left] = heard
        looks[left] += asked
        left = np.flatnonzero(~found.reached(answers, job.labels))
        if len(left) == 0:
            break
    return final, answers, looks


def _looked_at(job: Job, pictures: Pictures, chosen: Int64, looks: int) -> tuple[Int64, int]:
    """The answers to the chosen pictures, those that most of so many looks give, and how many looks there were."""
    pixels, labels, subjects = to_pixels(pictures[chosen]), job.labels[chosen], job.subjects[chosen]
    heard = np.stack([job.target.ask(pixels, labels, subjects=subjects).answers for _ in range(looks)])
    counted = [np.unique(one, return_counts=True) for one in heard.T]
    return np.array([given[times.argmax()] for given, times in counted], np.int64), looks


def _within(pictures: Pictures, clean: Pictures, norm: Norm, eps: float) -> Pictures:
    """The pictures before rounding, on [0, 1] and within eps: some parts of attacks look for the nearest one."""
    change = np.clip(pictures, 0.0, 1.0).astype(np.float64) - clean
    if norm == "linf":
        change = np.clip(change, -eps, eps)
    else:
        size = np.sqrt(np.square(change).sum(axis=(1, 2, 3), keepdims=True))
        change *= np.minimum(1.0, eps / np.maximum(size, TINY))
    return (clean + change).astype(np.float32)
