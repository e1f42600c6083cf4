"""What a run will cost and what it found, in lines for a person."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["plan_lines", "summary_lines"]


def summary_lines(summary: Mapping[str, Any], out: Path) -> str:
    """The summary of a run (runs.report.summarise) as text; `out` is where its files are."""
    pictures, draws, cost = summary["pictures"], summary["draws"], summary["cost"]
    lines = [
        f"{pictures['decided']} of {pictures['total']} pictures decided, {pictures['abstained']} abstained",
        *_accuracy_lines(summary),
        f"{cost['queries']:,} queries answered, {cost['unknown']:,} more maybe billed, ${cost['usd']:,.2f}",
        f"guarantee: {summary['guarantee']}",
        *(f"  within {row['radius']:<5g} {row['count']:,} pictures together" for row in summary["together"]),
    ]
    for name, proofs in summary["proofs"].items():
        lines.append(f"{name}: proofs about the labels of {proofs['pictures']:,} pictures; {proofs['guarantee']}")
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


def plan_lines(figures: Mapping[str, Any]) -> str:
    """The plan for a person."""
    from smoothing_proxy.stats.rounding import rounded_down

    radius = rounded_down(figures["largest_radius"], 4)
    expected = figures["expected"]
    certified = _share_text(expected["certified"])
    together = f"\nof all together, at least: {_share_text(expected['together'])}" if expected["together"] else ""
    return (
        f"{figures['pictures']} pictures, {figures['denoiser']} before {figures['backend']}: "
        f"{_most(figures)}{figures['queries']:,} queries, ${figures['usd']:,.2f}{_over(figures)}; "
        f"can prove up to l2 radius {radius} at working size {figures['working_size']}\n"
        f"{_label_radii(figures)}{figures['guarantee']}\n"
        f"{_expected_cost(figures)}expected to be certified, rightly or not: {certified}{together}\n"
        f"as if these pictures were like {expected['prior']}"
    )


def _share_text(rows: Sequence[Mapping[str, float]]) -> str:
    return ", ".join(f"{row['share']:.0%} within {row['radius']:g}" for row in rows)


def _label_radii(figures: Mapping[str, Any]) -> str:
    """Nothing where no proofs about several labels are asked for."""
    from smoothing_proxy.stats.rounding import rounded_down

    radii = figures["largest_radius_of_labels"]
    named = {
        "per_label": "that labels stay present, or absent, however many of them are tested,",
        "top_k": "that they stay among the most likely ones",
    }
    return "".join(
        f"the same draws can prove {named[key]} up to {rounded_down(radius, 4)}\n" for key, radius in radii.items()
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
