"""What a run found, in lines for a person."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["summary_lines"]


def summary_lines(summary: Mapping[str, Any], out: Path) -> str:
    """The summary of a run (runs.report.summarise) as text; `out` is where its files are."""
    pictures, draws, cost = summary["pictures"], summary["draws"], summary["cost"]
    lines = [
        f"{pictures['decided']} of {pictures['total']} pictures decided, {pictures['abstained']} abstained",
        *_accuracy_lines(summary),
        f"{cost['queries']:,} queries answered, {cost['unknown']:,} more maybe billed, ${cost['usd']:,.2f}",
        f"guarantee: {summary['guarantee']}",
    ]
    if draws["failed"]:
        lines.append(f"{draws['failed']:,} draws failed and count as votes for nothing:")
        lines += [f"  {count:,} x {reason}" for reason, count in draws["failures"].items()]
    if summary["drift"]["changed"]:
        lines.append(
            "warning: the classifier changed during the run: it answered the same picture as "
            f"{', '.join(summary['drift']['votes'])}, model versions {summary['drift']['model_versions']}; "
            "each certificate speaks of the model that answered its own draws"
        )
    if pictures["left_out"]:
        lines.append(f"{len(pictures['left_out'])} pictures were left out:")
        lines += [f"  {name}: {reason}" for name, reason in pictures["left_out"].items()]
    return "\n".join([*lines, f"written to {out}"])


def _accuracy_lines(summary: Mapping[str, Any]) -> list[str]:
    rows = summary["certified_accuracy"]
    if not rows:
        return ["no reference labels, so no accuracy"]
    header = f"certified accuracy against {summary['pictures']['reference']},"
    return [header, f"radii in {summary['radii']}:"] + [
        f"  within {row['radius']:<5g} {row['share']:6.1%}   [{row['low']:.1%}, {row['high']:.1%}]" for row in rows
    ]
