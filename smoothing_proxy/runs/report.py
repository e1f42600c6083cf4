"""What a run leaves behind: certificates.csv, certificates.jsonl, summary.json and the accuracy curve."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from smoothing_proxy.ledger.records import PictureRecord
from smoothing_proxy.ledger.replay import recorded_smoothing
from smoothing_proxy.ledger.store import Ledger
from smoothing_proxy.runs.rows import COLUMNS, certificate_row, is_correct
from smoothing_proxy.stats.curves import (
    Judged,
    abstention_rate,
    average_certified_radius,
    certified_accuracy,
)
from smoothing_proxy.stats.planning import largest_radius
from smoothing_proxy.types import Certificate

__all__ = ["summarise", "write_report"]

RADII = (0.0, 0.1, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0)
"""Where the summary states certified accuracy, as far as the settings can prove anything."""

CURVE_POINTS = 201


def write_report(ledger: Ledger, out: Path) -> dict[str, Any]:
    """Write the run's files into `out`, each one whole or not at all; returns the summary."""
    verdicts = ledger.verdicts()
    records = ledger.pictures()
    rows = [certificate_row(record, verdicts.get(record.id)) for record in records]
    summary = summarise(ledger)
    _replace(out / "certificates.csv", lambda stream: _write_csv(stream, rows))
    _replace(out / "certificates.jsonl", lambda stream: stream.writelines(json.dumps(row) + "\n" for row in rows))
    _replace(out / "summary.json", lambda stream: stream.write(json.dumps(summary, indent=2) + "\n"))
    outcomes = _outcomes(records, verdicts)
    if outcomes:
        _draw_curve(outcomes, summary, out / "certified_accuracy.png")
    return summary


def summarise(ledger: Ledger) -> dict[str, Any]:
    """The run in figures, as JSON values; every one of them computed from the ledger alone."""
    smoothing = recorded_smoothing(ledger)
    manifest = ledger.manifest() or {}
    records, verdicts = ledger.pictures(), ledger.verdicts()
    outcomes = _outcomes(records, verdicts)
    largest = largest_radius(smoothing.n, smoothing.alpha, smoothing.sigma)
    cost = ledger.draws.cost().at(manifest["price_usd"])
    failures = ledger.draws.failures()
    abstained = sum(certificate.label is None for certificate in verdicts.values())
    return {
        "complete": len(verdicts) + sum(record.error is not None for record in records) == len(records),
        "pictures": {
            "total": len(records),
            "decided": len(verdicts),
            "abstained": abstained,
            "abstention": _share(abstention_rate(outcomes)) if outcomes else None,
            "reference": _reference(ledger),
            "unreadable": {record.name: record.error for record in records if record.error is not None},
        },
        "certified_accuracy": [
            {"radius": point.radius, **_share(point.accuracy)}
            for point in (certified_accuracy(outcomes, [r for r in RADII if r <= largest]) if outcomes else ())
        ],
        "average_certified_radius": average_certified_radius(outcomes) if outcomes else None,
        "largest_radius": largest,
        "guarantee": f"per picture: each certificate is false with probability <= {smoothing.alpha:g}",
        "draws": {
            "settled": cost.queries,
            "failed": sum(failures.values()),
            "failures": failures,
        },
        "cost": {"queries": cost.queries, "unknown": cost.unknown, "usd": cost.usd},
        "model_versions": ledger.draws.model_versions(),
        "settings": manifest,
        "software": ledger.software(),
    }


def _outcomes(records: Sequence[PictureRecord], verdicts: Mapping[int, Certificate]) -> list[Judged]:
    """One per verdict of a picture whose correct label is known."""
    return [
        Judged(
            correct=is_correct(record, verdicts[record.id]),
            radius=verdicts[record.id].radius,
            abstained=verdicts[record.id].label is None,
        )
        for record in records
        if record.id in verdicts and record.reference is not None
    ]


def _share(share: Any) -> dict[str, Any]:
    return {"share": share.value, "low": share.low, "high": share.high, "count": share.count, "of": share.total}


def _reference(ledger: Ledger) -> str:
    asked = ledger.draws.clean_pictures()
    return "against the classifier's own answer on the clean picture" if asked else "against the given labels"


def _write_csv(stream: IO[str], rows: Sequence[Mapping[str, Any]]) -> None:
    table = csv.DictWriter(stream, COLUMNS)
    table.writeheader()
    table.writerows(rows)


def _replace(path: Path, write: Callable[[IO[str]], object]) -> None:
    part = path.with_name(path.name + ".part")
    with part.open("w", encoding="utf-8", newline="") as stream:
        write(stream)
    part.replace(path)


def _draw_curve(outcomes: Sequence[Judged], summary: Mapping[str, Any], path: Path) -> None:
    """Certified accuracy against radius, with the interval of each point, as PNG."""
    from matplotlib.figure import Figure

    end = summary["largest_radius"] * 1.05
    points = certified_accuracy(outcomes, [end * i / (CURVE_POINTS - 1) for i in range(CURVE_POINTS)])
    radii = [point.radius for point in points]
    figure = Figure(figsize=(7, 4.2), dpi=110)
    axes = figure.subplots()
    lows, highs = [p.accuracy.low for p in points], [p.accuracy.high for p in points]
    axes.fill_between(radii, lows, highs, step="post", alpha=0.2, linewidth=0, label="95 % interval of each point")
    axes.step(radii, [point.accuracy.value for point in points], where="post", label="certified accuracy")
    axes.axvline(summary["largest_radius"], color="grey", linestyle=":", label="most that n draws can prove")
    axes.set(xlim=(0, end), ylim=(0, 1.02), xlabel="l2 radius, [0, 1] pixel scale", ylabel="share of pictures")
    settings = summary["settings"]
    smoothing = settings["smoothing"]
    axes.set_title(
        f"{len(outcomes)} pictures, {settings['denoiser']['name']}, sigma {smoothing['sigma']:g}, "
        f"n {smoothing['n']:,}, alpha {smoothing['alpha']:g}",
        fontsize=10,
    )
    axes.legend(loc="lower left", fontsize=8)
    figure.tight_layout()
    part = path.with_name(path.name + ".part")
    figure.savefig(part, format="png")
    part.replace(path)
