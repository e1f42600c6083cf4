"""`plan`: what a folder would cost and could prove."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from smoothing_proxy.cli.options import json_option, settings_options

if TYPE_CHECKING:
    from smoothing_proxy.config import ProxyConfig
    from smoothing_proxy.smoothing.base_classifier import BaseClassifier

__all__ = ["figures_of", "folder_argument", "labels_option", "limit_option", "picture_names", "plan", "plan_lines"]

folder_argument = click.argument("folder", type=click.Path(path_type=Path))
limit_option = click.option("--limit", type=click.IntRange(min=1), help="Only the first pictures, in name order.")
labels_option = click.option(
    "--labels",
    "labels_path",
    type=click.Path(path_type=Path),
    help="CSV with the columns file and label; else the classifier's own answer on the clean picture counts.",
)


@click.command()
@folder_argument
@settings_options
@limit_option
@labels_option
@json_option
def plan(folder: Path, config: ProxyConfig, limit: int | None, labels_path: Path | None, as_json: bool) -> None:
    """Say what certifying FOLDER would cost and could prove. Spends nothing."""
    from smoothing_proxy.assembly import make_classifier

    names = picture_names(folder, limit)
    figures = figures_of(config, make_classifier(config), names, reference_asked=labels_path is None)
    click.echo(json.dumps(figures, indent=2) if as_json else plan_lines(figures))


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
    config: ProxyConfig, classifier: BaseClassifier, names: Sequence[str], *, reference_asked: bool
) -> dict[str, Any]:
    """The plan in figures, as JSON values. reference_asked: the clean pictures are asked about too."""
    from smoothing_proxy.assembly import wants_canaries
    from smoothing_proxy.runs.canary import CANARIES
    from smoothing_proxy.smoothing.plan import largest_provable, most_draws

    classifier.check_sigma()
    smoothing = config.smoothing
    queries = len(names) * (most_draws(smoothing) + int(reference_asked))
    canaries = CANARIES if names and wants_canaries(config, classifier) else 0
    limit = config.budget.limit_queries(classifier.backend.price_usd)
    queries += canaries
    return {
        "pictures": len(names),
        "queries": queries,
        "canaries": canaries,
        "usd": queries * classifier.backend.price_usd,
        "price_usd": classifier.backend.price_usd,
        "budget_queries": limit,
        "within_budget": limit is None or queries <= limit,
        "largest_radius": largest_provable(smoothing),
        "method": smoothing.certify_method,
        "working_size": smoothing.working_size,
        "alpha": smoothing.alpha,
        "backend": classifier.backend.name,
        "denoiser": classifier.denoiser.name,
    }


def plan_lines(figures: Mapping[str, Any]) -> str:
    """The plan for a person."""
    from smoothing_proxy.stats.rounding import rounded_down

    radius = rounded_down(figures["largest_radius"], 4)
    return (
        f"{figures['pictures']} pictures, {figures['denoiser']} before {figures['backend']}: "
        f"{_most(figures)}{figures['queries']:,} queries, ${figures['usd']:,.2f}{_over(figures)}; "
        f"can prove up to l2 radius {radius} at working size {figures['working_size']}, "
        f"each false with probability <= {figures['alpha']:g}"
    )


def _most(figures: Mapping[str, Any]) -> str:
    return "" if figures["method"] == "fixed" else "at most "


def _over(figures: Mapping[str, Any]) -> str:
    if figures["within_budget"]:
        return ""
    return f" (more than the budget of {figures['budget_queries']:,} queries, which will end the run early)"


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
