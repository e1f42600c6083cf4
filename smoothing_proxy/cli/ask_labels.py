"""`certify --per-label` and `certify --top-k`: the richer proofs of one picture, for a person and as JSON."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from smoothing_proxy.runs.label_rows import finite

if TYPE_CHECKING:
    from smoothing_proxy.smoothing.settings import PerLabel
    from smoothing_proxy.types import (
        ConfidenceInterval,
        LabelCertificate,
        LabelsCertificate,
        TopKCertificate,
    )

__all__ = [
    "describe_labels",
    "describe_top_k",
    "finite",
    "json_text",
    "per_label_options",
    "per_label_question",
]

_OPTIONS = (
    click.option("--per-label", is_flag=True, help="Prove which labels of the reply stay present, and absent."),
    click.option("--threshold", type=float, help="With --per-label: the confidence that counts as present."),
    click.option(
        "--watch", multiple=True, metavar="LABEL", help="With --per-label: always test this label; repeatable."
    ),
    click.option(
        "--confidence-within",
        type=float,
        metavar="RADIUS",
        help="With --per-label: also bound each confidence within this l2 radius.",
    ),
)


def per_label_options(command: Any) -> Any:
    """Adds --per-label and what is asked with it."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def per_label_question(
    *, per_label: bool, threshold: float | None, watch: tuple[str, ...], confidence_within: float | None
) -> PerLabel | None:
    """What the options ask; None without --per-label. Raises ConfigError, and UsageError for the others alone."""
    given = {"threshold": threshold, "watched": watch or None, "confidence_radius": confidence_within}
    given = {key: value for key, value in given.items() if value is not None}
    if not per_label:
        if given:
            raise click.UsageError("--threshold, --watch and --confidence-within go with --per-label")
        return None
    from smoothing_proxy.smoothing.settings import PerLabel

    return PerLabel(**given)  # type: ignore[arg-type]  # each of its own type


def describe_labels(certificate: LabelsCertificate) -> str:
    """What the proofs say, a line for each label, and where the confidence was bounded another."""
    lines = [line for proof in certificate.labels for line in _label_lines(proof)]
    height, width = certificate.working_size or (0, 0)
    head = f"l2 radii at {width}x{height}, [0, 1] pixel scale" if lines else "no label was worth testing"
    doubt = f"any of it false with probability <= {certificate.alpha:g}"
    failed = f", {certificate.failed} failed" if certificate.failed else ""
    return "\n".join([head, *lines, f"sigma {certificate.sigma:g}; {doubt}", _cost(certificate) + failed])


def describe_top_k(certificate: TopKCertificate) -> str:
    """What the proof says."""
    from smoothing_proxy.stats.rounding import rounded_down

    tail = [f"sigma {certificate.sigma:g}; false with probability <= {certificate.alpha:g}", _cost(certificate)]
    if certificate.label is None:
        return "\n".join([f"abstains: the votes keep no label among the top {certificate.k}", *tail])
    height, width = certificate.working_size or (0, 0)
    within = f"within l2 radius {rounded_down(certificate.radius, 4)} at {width}x{height}, [0, 1] pixel scale"
    lines = [f"{certificate.label}", f"stays among the top {certificate.k} {within}"]
    if certificate.input_size != certificate.working_size and certificate.input_radius is not None:
        height, width = certificate.input_size or (0, 0)
        lines.append(f"which is {rounded_down(certificate.input_radius, 4)} at the picture's own {width}x{height}")
    return "\n".join([*lines, *tail])


def _label_lines(proof: LabelCertificate) -> list[str]:
    from smoothing_proxy.stats.rounding import rounded_down

    said = {True: "stays present", False: "stays absent", None: "unproven"}[proof.present]
    within = "" if proof.present is None else f" within {rounded_down(proof.radius, 4)}"
    seen = f"present in {proof.votes.of('present')} of {proof.votes.n}"
    lines = [f"{proof.label}: {said}{within}; confidence >= {proof.threshold:g} {seen}"]
    return lines + ([_confidence_line(proof.confidence)] if proof.confidence else [])


def _confidence_line(interval: ConfidenceInterval) -> str:
    from smoothing_proxy.stats.rounding import rounded_down

    low = rounded_down(interval.low, 4)
    high = "any" if math.isinf(interval.high) else f"{-float(rounded_down(-interval.high, 4)):.4f}"
    return f"  its median confidence {interval.median:.4f} stays in [{low}, {high}] within {interval.radius:g}"


def _cost(certificate: LabelsCertificate | TopKCertificate) -> str:
    cost = certificate.cost
    unknown = f", {cost.unknown} more may have been billed" if cost.unknown else ""
    return f"{cost.queries} queries{unknown}, ${cost.usd:.4f}"


def json_text(certificate: LabelsCertificate | TopKCertificate) -> str:
    """All of it as JSON."""
    import json

    return json.dumps(finite(asdict(certificate)) | {"queries": certificate.queries}, indent=2)
