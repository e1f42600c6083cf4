"""`attack`: a folder of pictures attacked, raw and hardened side by side, beside what is proven."""

from __future__ import annotations

import functools
import json
import sys
import warnings
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from smoothing_proxy.cli.attack_question import album_of, check_gradients, labelled, question_of, smoothings_of
from smoothing_proxy.cli.attack_show import (
    attack_bars,
    figures_of,
    make_folder,
    stopped_lines,
    table_of,
    write_attack,
)
from smoothing_proxy.cli.options import json_option, key_values, settings_options
from smoothing_proxy.cli.plan import folder_argument, labels_option, limit_option, picture_names
from smoothing_proxy.errors import ConfigError

if TYPE_CHECKING:
    from smoothing_proxy.config import ProxyConfig
    from smoothing_proxy.ledger.store import Ledger
    from smoothing_proxy.redteam.comparison import Album, Comparison, Question
    from smoothing_proxy.redteam.queries import Queries
    from smoothing_proxy.redteam.sides import ConfiguredSides
    from smoothing_proxy.smoothing.base_classifier import BaseClassifier

__all__ = ["attack"]

LARGEST_SEED = 2**63 - 1
"""Generators take 64 bits, and attacks count on from the seed."""


def _classifier_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """--classifier, another name of --backend: what is attacked need not stand behind anything."""

    @functools.wraps(command)
    def with_classifier(*args: Any, classifier_name: str | None, **values: Any) -> Any:
        if classifier_name is not None:
            if values["backend"] is not None:
                raise click.UsageError("--classifier and --backend are two names of one option: give one of them")
            values["backend"] = classifier_name
        return command(*args, **values)

    option = click.option("--classifier", "classifier_name", help="What is attacked; the same as --backend.")
    return option(with_classifier)


@click.command()
@folder_argument
@_classifier_option
@settings_options
@click.option("--attack", "attacks", required=True, help="fgsm, pgd, square, ...; several with commas between.")
@click.option("--eps", required=True, help="How far, on the [0, 1] scale; several with commas between.")
@click.option("--norm", help="linf or l2; by default each attack's usual one.")
@click.option(
    "--attack-option",
    "-a",
    "attack_options",
    multiple=True,
    metavar="KEY=VALUE",
    help="An option of the attacks, or with ATTACK.KEY of one of them; repeatable.",
)
@click.option("--attack-queries", type=click.IntRange(min=1), default=500, show_default=True,
              help="For each picture, of attacks without gradients.")  # fmt: skip
@click.option("--attack-draws", type=click.IntRange(min=1), default=32, show_default=True,
              help="Noisy copies behind one query of the hardened classifier.")  # fmt: skip
@click.option("--eot", type=click.IntRange(min=1), default=8, show_default=True,
              help="Noisy copies that gradients through the defence are the mean of.")  # fmt: skip
