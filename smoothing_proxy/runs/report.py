"""What a run leaves behind: certificates.csv, certificates.jsonl, summary.json and the accuracy curve."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any

from smoothing_proxy.backends.labels import LabelMap
from smoothing_proxy.ledger.reader import LedgerReader
from smoothing_proxy.ledger.records import PictureRecord
from smoothing_proxy.ledger.replay import recorded_smoothing
from smoothing_proxy.runs.canary import drift
from smoothing_proxy.runs.family import radii_together, recorded_family
from smoothing_proxy.runs.label_proofs import LabelQuestions, label_rows, labels_statement
from smoothing_proxy.runs.rows import COLUMNS, certificate_row, is_correct
from smoothing_proxy.smoothing.plan import largest_provable
from smoothing_proxy.stats.curves import (
    Judged,
    Share,
    abstention_rate,
    average_certified_radius,
    certified_accuracy,
)
from smoothing_proxy.types import Certificate

__all__ = ["summarise", "write_report"]

RADII = (0.0, 0.1, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0)
"""Where the summary states certified accuracy, as far as the settings can prove anything."""

CURVE_POINTS = 201


def write_report(ledger: LedgerReader, out: Path, labels: LabelMap | None = None) -> dict[str, Any]:
    """Write the run's files into `out`, each one whole or not at all; returns the summary.

    labels: the run's own label map, for the proofs about several labels that it was asked for.
    """
    records, verdicts = ledger.pictures(), ledger.verdicts()
    together = radii_together(recorded_family(ledger), verdicts)
    rows = [certificate_row(record, verdicts.get(record.id), together.get(record.id)) for record in records]
    judged = _judged(records, verdicts)
    summary = summarise(ledger, records, verdicts)
    summary["proofs"] = _write_label_proofs(ledger, out, labels or LabelMap())
    _replace(out / "certificates.csv", lambda stream: _write_csv(stream, rows))
    _replace(out / "certificates.jsonl", lambda stream: _write_lines(stream, rows))
    _replace(out / "summary.json", lambda stream: stream.write(json.dumps(summary, indent=2) + "\n"))
    if judged:
        _draw_curve(judged, summary, out / "certified_accuracy.png")
    return summary


def summarise(
    ledger: LedgerReader, records: Sequence[PictureRecord], verdicts: Mapping[int, Certificate]
) -> dict[str, Any]:
    """The run in figures, as JSON values; every one of them computed from the ledger alone."""
    smoothing, family = recorded_smoothing(ledger), recorded_family(ledger)
    together = radii_together(family, verdicts).values()
    manifest = ledger.manifest() or {}
    judged = _judged(records, verdicts)
    largest = largest_provable(smoothing)
    cost = ledger.totals.cost().at(manifest["price_usd"])
    failures = ledger.totals.failures()
    left_out = {record.name: record.error for record in records if record.error is not None}
    points = certified_accuracy(judged, [r for r in RADII if r <= largest]) if judged else ()
    return {
        "complete": len(verdicts) + len(left_out) == len(records),
        "pictures": {
            "total": len(records),
            "decided": len(verdicts),
            "abstained": sum(certificate.label is None for certificate in verdicts.values()),
            "abstention": _share(abstention_rate(judged)) if judged else None,
            "reference": manifest["reference"],
            "without_reference": len(verdicts) - len(judged),
            "left_out": left_out,
        },
        "radii": f"l2 on the [0, 1] pixel scale, at working size {smoothing.working_size}",
        "certified_accuracy": [{"radius": point.radius, **_share(point.accuracy)} for point in points],
        "average_certified_radius": average_certified_radius(judged) if judged else None,
        "largest_radius": largest,
        "method": smoothing.certify_method,
        "guarantee": family.statement,
        "together": [
            {"radius": asked, "count": sum(radius >= asked for radius in together)} for asked in family.radii
        ],
        "draws": {
            "answered": cost.queries,
            "failed": sum(failures.values()),
            "failures": failures,
        },
        "cost": {"queries": cost.queries, "unknown": cost.unknown, "usd": cost.usd},
        "model_versions": ledger.totals.model_versions(),
        "drift": drift(ledger.totals.canaries()),
        "settings": manifest,
        "software": ledger.software(),
    }


def _write_label_proofs(ledger: LedgerReader, out: Path, labels: LabelMap) -> dict[str, Any]:
    """What was written, by file: how many pictures have a proof in it, and what its lines say."""
    written: dict[str, Any] = {}
    asked = LabelQuestions.recorded(ledger.manifest() or {})
    for name, rows in label_rows(ledger, asked, labels):
        _replace(out / name, partial(_write_lines, rows=rows))
        proven = sum(row["queries"] is not None for row in rows)
        written[name] = {"pictures": proven, "guarantee": labels_statement(recorded_family(ledger))}
    return written


def _judged(records: Sequence[PictureRecord], verdicts: Mapping[int, Certificate]) -> list[Judged]:
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


def _share(share: Share) -> dict[str, Any]:
    return {"share": share.value, "low": share.low, "high": share.high, "count": share.count, "of": share.total}


def _write_csv(stream: IO[str], rows: Sequence[Mapping[str, Any]]) -> None:
    table = csv.DictWriter(stream, COLUMNS)
    table.writeheader()
    table.writerows(rows)


def _write_lines(stream: IO[str], rows: Sequence[Mapping[str, Any]]) -> None:
    stream.writelines(json.dumps(row) + "\n" for row in rows)


def _replace(path: Path, write: Callable[[IO[str]], object]) -> None:
    part = path.with_name(path.name + ".part")
    with part.open("w", encoding="utf-8", newline="") as stream:
        write(stream)
    part.replace(path)


def _draws(summary: Mapping[str, Any]) -> str:
    smoothing = summary["settings"]["smoothing"]
    return (
        f"n {smoothing['n']:,}" if summary["method"] == "fixed" else f"at most {smoothing['max_queries']:,} draws"
    )


def _draw_curve(judged: Sequence[Judged], summary: Mapping[str, Any], path: Path) -> None:
    """Certified accuracy against radius, with the interval of each point, as PNG."""
    from matplotlib.figure import Figure

    end = summary["largest_radius"] * 1.05
    points = certified_accuracy(judged, [end * i / (CURVE_POINTS - 1) for i in range(CURVE_POINTS)])
    radii = [point.radius for point in points]
    settings = summary["settings"]
    smoothing = settings["smoothing"]
    size = smoothing["working_size"]
    figure = Figure(figsize=(7, 4.2), dpi=110)
    axes = figure.subplots()
    lows, highs = [p.accuracy.low for p in points], [p.accuracy.high for p in points]
    axes.fill_between(radii, lows, highs, step="post", alpha=0.2, linewidth=0, label="95 % interval of each point")
    axes.step(radii, [point.accuracy.value for point in points], where="post", label="certified accuracy")
    axes.axvline(summary["largest_radius"], color="grey", linestyle=":", label="most that can be proven")
    axes.set(
        xlim=(0, end),
        ylim=(0, 1.02),
        xlabel=f"l2 radius, [0, 1] pixel scale, at working size {size}",
        ylabel="share of pictures",
    )
    axes.set_title(
        f"{len(judged)} pictures, {settings['denoiser']['name']}, sigma {smoothing['sigma']:g}, "
        f"{_draws(summary)}, alpha {smoothing['alpha']:g}",
        fontsize=10,
    )
    axes.legend(loc="lower left", fontsize=8)
    figure.tight_layout()
    part = path.with_name(path.name + ".part")
    figure.savefig(part, format="png")
    part.replace(path)
