"""`labels`: what a classifier says about one picture, and what the label map makes of it."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from smoothing_proxy.cli.options import encoding_table, json_option, key_values
from smoothing_proxy.errors import ConfigError

if TYPE_CHECKING:
    from rich.table import Table

    from smoothing_proxy.config import ProxyConfig
    from smoothing_proxy.smoothing.base_classifier import BaseClassifier
    from smoothing_proxy.smoothing.observe import Outcome

__all__ = ["labels"]

ANY_SIGMA = 0.25
"""A configuration needs a noise level; the clean picture gets none."""


@click.command()
@click.argument("image", type=click.Path(path_type=Path))
@click.option(
    "--config", "config_path", type=click.Path(path_type=Path), help="A TOML file with the settings, as for `run`."
)
@click.option("--backend", help="The classifier: aws-rekognition, google-vision, local:model.tflite, ...")
@click.option(
    "--backend-option", "-b", multiple=True, metavar="KEY=VALUE", help="An option of the backend; repeatable."
)
@click.option(
    "--labels",
    "labels_path",
    type=click.Path(path_type=Path),
    help="A label map (TOML); else [labels] of the configuration.",
)
@click.option("--working-size", help="Resize first, as for `run`.")
@click.option("--encoding", help="How the picture travels: raw, png, jpeg or jpeg:QUALITY.")
@click.option("--yes", is_flag=True, help="Do not ask before money is spent.")
@json_option
def labels(
    image: Path, config_path: Path | None, labels_path: Path | None, yes: bool, as_json: bool, **values: Any
) -> None:
    """Ask the classifier once about IMAGE as it is, and show every label, its class and the vote."""
    import anyio

    from smoothing_proxy.backends.labels import label_map
    from smoothing_proxy.smoothing.picture import canonical, prepare

    config = _config(config_path, values)
    classifier = _classifier(config, label_map(labels_path) if labels_path else config.labels)
    picture = prepare(canonical(image), config.smoothing.working_size)
    _confirm(classifier.backend.name, classifier.backend.price_usd, yes=yes)
    outcome = anyio.run(_ask, classifier, picture)
    if outcome.reply is None:
        raise outcome.error or ConfigError(f"{classifier.backend.name}: no answer")
    report = _report(outcome, classifier)
    if as_json:
        click.echo(json.dumps(report, indent=2))
    else:
        _print(report)
    if outcome.error is not None:
        raise outcome.error


def _config(path: Path | None, values: Mapping[str, Any]) -> ProxyConfig:
    """The settings, with any noise level where there is none."""
    from smoothing_proxy.config import read_config
    from smoothing_proxy.settings_file import read_toml

    named = {"name": values["backend"]} if values["backend"] else {}
    smoothing = {"working_size": values["working_size"]} if values["working_size"] else {}
    if path is None or "smoothing" not in read_toml(path):
        smoothing["sigma"] = ANY_SIGMA
    overrides = {
        "backend": {**named, **key_values(values["backend_option"])},
        "smoothing": smoothing,
        "encoding": encoding_table(values["encoding"]),
    }
    return read_config(path, overrides)


def _classifier(config: ProxyConfig, label_map: Any) -> BaseClassifier:
    """The configuration's base classifier without its denoiser, which the clean picture does not meet."""
    from smoothing_proxy.backends.registry import backend
    from smoothing_proxy.denoisers.registry import denoiser
    from smoothing_proxy.smoothing.base_classifier import BaseClassifier

    return BaseClassifier(
        backend(config.backend.name, **config.backend.options),
        denoiser("identity"),
        sigma=config.smoothing.sigma,
        labels=label_map,
        encoding=config.encoding,
    )


def _confirm(name: str, usd: float, *, yes: bool) -> None:
    """Say what one query costs, and ask. Raises ConfigError where nobody can be asked, or the answer is no."""
    click.echo(f"one query to {name}, ${usd:,.4f}", err=True)
    if yes or usd <= 0:
        return
    if not sys.stdin.isatty():
        raise ConfigError(f"this query costs ${usd:,.4f}: say --yes to spend it without being asked")
    if not click.confirm(f"Spend ${usd:,.4f}?", err=True):
        raise ConfigError("not confirmed: nothing was spent")


async def _ask(classifier: BaseClassifier, picture: Any) -> Outcome:
    from smoothing_proxy.smoothing.observe import CLEAN

    try:
        (answer,) = await classifier.ask(classifier.copies(picture, [CLEAN]))
    finally:
        await classifier.backend.aclose()
    return classifier.outcome(CLEAN, answer)


def _report(outcome: Outcome, classifier: BaseClassifier) -> dict[str, Any]:
    """The answer as JSON values, its labels most confident first."""
    reply = outcome.reply
    assert reply is not None
    ranked = sorted(reply.labels, key=lambda label: (-label.confidence, label.name, label.id))
    rows = [
        {
            "label": label.name,
            "confidence": label.confidence,
            "id": label.id,
            "parents": list(label.parents),
            "aliases": list(label.aliases),
            "classes": list(classifier.labels.classes_of(label)),
        }
        for label in ranked
    ]
    return {
        "backend": classifier.backend.name,
        "model_version": reply.model_version,
        "request_id": reply.request_id,
        "usd": classifier.backend.price_usd,
        "labels": rows,
        "vote": outcome.label,
    }


def _print(report: Mapping[str, Any]) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(soft_wrap=True)
    console.print(_table(report))
    version = f", model {report['model_version']}" if report["model_version"] else ""
    vote = "nothing" if report["vote"] is None else report["vote"]
    console.print(Text(_shown(f"votes for: {vote}   ({report['backend']}{version})")))


def _table(report: Mapping[str, Any]) -> Table:
    """Texts are given as Text: a label is nobody's markup."""
    from rich.table import Table
    from rich.text import Text

    table = Table("label", "confidence", "id", "parents", "class")
    for row in report["labels"]:
        name = row["label"] + (f" ({', '.join(row['aliases'])})" if row["aliases"] else "")
        classes = ", ".join(row["classes"]) or "(dropped)"
        cells = (name, f"{row['confidence']:.4f}", row["id"], ", ".join(row["parents"]), classes)
        table.add_row(*(Text(_shown(cell)) for cell in cells))
    return table


def _shown(text: str) -> str:
    """Without control characters, which a terminal would obey."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
