"""`plan`: what a folder would cost and could prove."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from smoothing_proxy.cli.options import json_option, settings_options
from smoothing_proxy.errors import ConfigError

if TYPE_CHECKING:
    from smoothing_proxy.config import ProxyConfig
    from smoothing_proxy.smoothing.base_classifier import BaseClassifier
    from smoothing_proxy.smoothing.settings import Smoothing
    from smoothing_proxy.stats.priors import Prior

__all__ = [
    "figures_of",
    "folder_argument",
    "from_run_option",
    "labels_option",
    "limit_option",
    "picture_names",
    "plan",
    "plan_lines",
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
    as_json: bool,
) -> None:
    """Say what certifying FOLDER would cost and could prove, at most and probably. Spends nothing."""
    from smoothing_proxy.assembly import make_classifier

    names = picture_names(folder, limit)
    classifier = make_classifier(config)
    prior = prior_from(pilot_run, config, classifier)
    figures = figures_of(config, classifier, names, reference_asked=labels_path is None, prior=prior)
    click.echo(json.dumps(figures, indent=2) if as_json else plan_lines(figures))


def prior_from(
    pilot_run: Path | None, config: ProxyConfig, classifier: BaseClassifier, *, insecure_seed: int | None = None
) -> Prior:
    """What is expected of the pictures: what the published logs say, or what an earlier run's votes make of it.

    insecure_seed: of a run whose settings are chosen by it.
    """
    from smoothing_proxy.assembly import LEDGER_NAME
    from smoothing_proxy.ledger.reader import LedgerReader
    from smoothing_proxy.runs.choosing import prior_of_run
    from smoothing_proxy.stats.priors import PUBLISHED

    if pilot_run is None:
        return PUBLISHED
    if not (pilot_run / LEDGER_NAME).is_file():
        raise ConfigError(f"{pilot_run}: no run folder, {LEDGER_NAME} is missing")
    with LedgerReader.open(pilot_run / LEDGER_NAME) as ledger:
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
    config: ProxyConfig, classifier: BaseClassifier, names: Sequence[str], *, reference_asked: bool, prior: Prior
) -> dict[str, Any]:
    """The plan in figures, as JSON values. reference_asked: the clean pictures are asked about too.

    queries, usd: the worst case. prior: what the expected figures are computed from.
    """
    from smoothing_proxy.smoothing.plan import largest_provable, most_draws

    classifier.check_sigma()
    smoothing = config.smoothing
    price_usd = classifier.backend.price_usd
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
        "backend": classifier.backend.name,
        "denoiser": classifier.denoiser.name,
        "expected": _expected(smoothing, prior, len(names), clean, canaries, price_usd, limit),
    }


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
        "certified": [
            {"radius": float(radius), "share": float(share)}
            for radius, share in zip(forecast.radii, forecast.proven, strict=True)
        ],
        "mean_radius": forecast.mean_radius,
        "pictures_within_budget": pictures
        if limit is None
        else pictures_within(forecast, pictures, limit - canaries, extra=clean),
        "prior": prior.source,
    }


def plan_lines(figures: Mapping[str, Any]) -> str:
    """The plan for a person."""
    from smoothing_proxy.stats.rounding import rounded_down

    radius = rounded_down(figures["largest_radius"], 4)
    expected = figures["expected"]
    certified = ", ".join(f"{row['share']:.0%} within {row['radius']:g}" for row in expected["certified"])
    return (
        f"{figures['pictures']} pictures, {figures['denoiser']} before {figures['backend']}: "
        f"{_most(figures)}{figures['queries']:,} queries, ${figures['usd']:,.2f}{_over(figures)}; "
        f"can prove up to l2 radius {radius} at working size {figures['working_size']}, "
        f"each false with probability <= {figures['alpha']:g}\n"
        f"{_expected_cost(figures)}expected to be certified, rightly or not: {certified}\n"
        f"as if these pictures were like {expected['prior']}"
    )


def _expected_cost(figures: Mapping[str, Any]) -> str:
    """Nothing where it is known."""
    if figures["method"] == "fixed":
        return ""
    expected = figures["expected"]
    draws = expected["draws_per_picture"]
    return (
        f"expected: {expected['queries']:,.0f} queries, ${expected['usd']:,.2f}: {draws['mean']:,.0f} draws for a "
        f"picture; {draws['median']:,} are enough for half of them, {draws['nine_of_ten']:,} for nine of ten\n"
    )


def _most(figures: Mapping[str, Any]) -> str:
    return "" if figures["method"] == "fixed" else "at most "


def _over(figures: Mapping[str, Any]) -> str:
    if figures["within_budget"]:
        return ""
    limit = f"the budget of {figures['budget_queries']:,} queries"
    if figures["expected"]["pictures_within_budget"] == figures["pictures"]:
        return f" (more than {limit}, which is expected to be enough all the same)"
    return f" (more than {limit}, which will end the run early)"


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
