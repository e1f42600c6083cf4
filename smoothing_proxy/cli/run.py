"""`run`: a folder of pictures certified, every draw in a ledger."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from smoothing_proxy.cli.options import json_option, settings_options
from smoothing_proxy.cli.plan import (
    figures_of,
    folder_argument,
    from_run_option,
    labels_option,
    limit_option,
    picture_names,
    plan_lines,
    prior_from,
)
from smoothing_proxy.cli.show import summary_lines
from smoothing_proxy.errors import ConfigError, LedgerError

if TYPE_CHECKING:
    from smoothing_proxy.config import ProxyConfig
    from smoothing_proxy.ledger.store import Ledger
    from smoothing_proxy.smoothing.base_classifier import BaseClassifier
    from smoothing_proxy.smoothing.settings import Smoothing
    from smoothing_proxy.stats.priors import Prior

__all__ = ["run"]


@click.command()
@folder_argument
@settings_options
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
@click.option("--yes", is_flag=True, help="Do not ask before money is spent.")
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
    as_json: bool,
) -> None:
    """Certify FOLDER. Interrupted at any moment, the same command resumes and pays for nothing twice."""
    from smoothing_proxy.assembly import make_classifier, make_ledger, make_run
    from smoothing_proxy.cli.driving import drive_run
    from smoothing_proxy.runs.reference import read_reference

    names = picture_names(folder, limit)
    classifier = make_classifier(config)
    reference = None
    if labels_path:
        reference = read_reference(labels_path, names, classifier.labels, column=label_column)
    prior = prior_from(pilot_run, config, classifier, insecure_seed=insecure_seed if choose else None)
    if choose:
        asked = int(reference is None)
        config = _chosen(config, classifier, prior, out, pictures=len(names), extra=asked)
    figures = figures_of(config, classifier, names, reference_asked=reference is None, prior=prior)
    click.echo(plan_lines(figures), err=True)
    if insecure_seed is not None:
        click.echo("warning: --insecure-seed: nothing is proven against those who know it", err=True)
    if not yes:
        _confirm(_most_usd(figures) - figures["price_usd"] * _settled(out))
    with make_ledger(out, paid=figures["usd"] > 0, limit_queries=figures["budget_queries"]) as ledger:
        folder_run = make_run(
            config,
            classifier,
            ledger,
            folder=folder if folder.is_dir() else folder.parent,
            names=names,
            reference=reference,
            insecure_seed=insecure_seed,
        )
        folder_run.begin(str(out))
        fault = drive_run(folder_run)
        summary = _report(ledger, out, fault)
    if summary is not None:
        click.echo(json.dumps(summary, indent=2) if as_json else summary_lines(summary, out))
    _exit(fault, summary or {}, out)


def _chosen(
    config: ProxyConfig, classifier: BaseClassifier, prior: Prior, out: Path, *, pictures: int, extra: int
) -> ProxyConfig:
    """The configuration with settings for the budget: as chosen when the run began, or chosen now, and said.

    Raises ConfigError without a budget, and where a setting to be chosen was given: none is ever overruled.
    """
    from smoothing_proxy.assembly import wants_canaries
    from smoothing_proxy.runs.canary import CANARIES
    from smoothing_proxy.runs.choosing import begun_with, choice_lines, choose

    _refuse_given()
    if (begun := _begun(out)) is not None:
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


def _begun(out: Path) -> Smoothing | None:
    """The settings of the run in this folder, where there is one."""
    from smoothing_proxy.assembly import LEDGER_NAME
    from smoothing_proxy.ledger.reader import LedgerReader
    from smoothing_proxy.ledger.replay import recorded_smoothing

    if not (out / LEDGER_NAME).exists():
        return None
    with LedgerReader.open(out / LEDGER_NAME) as ledger:
        return recorded_smoothing(ledger) if ledger.manifest() is not None else None


def _settled(out: Path) -> int:
    """How many draws an earlier run has paid for already."""
    from smoothing_proxy.assembly import LEDGER_NAME
    from smoothing_proxy.ledger.reader import LedgerReader

    if not (out / LEDGER_NAME).exists():
        return 0
    with LedgerReader.open(out / LEDGER_NAME) as ledger:
        return ledger.totals.settled()


def _most_usd(figures: Mapping[str, Any]) -> float:
    """What the plan costs, or the budget where that is less."""
    usd: float = figures["usd"]
    return usd if figures["within_budget"] else figures["budget_queries"] * figures["price_usd"]


def _confirm(usd: float) -> None:
    """Ask before money is spent. Raises ConfigError where nobody can be asked, or the answer is no."""
    if usd <= 0:
        return
    if not sys.stdin.isatty():
        raise ConfigError(f"this run costs ${usd:,.2f}: say --yes to spend it without being asked")
    if not click.confirm(f"Spend up to ${usd:,.2f}?", err=True):
        raise ConfigError("not confirmed: nothing was spent")


def _report(ledger: Ledger, out: Path, fault: Exception | None) -> dict[str, Any] | None:
    """Write the run's files, also after a fault: what was proven before it is kept.

    Raises LedgerError when they cannot be written, unless there is a fault already, which says more.
    """
    from smoothing_proxy.runs.report import write_report

    try:
        return write_report(ledger, out)
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
