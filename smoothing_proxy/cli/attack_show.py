"""What `attack` found: bars while it runs, figures as JSON, pictures, and a table."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smoothing_proxy.errors import ConfigError

if TYPE_CHECKING:
    from smoothing_proxy.config import ProxyConfig
    from smoothing_proxy.ledger.store import Ledger
    from smoothing_proxy.redteam.comparison import Album, Comparison, Question
    from smoothing_proxy.smoothing.base_classifier import BaseClassifier

__all__ = ["attack_bars", "figures_of", "make_folder", "stopped_lines", "table_of", "write_attack"]


@contextmanager
def attack_bars() -> Iterator[Callable[[str, int], Callable[[int], None]]]:
    """A bar for each stage, on standard error."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bars:

        def begin(stage: str, total: int) -> Callable[[int], None]:
            task = bars.add_task(stage, total=total)
            return lambda done: bars.update(task, advance=done)

        yield begin


def figures_of(
    config: ProxyConfig, question: Question, album: Album, found: Comparison, classifier: BaseClassifier
) -> dict[str, Any]:
    """All that was found, as JSON values."""
    labels = zip(album.names, album.labels, found.certificates, strict=True)
    return {
        "pictures": len(album.names),
        "backend": classifier.backend.name,
        "denoiser": classifier.denoiser.name,
        "sigma": config.smoothing.sigma,
        "alpha": config.smoothing.alpha,
        "working_size": config.smoothing.working_size,
        "scale": "[0, 1] pixels, results rounded to 8 bits",
        "question": asdict(question),
        "clean": {"raw": found.raw, "hardened": found.hardened},
        "rows": [asdict(row) for row in found.rows],
        "broken_proofs": list(found.broken),
        "certificates": [
            {"file": name, "reference": label, "label": proof.label, "radius": proof.input_radius}
            for name, label, proof in labels
        ],
        "attacked": [
            {
                "file": one.name,
                "attack": one.attack,
                "eps": one.eps,
                "classifier": "hardened" if one.hardened else "raw",
                "answer": one.answer,
                "l2": one.l2,
                "stands": one.stands,
            }
            for one in found.shown
        ],
    }


def make_folder(out: Path) -> None:
    """Before anything is asked. Raises ConfigError where it cannot be made."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{out}: cannot be the attack's folder: {error}") from error


def stopped_lines(ledger: Ledger | None, price_usd: float) -> str:
    """What an attack that was stopped has spent, and that it cannot be resumed."""
    if ledger is None:
        return "the attack was stopped; it cannot be resumed"
    cost = ledger.totals.cost().at(price_usd)
    unknown = f", and {cost.unknown:,} that may have been charged" if cost.unknown else ""
    return (
        f"the attack was stopped after {cost.queries:,} queries{unknown} (${cost.usd:,.2f}); it cannot be "
        "resumed, and another one is paid for anew, in another folder"
    )


def write_attack(out: Path, figures: Mapping[str, Any], found: Comparison, classifier: BaseClassifier) -> None:
    """attack.json, and a PNG for each attack, eps and side. Raises ConfigError when they cannot be written."""
    from itertools import groupby

    from smoothing_proxy.redteam.panels import draw_panels

    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / "attack.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
        for (name, eps, hardened), group in groupby(found.shown, lambda one: (one.attack, one.eps, one.hardened)):
            path = out / f"{name}-{eps:g}-{'hardened' if hardened else 'raw'}.png"
            draw_panels(list(group), path, denoiser=classifier.denoiser, sigma=classifier.sigma)
    except OSError as error:
        raise ConfigError(f"{out}: cannot be written: {error}") from error


def table_of(figures: Mapping[str, Any]) -> str:
    """The figures for a person."""
    clean = figures["clean"]
    head = f"{'attack':<12} {'norm':<5} {'eps':>7} {'raw':>7} {'hardened':>9} {'certified':>10} {'by proof':>9}"
    hardened = f"{figures['denoiser']} before {figures['backend']}, sigma {figures['sigma']:g}"
    lines = [
        f"{figures['pictures']} pictures; hardened: {hardened}",
        f"{head}   {'queries per picture':>19}   {'ms per picture':>15}",
        f"{'none':<12} {'':<5} {'':>7} {clean['raw']:>7.1%} {clean['hardened']:>9.1%}",
    ]
    for row in figures["rows"]:
        certified = "-" if row["certified"] is None else f"{row['certified']:.1%}"
        lines.append(
            f"{row['attack']:<12} {row['norm']:<5} {row['eps']:>7g} {row['raw']:>7.1%} {row['hardened']:>9.1%} "
            f"{certified:>10} {row['by_proof']:>9}   {_pair(row['raw_queries'], row['hardened_queries']):>19}   "
            f"{_pair(row['raw_ms'], row['hardened_ms']):>15}"
        )
    failed = sum(row.get("raw_failed", 0) for row in figures["rows"])
    if failed:
        lines.append(
            f"{failed} last looks at the raw classifier failed: those pictures stand as before the attack"
        )
    lines += [
        "accuracy: whose label stands; by proof: of how many of these, hardened, a certificate alone decides it",
        "queries and ms: of the attack, on the raw / on the hardened classifier",
    ]
    return "\n".join(lines)


def _pair(raw: float, hardened: float) -> str:
    return f"{raw:,.0f} / {hardened:,.0f}"
