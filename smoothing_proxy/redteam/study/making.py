"""One attack of a study: checked before anything runs, then made on the row that it knows."""

from __future__ import annotations

import time

import numpy as np
import numpy.typing as npt
from torch import Tensor

from smoothing_proxy.errors import ConfigError
from smoothing_proxy.redteam.attacks.registry import attack_named
from smoothing_proxy.redteam.attacks.run import check_eps, run_attack
from smoothing_proxy.redteam.defended import defended
from smoothing_proxy.redteam.filters import straight_through
from smoothing_proxy.redteam.grid import Pictures, check_norm
from smoothing_proxy.redteam.networks import Network
from smoothing_proxy.redteam.study.asking import AskedRow
from smoothing_proxy.redteam.study.cells import Adversarial
from smoothing_proxy.redteam.study.config import AttackEntry, DefenceEntry
from smoothing_proxy.redteam.study.pipelines import Pipeline
from smoothing_proxy.redteam.targets import GradientTarget, Target
from smoothing_proxy.settings_file import parse_settings

__all__ = ["check_attack", "copies_behind", "drawn_aims", "known_network", "make"]

Labels = npt.NDArray[np.int64]


def check_attack(attack: AttackEntry) -> None:
    """Raises ConfigError for an attack, norm or option that there is not, a missing eps, surrogate or library."""
    try:
        kind = attack_named(attack.attack)
        norm = check_norm(attack.norm or kind.norms[0])
        if norm not in kind.norms:
            raise ConfigError(f"{kind.name} works in {' and '.join(kind.norms)}, not in {norm}")
        if attack.eps is None and not kind.nearest:
            raise ConfigError(f"{kind.name}: say how far it may go with eps, on the [0, 1] scale")
        if attack.eps is not None:
            check_eps(norm, attack.eps)
        parse_settings(kind.options, attack.options, source=f"{kind.name}.options")
        if (kind.name == "transfer") != (attack.surrogate is not None):
            raise ConfigError(
                f"surrogate = {attack.surrogate!r}: transfer needs one, and no other attack takes one"
            )
        if attack.aims and ("aim" not in kind.options.model_fields or "aim" in attack.options):
            raise ConfigError("aims = true: for attacks with an option `aim` (descend), which is then left out")
    except ConfigError as error:
        raise ConfigError(f"attack {attack.name!r}: {error}") from None


def make(
    attack: AttackEntry,
    pipeline: Pipeline,
    pictures: Pictures,
    numbers: list[int],
    labels: Labels,
    *,
    surrogate: Network | None,
    seed: int,
) -> Adversarial:
    """Every picture attacked on `pipeline`, whose defence the attack knows.

    pictures: float32 [n, 3, h, w] on the 8-bit grid. numbers: theirs in the study. labels: int64 [n], indices into
    the network's classes. Raises ConfigError as run_attack does.
    """
    attacked = pipeline.answers(pictures, numbers) == labels
    aims = drawn_aims(labels, len(pipeline.network.classes), seed) if attack.aims else None
    began = time.perf_counter()
    result = run_attack(
        attack.attack,
        _target(attack, pipeline, seed),
        pictures,
        labels,
        eps=attack.eps,
        norm=attack.norm,
        options=attack.options,
        seed=seed,
        max_queries=attack.max_queries,
        surrogate=surrogate,
        subjects=np.array(numbers, np.int64),
        aims=aims,
    )
    made = result.pictures if attack.rounded else result.unrounded
    seconds = time.perf_counter() - began
    answers = pipeline.answers(made, numbers)
    reached = answers != labels if aims is None else answers == aims
    return Adversarial(made, attacked, reached, int(result.queries.sum()), seconds)


def copies_behind(attack: AttackEntry, defence: DefenceEntry) -> int:
    """Noisy copies behind one query of the attack, or behind one of its passes."""
    if defence.smoothing is None:
        return 1
    if attack_named(attack.attack).needs == "gradients":
        return defence.smoothing.copies
    return attack.draws or defence.smoothing.votes


def _target(attack: AttackEntry, pipeline: Pipeline, seed: int) -> Target:
    """What the attack sees of the row: all of it, or only its answers."""
    if attack_named(attack.attack).needs == "gradients":
        return GradientTarget(known_network(pipeline, seed, bpda=attack.bpda), batch_size=pipeline.batch)
    return AskedRow(pipeline, copies_behind(attack, pipeline.defence))


def known_network(pipeline: Pipeline, seed: int, *, bpda: bool = False) -> Network:
    """The row as one differentiable function: what an attack that knows the defence climbs.

    bpda: as AttackEntry has it.
    """
    if pipeline.is_raw:
        return pipeline.network
    smoothing = pipeline.defence.smoothing
    if smoothing is None:
        told = pipeline.defence.told_sigma
        if bpda:
            return _past_the_filter(pipeline, told)
        return defended(pipeline.network, pipeline.denoiser, sigma=told, noise=False, seed=seed)
    return defended(pipeline.network, pipeline.denoiser, sigma=smoothing.sigma, copies=smoothing.copies, seed=seed)


def _past_the_filter(pipeline: Pipeline, told: float) -> Network:
    network, one = pipeline.network, pipeline.denoiser

    def filtered(pictures: Tensor) -> Tensor:
        shown = straight_through(lambda noisy: np.clip(one.denoise(noisy, told), 0.0, 1.0), pictures)
        logits: Tensor = network(shown)
        return logits

    name = f"{one.name} before {network.name}, gradients past it"
    return Network(filtered, name=name, classes=network.classes, device=network.device)


def drawn_aims(labels: Labels, classes: int, seed: int) -> Labels:
    """For each picture a class other than its own, all of them equally likely; a function of the seed."""
    steps = np.random.default_rng([seed, classes]).integers(1, classes, len(labels))
    return np.asarray((labels + steps) % classes, np.int64)
