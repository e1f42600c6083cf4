"""`plan`: what a folder would cost and could prove."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from smoothing_proxy.cli.ask_labels import per_label_options, per_label_question
from smoothing_proxy.cli.options import family_options, json_option, settings_options
from smoothing_proxy.cli.show import plan_lines
from smoothing_proxy.errors import ConfigError

if TYPE_CHECKING:
    from smoothing_proxy.config import ProxyConfig
    from smoothing_proxy.runs.family import Family
    from smoothing_proxy.runs.label_proofs import LabelQuestions
    from smoothing_proxy.smoothing.base_classifier import BaseClassifier
    from smoothing_proxy.smoothing.settings import Smoothing
    from smoothing_proxy.stats.forecast import Forecast
    from smoothing_proxy.stats.priors import Prior

__all__ = [
    "figures_of",
    "folder_argument",
    "from_run_option",
    "labels_option",
    "limit_option",
    "picture_names",
    "plan",
    "prior_from",
]

folder_argument = click.argument("folder", type=click.Path(path_type=Path))
limit_option = click.option("--limit", type=click.IntRange(min=1), help="Only the first pictures, in name order.")
labels_option = click.option(
    "--labels",
    "labels_path",
    type=click.Path(path_type=Path),
    help="CSV with the columns file and label; else the classifier's own answer on the clean picture counts.",
)


from_run_option = click.option(
    "--from-run",
    "pilot_run",
    type=click.Path(path_type=Path),
    metavar="RUN",
    help="Expect what the votes in RUN suggest; `run --limit 10 --out RUN` is a pilot, whose draws are kept.",
)


@click.command()
@folder_argument
@settings_options
@family_options
@per_label_options
@click.option("--top-k", type=int, metavar="K", help="As in `run`.")
@limit_option
@labels_option
@from_run_option
@json_option
def plan(
    folder: Path,
    config: ProxyConfig,
    limit: int | None,
    labels_path: Path | None,
    pilot_run: Path | None,
    top_k: int | None,
    as_json: bool,
    **asked: Any,
) -> None:
    """Say what certifying FOLDER would cost and could prove, at most and probably. Spends nothing."""
    from smoothing_proxy.assembly import make_classifier, make_family
    from smoothing_proxy.runs.label_proofs import LabelQuestions

    beside = LabelQuestions(per_label_question(**asked), top_k)
    names = picture_names(folder, limit)
    classifier = make_classifier(config)
    family = make_family(config, pictures=len(names))
    family.check_pictures(len(names), where=str(folder))
    config = config.model_copy(update={"smoothing": family.each(config.smoothing)})
    prior = prior_from(pilot_run, config, classifier)
    figures = figures_of(
        config,
        classifier,
        names,
        reference_asked=labels_path is None,
        prior=prior,
        family=family,
        beside=beside,
    )
    click.echo(json.dumps(figures, indent=2) if as_json else plan_lines(figures))


def prior_from(
    pilot_run: Path | None, config: ProxyConfig, classifier: BaseClassifier, *, insecure_seed: int | None = None
) -> Prior:
    """What is expected of the pictures: what the published logs say, or what an earlier run's votes make of it.

    insecure_seed: of a run whose settings are chosen by it.
    """
    from smoothing_proxy.assembly import LEDGER_NAME
    from smoothing_proxy.ledger.reader import LedgerReader
    from smoothing_proxy.ledger.replay import refuse_attack
    from smoothing_proxy.runs.choosing import prior_of_run
    from smoothing_proxy.stats.priors import PUBLISHED

    if pilot_run is None:
        return PUBLISHED
    if not (pilot_run / LEDGER_NAME).is_file():
        raise ConfigError(f"{pilot_run}: no run folder, {LEDGER_NAME} is missing")
    with LedgerReader.open(pilot_run / LEDGER_NAME) as ledger:
        refuse_attack(ledger, str(pilot_run))
        return prior_of_run(
            ledger, config.smoothing, classifier, where=str(pilot_run), insecure_seed=insecure_seed
        )


def picture_names(folder: Path, limit: int | None) -> list[str]:
    """The pictures to certify, relative to the folder; FOLDER may be a single picture.

    Run folders below it are left out: their plots are no pictures of the user's. So are names that are not
    UTF-8, which are said.
    """
    from smoothing_proxy.assembly import LEDGER_NAME
    from smoothing_proxy.images.pixels import picture_files

    if folder.is_file():
        return [folder.name]
    run_folders = {path.parent for path in folder.rglob(LEDGER_NAME)}
    names = []
    for path in picture_files(folder):
        if run_folders.isdisjoint(path.parents):
            name = path.relative_to(folder).as_posix()
            if _is_utf8(name):
                names.append(name)
            else:
                click.echo(f"left out: the name of {name!a} is not UTF-8", err=True)
    return names[:limit]


def figures_of(
    config: ProxyConfig,
    classifier: BaseClassifier,
    names: Sequence[str],
    *,
    reference_asked: bool,
    prior: Prior,
    family: Family,
    beside: LabelQuestions,
) -> dict[str, Any]:
    """The plan in figures, as JSON values. config: with the settings that `family` leaves to one picture.

    reference_asked: the clean pictures are asked about too. queries, usd: the worst case. prior: what the expected
    figures are computed from. beside: what is asked about several labels; it takes no further query.
    Raises ConfigError where the draws could not answer what is asked beside.
    """
    from smoothing_proxy.smoothing.plan import largest_provable, most_draws

    classifier.check_sigma()
    smoothing = config.smoothing
    price_usd = classifier.backend.price_usd
    beside.check(smoothing, classifier.labels)
    clean, canaries = int(reference_asked), _canaries(config, classifier, names)
    queries = len(names) * (most_draws(smoothing) + clean) + canaries
    limit = config.budget.limit_queries(price_usd)
    return {
        "pictures": len(names),
        "queries": queries,
        "canaries": canaries,
        "usd": queries * price_usd,
        "price_usd": price_usd,
        "budget_queries": limit,
        "within_budget": limit is None or queries <= limit,
        "largest_radius": largest_provable(smoothing),
        "method": smoothing.certify_method,
        "working_size": smoothing.working_size,
        "alpha": smoothing.alpha,
        "guarantee": family.statement,
        "largest_radius_of_labels": beside.largest_radii(smoothing),
        "backend": classifier.backend.name,
        "denoiser": classifier.denoiser.name,
        "expected": _expected(smoothing, prior, len(names), clean, canaries, price_usd, limit)
        | {"together": _together(smoothing, prior, family)},
    }


def _together(smoothing: Smoothing, prior: Prior, family: Family) -> list[dict[str, float]]:
    """The share of pictures that Holm will prove together, at least: what Bonferroni would prove of the votes."""
    from smoothing_proxy.runs.choosing import forecast_of
    from smoothing_proxy.stats.familywise import bonferroni_alpha

    if not family.radii:
        return []
    first = bonferroni_alpha(family.alpha, family.size or 1)
    forecast = forecast_of(smoothing, prior, family.radii, proof_alpha=first)
    return _shares(forecast)


def _shares(forecast: Forecast) -> list[dict[str, float]]:
    return [
        {"radius": float(radius), "share": float(share)}
        for radius, share in zip(forecast.radii, forecast.proven, strict=True)
    ]


def _canaries(config: ProxyConfig, classifier: BaseClassifier, names: Sequence[str]) -> int:
    from smoothing_proxy.assembly import wants_canaries
    from smoothing_proxy.runs.canary import CANARIES

    return CANARIES if names and wants_canaries(config, classifier) else 0


def _expected(
    smoothing: Smoothing,
    prior: Prior,
    pictures: int,
    clean: int,
    canaries: int,
    price_usd: float,
    limit: int | None,
) -> dict[str, Any]:
    """The forecast in figures. pictures_within_budget: how many are decided, in 95 of 100 runs."""
    from smoothing_proxy.runs.choosing import forecast_of, pictures_within

    radii = smoothing.ladder or (0.0, *(ratio * smoothing.sigma for ratio in (0.25, 0.5, 1.0, 2.0)))
    forecast = forecast_of(smoothing, prior, radii)
    queries = pictures * (forecast.mean + clean) + canaries
    return {
        "queries": queries,
        "usd": queries * price_usd,
        "draws_per_picture": {
            "mean": forecast.mean,
            "median": forecast.quantile(0.5),
            "nine_of_ten": forecast.quantile(0.9),
        },
        "certified": _shares(forecast),
        "mean_radius": forecast.mean_radius,
        "pictures_within_budget": pictures
        if limit is None
        else pictures_within(forecast, pictures, limit - canaries, extra=clean),
        "prior": prior.source,
    }


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