@click.option("--surrogate", help="For transfer: a classifier with gradients, such as local:FILE.pt2.")
@click.option("--surrogate-option", "-s", multiple=True, metavar="KEY=VALUE", help="One of the surrogate's.")
@click.option(
    "--seed",
    type=click.IntRange(0, LARGEST_SEED),
    default=0,
    show_default=True,
    help="Of the attacks; never of the defence.",
)
@limit_option
@labels_option
@click.option("--label-column", default="label", show_default=True, help="The column of --labels that counts.")
@click.option("--out", type=click.Path(path_type=Path), help="A folder for the figures as JSON and the pictures.")
@click.option("--yes", is_flag=True, help="Do not ask before money is spent.")
@json_option
def attack(folder: Path, config: ProxyConfig, **asked: Any) -> None:
    """Attack the pictures in FOLDER on the raw and on the hardened classifier, and say whose labels stand.

    Sizes are those of the pictures once they have --working-size. An attack with gradients goes through noise and
    denoiser; one without asks the majority. Results are whole bytes, as an upload would be. An attack that is
    stopped keeps its finished rows in --out; it cannot be resumed.
    """
    from smoothing_proxy.assembly import make_classifier
    from smoothing_proxy.redteam.compare import most_queries
    from smoothing_proxy.redteam.paying import check_affordable, is_kept, open_ledger

    question = question_of(asked)
    check_gradients(question, config, asked["surrogate"])
    names = picture_names(folder, asked["limit"])
    classifier = make_classifier(config)
    classifier.check_sigma()
    predicting, certifying = smoothings_of(config.smoothing, question)
    out: Path | None = asked["out"]
    kept = is_kept(config, classifier)
    if kept and out is None:
        raise ConfigError("queries that cost something are kept in a ledger: name a folder for it with --out")
    album = album_of(folder, config, names, classifier, asked)
    most = most_queries(question, predicting, certifying, pictures=len(names), draws=asked["attack_draws"])
    check_affordable(config, classifier, most)
    _confirm(most * classifier.backend.price_usd, yes=asked["yes"])
    if out is not None:
        make_folder(out)
    so_far: list[tuple[Album, Comparison]] = []
    with ExitStack() as opened:
        ledger = None
        if kept and out is not None:
            ledger = opened.enter_context(open_ledger(config, classifier, out, names, asdict(question)))
        try:
            _compare(config, classifier, album, question, asked, ledger, lambda *found: so_far.append(found))
        except (Exception, KeyboardInterrupt) as fault:
            if ledger is not None or so_far:
                click.echo(stopped_lines(ledger, classifier.backend.price_usd), err=True)
            if out is not None and so_far:
                figures = figures_of(config, question, *so_far[-1], classifier)
                why = "interrupted" if isinstance(fault, KeyboardInterrupt) else str(fault)
                write_attack(out, {"unfinished": why, **figures}, so_far[-1][1], classifier)
                click.echo(f"{out}: what was found before that is kept, {len(figures['rows'])} rows", err=True)
            raise
    figures = figures_of(config, question, *so_far[-1], classifier)
    if out is not None:
        write_attack(out, figures, so_far[-1][1], classifier)
    click.echo(json.dumps(figures, indent=2) if asked["as_json"] else table_of(figures))
    for complaint in figures["broken_proofs"]:
        click.echo(f"broken proof: {complaint}", err=True)
    if figures["broken_proofs"]:
        sys.exit(1)


def _compare(
    config: ProxyConfig,
    classifier: BaseClassifier,
    album: Album,
    question: Question,
    asked: Mapping[str, Any],
    ledger: Ledger | None,
    kept: Callable[[Album, Comparison], None],
) -> None:
    """Make the attacks; what is in flight when this ends has settled. kept: told the labelled pictures and what is
    found so far, again and again.
    """
    from smoothing_proxy.redteam.attacks.run import ScaleWarning
    from smoothing_proxy.redteam.compare import compare
    from smoothing_proxy.redteam.queries import Queries

    predicting, certifying = smoothings_of(config.smoothing, question)
    with ExitStack() as opened:
        queries = opened.enter_context(Queries(None if ledger is None else ledger.draws))
        opened.callback(queries.run, classifier.backend.aclose)
        album = labelled(album, classifier, queries)
        sides = opened.enter_context(_sides(config, classifier, album, asked, queries))
        judge = sides.judge(queries, predicting=predicting, certifying=certifying)
        opened.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore", ScaleWarning)  # question_of has said it
        bars = opened.enter_context(attack_bars())
        compare(question, album, sides, judge, bars, lambda found: kept(album, found))


def _sides(
    config: ProxyConfig, classifier: BaseClassifier, album: Album, asked: Mapping[str, Any], queries: Queries
) -> ConfiguredSides:
    from smoothing_proxy.config import NamedOptions
    from smoothing_proxy.redteam.sides import ConfiguredSides

    surrogate = None
    if asked["surrogate"] is not None:
        surrogate = NamedOptions(name=asked["surrogate"], **key_values(asked["surrogate_option"]))
    return ConfiguredSides(
        config,
        classifier,
        sorted(set(album.labels)),
        draws=asked["attack_draws"],
        copies=asked["eot"],
        seed=asked["seed"],
        queries=queries,
        surrogate=surrogate,
    )


def _confirm(usd: float, *, yes: bool) -> None:
    """Ask before money is spent. Raises ConfigError where nobody can be asked, or the answer is no."""
    if usd <= 0 or yes:
        return
    if not sys.stdin.isatty():
        raise ConfigError(f"this attack may cost ${usd:,.2f}: say --yes to spend it without being asked")
    if not click.confirm(f"Spend up to ${usd:,.2f}?", err=True):
        raise ConfigError("not confirmed: nothing was spent")
