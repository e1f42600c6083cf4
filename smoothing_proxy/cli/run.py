"""`run`: a folder of pictures certified, every draw in a ledger."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from smoothing_proxy.cli.ask_labels import per_label_options, per_label_question
from smoothing_proxy.cli.options import family_options, json_option, settings_options
from smoothing_proxy.cli.plan import (
    figures_of,
    folder_argument,
    from_run_option,
    labels_option,
    limit_option,
    picture_names,
    prior_from,
)
from smoothing_proxy.cli.show import plan_lines, summary_lines
from smoothing_proxy.cli.spending import check_price, confirm, most_usd_left, yes_option
from smoothing_proxy.errors import ConfigError, LedgerError, SchemaError

if TYPE_CHECKING:
    from smoothing_proxy.backends.labels import LabelMap
    from smoothing_proxy.config import ProxyConfig
    from smoothing_proxy.ledger.store import Ledger
    from smoothing_proxy.runs.family import Family
    from smoothing_proxy.runs.label_proofs import LabelQuestions
    from smoothing_proxy.smoothing.base_classifier import BaseClassifier
    from smoothing_proxy.smoothing.settings import Smoothing
    from smoothing_proxy.stats.priors import Prior

__all__ = ["run"]


@click.command()
@folder_argument
@settings_options
@family_options
@per_label_options
@click.option("--top-k", type=int, metavar="K", help="Also prove that labels stay among the K most likely ones.")
@limit_option
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="The run's folder; the same one resumes."
)
@labels_option
@click.option("--label-column", default="label", show_default=True, help="The column of --labels that counts.")
@click.option(
    "--choose",
    is_flag=True,
    help="Choose the draws (and without --target-radius the method) that prove most within the budget.",
)
@from_run_option
@yes_option
@click.option("--insecure-seed", type=int, help="Repeatable noise. Whoever knows the seed can defeat the proof.")
@json_option
def run(
    folder: Path,
    config: ProxyConfig,
    limit: int | None,
    out: Path,
    labels_path: Path | None,
    label_column: str,
    choose: bool,
    pilot_run: Path | None,
    yes: bool,
    insecure_seed: int | None,
    top_k: int | None,
    as_json: bool,
    **asked: Any,
) -> None:
    """Certify FOLDER. Interrupted at any moment, the same command resumes and pays for nothing twice."""
    from smoothing_proxy.assembly import make_classifier, make_family, make_ledger, make_run
    from smoothing_proxy.cli.driving import drive_run
    from smoothing_proxy.runs.label_proofs import LabelQuestions
    from smoothing_proxy.runs.reference import read_reference

    beside = LabelQuestions(per_label_question(**asked), top_k)
    names = picture_names(folder, limit)
    classifier = make_classifier(config)
    reference = None
    if labels_path:
        reference = read_reference(labels_path, names, classifier.labels, column=label_column)
    _refuse_attack(out)
    begun = _begun(out) if choose or config.run.family != "per-picture" else None
    family = make_family(config, pictures=len(names), begun=begun and begun[1])
    config = config.model_copy(update={"smoothing": family.each(config.smoothing)})
    prior = prior_from(pilot_run, config, classifier, insecure_seed=insecure_seed if choose else None)
    if choose:
        _refuse_to_choose(family, beside)
        extra = int(reference is None)
        config = _chosen(config, classifier, prior, begun and begun[0], pictures=len(names), extra=extra)
    figures = figures_of(
        config,
        classifier,
        names,
        reference_asked=reference is None,
        prior=prior,
        family=family,
        beside=beside,
    )
    click.echo(plan_lines(figures), err=True)
    if insecure_seed is not None:
        click.echo("warning: --insecure-seed: nothing is proven against those who know it", err=True)
    if not yes:
        confirm(most_usd_left(out, names, figures))
    with make_ledger(out, paid=figures["usd"] > 0, limit_queries=figures["budget_queries"]) as ledger:
        check_price(ledger, out, classifier.backend.price_usd, config.budget)
        folder_run = make_run(
            config,
            classifier,
            ledger,
            folder=folder if folder.is_dir() else folder.parent,
            names=names,
            reference=reference,
            insecure_seed=insecure_seed,
            family=family,
            beside=beside.described(),
        )
        folder_run.begin(str(out))
        fault = drive_run(folder_run)
        summary = _report(ledger, out, classifier.labels, fault)
    if summary is not None:
        click.echo(json.dumps(summary, indent=2) if as_json else summary_lines(summary, out))
    _exit(fault, summary or {}, out)


def _chosen(
    config: ProxyConfig,
    classifier: BaseClassifier,
    prior: Prior,
    begun: Smoothing | None,
    *,
    pictures: int,
    extra: int,
) -> ProxyConfig:
    """The configuration with settings for the budget: as chosen when the run began, or chosen now, and said.

    begun: the settings of the run that is resumed.
    Raises ConfigError without a budget, and where a setting to be chosen was given: none is ever overruled.
    """
    from smoothing_proxy.assembly import wants_canaries
    from smoothing_proxy.runs.canary import CANARIES
    from smoothing_proxy.runs.choosing import begun_with, choice_lines, choose

    _refuse_given()
    if begun is not None:
        smoothing = begun_with(config.smoothing, begun)
        click.echo("the settings are those that were chosen when this run began", err=True)
        return config.model_copy(update={"smoothing": smoothing})
    limit = config.budget.limit_queries(classifier.backend.price_usd)
    if limit is None:
        free = "" if classifier.backend.price_usd else ", in --budget-queries where queries cost nothing"
        raise ConfigError(f"--choose: say what may be spent, with --budget-usd or --budget-queries{free}")
    canaries = CANARIES if wants_canaries(config, classifier) else 0
    choice = choose(config.smoothing, prior, pictures=pictures, limit_queries=limit - canaries, extra=extra)
    click.echo(choice_lines(choice, pictures=pictures, limit_queries=limit), err=True)
    return config.model_copy(update={"smoothing": choice.smoothing})


def _refuse_given() -> None:
    """Raises ConfigError where a flag or the file says what --choose would choose."""
    from smoothing_proxy.runs.choosing import CHOSEN
    from smoothing_proxy.settings_file import read_toml

    flags = click.get_current_context().params
    path = flags.get("config_path")
    table = read_toml(path).get("smoothing", {}) if path else {}
    given = [key for key in CHOSEN if flags.get(key) is not None or key in table]
    if given:
        raise ConfigError(f"--choose would choose {', '.join(given)}: leave it out there, or leave out --choose")


def _refuse_to_choose(family: Family, beside: LabelQuestions) -> None:
    """Raises ConfigError where what is compared would not be what is asked."""
    if family.method == "holm" or beside:
        asked = "--family holm" if family.method == "holm" else "--per-label and --top-k"
        raise ConfigError(f"--choose compares what each picture proves of one label: leave it out with {asked}")


def _begun(out: Path) -> tuple[Smoothing, Family] | None:
    """The settings of the run in this folder, and its statement, where there is one."""
    from smoothing_proxy.assembly import LEDGER_NAME
    from smoothing_proxy.ledger.reader import LedgerReader
    from smoothing_proxy.ledger.replay import recorded_smoothing
    from smoothing_proxy.runs.family import recorded_family

    if not (out / LEDGER_NAME).exists():
        return None
    with LedgerReader.open(out / LEDGER_NAME) as ledger:
        if ledger.manifest() is None:
            return None
        return recorded_smoothing(ledger), recorded_family(ledger)


def _refuse_attack(out: Path) -> None:
    """Raises RunMismatchError where the folder is that of an attack, before anything is made in it."""
    from smoothing_proxy.assembly import LEDGER_NAME
    from smoothing_proxy.ledger.reader import LedgerReader
    from smoothing_proxy.ledger.replay import refuse_attack

    if not (out / LEDGER_NAME).exists():
        return
    try:
        with LedgerReader.open(out / LEDGER_NAME) as ledger:
            refuse_attack(ledger, str(out))
    except SchemaError:
        pass  # killed as it began, or of an older version: opening it brings it up to date, or says why not


def _report(ledger: Ledger, out: Path, labels: LabelMap, fault: Exception | None) -> dict[str, Any] | None:
    """Write the run's files, also after a fault: what was proven before it is kept. labels: its label map.

    Raises LedgerError when they cannot be written, unless there is a fault already, which says more.
    """
    from smoothing_proxy.runs.report import write_report

    try:
        return write_report(ledger, out, labels)
    except (OSError, LedgerError) as error:
        if fault is None:
            raise LedgerError(f"{out}: cannot write the report: {error}; the ledger is complete") from error
        click.echo(f"{out}: cannot write the report: {error}", err=True)
        return None


def _exit(fault: Exception | None, summary: Mapping[str, Any], out: Path) -> None:
    from smoothing_proxy.smoothing.halt import Interrupted

    if isinstance(fault, Interrupted):
        click.echo(f"interrupted; the same command resumes in {out}: what is settled is not asked again", err=True)
        sys.exit(130)
    if fault is not None:
        raise fault
    if summary["pictures"]["left_out"]:
        sys.exit(2)
    if summary["draws"]["failed"] and not summary["cost"]["queries"]:
        sys.exit(3)
