"""What `attack` is asked, from its command line: attacks with their options, pictures with their labels."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from smoothing_proxy.cli.options import key_values
from smoothing_proxy.errors import ConfigError

if TYPE_CHECKING:
    from smoothing_proxy.config import ProxyConfig
    from smoothing_proxy.redteam.attacks.base import AttackKind
    from smoothing_proxy.redteam.comparison import Album, Question
    from smoothing_proxy.redteam.queries import Queries
    from smoothing_proxy.smoothing.base_classifier import BaseClassifier
    from smoothing_proxy.smoothing.settings import Smoothing

__all__ = ["album_of", "check_gradients", "labelled", "question_of", "smoothings_of"]


def question_of(asked: Mapping[str, Any]) -> Question:
    """Raises ConfigError for an attack, norm, eps or option that cannot be; says a doubtful eps aloud."""
    from smoothing_proxy.redteam.attacks.registry import attack_named
    from smoothing_proxy.redteam.comparison import Question

    attacks = tuple(dict.fromkeys(name.strip() for name in asked["attacks"].split(",")))
    question = Question(
        attacks=attacks,
        eps=_numbers(asked["eps"]),
        norm=asked["norm"],
        options=_options(attacks, key_values(asked["attack_options"])),
        max_queries=asked["attack_queries"],
        seed=asked["seed"],
    )
    for name in attacks:
        _check(attack_named(name), question)
    if "transfer" in attacks and asked["surrogate"] is None:
        raise ConfigError("transfer: needs a surrogate with gradients: --surrogate local:FILE.pt2")
    return question


def check_gradients(question: Question, config: ProxyConfig, surrogate: str | None) -> None:
    """Raises ConfigError where an attack needs gradients that there are none of, before anything is paid."""
    from smoothing_proxy.redteam.attacks.registry import ATTACKS
    from smoothing_proxy.redteam.networks import check_differentiable

    if any(ATTACKS[name].needs == "gradients" for name in question.attacks):
        check_differentiable(config.backend.name)
    if "transfer" in question.attacks and surrogate is not None:
        check_differentiable(surrogate)


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(sorted({float(part) for part in text.split(",")}))
    except ValueError:
        raise ConfigError(f"--eps {text!r}: expected numbers with commas between, such as 0.25,0.5") from None


def _check(kind: AttackKind, question: Question) -> None:
    """Raises ConfigError for a norm, eps or option that the attack does not take; says a doubtful eps aloud."""
    from smoothing_proxy.redteam.attacks.run import check_eps
    from smoothing_proxy.redteam.grid import check_norm
    from smoothing_proxy.settings_file import parse_settings

    norm = check_norm(question.norm_of(kind.name))
    if norm not in kind.norms:
        raise ConfigError(f"{kind.name} works in {' and '.join(kind.norms)}, not in {norm}")
    parse_settings(kind.options, question.options.get(kind.name, {}), source=f"attack {kind.name}")
    with warnings.catch_warnings(record=True) as doubts:
        warnings.simplefilter("always")
        for eps in question.eps:
            check_eps(norm, eps)
    for doubt in doubts:
        click.echo(f"warning: {doubt.message}", err=True)


def _options(attacks: Sequence[str], values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """KEY is for all of the attacks, ATTACK.KEY for one."""
    options: dict[str, dict[str, Any]] = {name: {} for name in attacks}
    for key, value in values.items():
        name, dot, rest = key.partition(".")
        if dot and name not in options:
            raise ConfigError(f"--attack-option {key}: {name!r} is none of the attacks {', '.join(attacks)}")
        for one in [name] if dot else attacks:
            options[one][rest if dot else key] = value
    return options


def smoothings_of(smoothing: Smoothing, question: Question) -> tuple[Smoothing, Smoothing]:
    """For the predictions, and for the certificates: sequential ones at each l2 eps, unless a method was chosen.

    Pictures have their working size by then.
    """
    from smoothing_proxy.stats.planning import fewest_unanimous

    own = replace(smoothing, working_size="original")
    if smoothing.method != "auto" or smoothing.ladder:
        return own, own
    reachable = [
        eps
        for eps in question.eps
        if fewest_unanimous(eps, smoothing.sigma, smoothing.alpha) <= smoothing.max_queries
        and any(question.norm_of(name) == "l2" for name in question.attacks)
    ]
    return own, replace(own, target_radii=tuple(reachable))


def album_of(
    folder: Path, config: ProxyConfig, names: Sequence[str], classifier: BaseClassifier, asked: Mapping[str, Any]
) -> Album:
    """The pictures at their working size; labels are "" where the classifier's own answers are to count."""
    import numpy as np

    from smoothing_proxy.images.codec import quantise
    from smoothing_proxy.images.noise import GRID_SCALE
    from smoothing_proxy.images.pixels import read
    from smoothing_proxy.redteam.comparison import Album
    from smoothing_proxy.runs.reference import read_reference
    from smoothing_proxy.smoothing.picture import prepare

    root = folder if folder.is_dir() else folder.parent
    pixels = []
    for name in names:
        picture = prepare(read(root / name), config.smoothing.working_size)
        pixels.append(quantise((picture.grid[None] / GRID_SCALE).astype(np.float32))[0])
    labels: Mapping[str, str] = {}
    if asked["labels_path"]:
        labels = read_reference(asked["labels_path"], names, classifier.labels, column=asked["label_column"])
    return Album(list(names), pixels, [labels.get(name, "") for name in names])


def labelled(album: Album, classifier: BaseClassifier, queries: Queries) -> Album:
    """With the classifier's own answers where no labels were given. Raises ConfigError where it has none."""
    import numpy as np

    from smoothing_proxy.redteam.comparison import Album
    from smoothing_proxy.redteam.judge import Judge
    from smoothing_proxy.smoothing.settings import Smoothing

    if all(album.labels):
        return album
    any_smoothing = Smoothing(sigma=classifier.sigma)
    with Judge(classifier, predicting=any_smoothing, certifying=any_smoothing, queries=queries) as judge:
        answers = judge.raw(album.pixels, np.arange(len(album.names)))
    if None in answers:
        name = album.names[answers.index(None)]
        raise ConfigError(f"{name}: the classifier has no answer to it; leave it out, or give --labels")
    return Album(album.names, album.pixels, [answer for answer in answers if answer is not None])
