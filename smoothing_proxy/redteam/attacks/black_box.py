"""Square, HopSkipJump and the boundary attack: they only ask, one picture after the other.

Each picture has a budget of queries; when it is used up, the best picture so far is the result. Every query is
about a picture of whole bytes, so HopSkipJump tries changes of at least a level of each pixel, where its paper
takes smaller ones, and the walks along the boundary begin at another picture with another label.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from smoothing_proxy.redteam.attacks.art_library import art_norm, black_box, evasion, seeded
from smoothing_proxy.redteam.attacks.base import Found, Job
from smoothing_proxy.redteam.oracle import Oracle, Spent
from smoothing_proxy.settings_file import Settings

__all__ = ["BoundaryOptions", "HopSkipJumpOptions", "SquareOptions", "boundary", "hop_skip_jump", "square"]

Picture = npt.NDArray[np.float32]

PROBE_LEVELS = 1.5
"""Of 255, by which HopSkipJump changes each pixel at least: less is lost when the picture becomes bytes."""

NOISE_STARTS = 20
"""Random pictures that are tried where no other picture can begin the walk."""


class SquareOptions(Settings):
    """first_square: share of the picture that the first squares cover."""

    first_square: float = Field(default=0.8, gt=0.0, lt=1.0)


class HopSkipJumpOptions(Settings):
    """first_probes: queries for the first estimate of a gradient; later ones take more."""

    first_probes: int = Field(default=40, ge=2)


class BoundaryOptions(Settings):
    """sideways: length of a step along the boundary; toward: of one to the picture; shares of the distance, and
    both adapt. trials: steps that are tried together.
    """

    sideways: float = Field(default=0.1, gt=0.0)
    toward: float = Field(default=0.1, gt=0.0, lt=1.0)
    trials: int = Field(default=10, ge=2)


def square(job: Job) -> Found:
    """Random squares that are kept where they lower the label's lead (Andriushchenko et al. 2020)."""

    def attack(oracle: Oracle, clean: Picture, start: Callable[[], Picture | None]) -> None:
        classifier = black_box(oracle.scores, clean.shape)
        settings = {"norm": art_norm(job.norm), "eps": job.radius, "max_iter": job.max_queries, "verbose": False}
        made = evasion("SquareAttack")(classifier, p_init=job.options.first_square, **settings)
        with np.errstate(divide="ignore", invalid="ignore"):  # what comes of it the oracle leaves unchanged
            made.generate(x=clean[None].copy(), y=np.zeros(1, np.int64))

    return _each(job, attack, eps=job.eps)


def hop_skip_jump(job: Job) -> Found:
    """Estimates the boundary's direction from the side that random steps end on (Chen, Jordan, Wainwright)."""

    def attack(oracle: Oracle, clean: Picture, start: Callable[[], Picture | None]) -> None:
        first = start()
        if first is None:
            return
        classifier = black_box(oracle.decisions, clean.shape)
        made = _hop_skip_jump()(
            classifier,
            norm=art_norm(job.norm),
            max_iter=1000,
            init_eval=job.options.first_probes,
            verbose=False,
        )
        made.generate(x=clean[None].copy(), y=np.zeros(1, np.int64), x_adv_init=first[None].copy())

    return _each(job, attack, eps=None)


def boundary(job: Job) -> Found:
    """A random walk along the boundary that comes nearer (Brendel, Rauber, Bethge 2018)."""
    options = job.options

    def attack(oracle: Oracle, clean: Picture, start: Callable[[], Picture | None]) -> None:
        first = start()
        if first is None:
            return
        classifier = black_box(oracle.decisions, clean.shape)
        made = evasion("BoundaryAttack")(
            classifier,
            targeted=False,
            delta=options.sideways,
            epsilon=options.toward,
            max_iter=job.max_queries,
            sample_size=options.trials,
            verbose=False,
        )
        made.generate(x=clean[None].copy(), y=np.zeros(1, np.int64), x_adv_init=first[None].copy())

    return _each(job, attack, eps=None)


def _each(
    job: Job, attack: Callable[[Oracle, Picture, Callable[[], Picture | None]], None], *, eps: float | None
) -> Found:
    """The attack on one picture after the other."""
    made, queries, answers = job.pictures.copy(), np.zeros_like(job.labels), job.labels.copy()
    for number, clean in enumerate(job.pictures):
        oracle = Oracle(
            job.target,
            clean,
            int(job.labels[number]),
            norm=job.norm,
            eps=eps,
            max_queries=job.max_queries,
            subject=int(job.subjects[number]),
        )
        _until_spent(job, attack, oracle, number)
        made[number], queries[number], answers[number] = oracle.best, oracle.queries, oracle.answer
        job.done(1)
    return Found(made, queries, answers)


def _until_spent(
    job: Job,
    attack: Callable[[Oracle, Picture, Callable[[], Picture | None]], None],
    oracle: Oracle,
    number: int,
) -> None:
    clean = job.pictures[number]
    with seeded(job.seed + number):
        try:
            if not oracle.decisions(clean[None])[0, 1]:
                attack(oracle, clean, lambda: _start(job, oracle, number))
        except Spent:
            return


def _start(job: Job, oracle: Oracle, number: int) -> Picture | None:
    """A picture with another answer: another one of the job's, else noise; None where there is none."""
    others = [i for i in range(len(job.pictures)) if job.labels[i] != job.labels[number]]
    distance = [float(np.linalg.norm(job.pictures[i] - job.pictures[number])) for i in others]
    nearest = [job.pictures[others[i]] for i in np.argsort(distance)[:NOISE_STARTS]]
    noise = np.random.default_rng(job.seed + number)
    random = (noise.random(oracle.best.shape, np.float32) for _ in range(NOISE_STARTS))
    for picture in (*nearest, *random):
        if oracle.decisions(picture[None])[0, 1]:
            return np.asarray(picture, np.float32)
    return None


@cache
def _hop_skip_jump() -> Any:
    """ART's, with probes that bytes can hold."""
    base: Any = evasion("HopSkipJump")

    class HopSkipJump(base):  # type: ignore[misc]  # ART has no types
        def _compute_delta(self, *args: Any, **kwargs: Any) -> float:
            least = PROBE_LEVELS / 255.0 * np.sqrt(np.prod(self.estimator.input_shape))
            return float(max(super()._compute_delta(*args, **kwargs), least))

    return HopSkipJump
