"""`predict` and `certify`: one picture, one answer."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from smoothing_proxy.cli.ask_labels import (
    describe_labels,
    describe_top_k,
    json_text,
    per_label_options,
    per_label_question,
)
from smoothing_proxy.cli.options import json_option, settings_options
from smoothing_proxy.cli.spending import confirm_one, yes_option

if TYPE_CHECKING:
    from smoothing_proxy.config import ProxyConfig
    from smoothing_proxy.smoothing.client import AsyncSmoothedClassifier
    from smoothing_proxy.types import Certificate, Prediction

__all__ = ["certify", "predict"]

Answer = TypeVar("Answer")


@click.command()
@click.argument("image", type=click.Path(path_type=Path))
@settings_options
@per_label_options
@click.option("--top-k", type=int, metavar="K", help="Prove that the label stays among the K most likely ones.")
@yes_option
@json_option
def certify(image: Path, config: ProxyConfig, top_k: int | None, yes: bool, as_json: bool, **asked: Any) -> None:
    """Answer one IMAGE with a proof: the label, and the radius within which it cannot change."""
    from smoothing_proxy.smoothing.label_plans import estimation_draws
    from smoothing_proxy.smoothing.plan import most_draws

    question = per_label_question(**asked)
    if question and top_k is not None:
        raise click.UsageError("--per-label and --top-k are two proofs: ask for one of them")
    richer = config.smoothing.n0 + estimation_draws(config.smoothing)
    if question:
        labels = _asked(config, richer, lambda client: client.certify_labels(image, question), yes=yes)
        click.echo(json_text(labels) if as_json else describe_labels(labels))
    elif top_k is not None:
        kept = _asked(config, richer, lambda client: client.certify_top_k(image, top_k), yes=yes)
        click.echo(json_text(kept) if as_json else describe_top_k(kept))
    else:
        most = most_draws(config.smoothing)
        certificate = _asked(config, most, lambda client: client.certify(image), yes=yes)
        click.echo(_to_json(certificate) if as_json else describe_certificate(certificate))


@click.command()
@click.argument("image", type=click.Path(path_type=Path))
@settings_options
@yes_option
@json_option
def predict(image: Path, config: ProxyConfig, yes: bool, as_json: bool) -> None:
    """Answer one IMAGE with the majority label, or abstain when the votes are too close."""
    smoothing = config.smoothing
    most = smoothing.n if smoothing.method == "fixed" else smoothing.max_queries
    prediction = _asked(config, most, lambda client: client.predict(image), yes=yes)
    click.echo(_to_json(prediction) if as_json else describe_prediction(prediction))


def _asked(
    config: ProxyConfig,
    most: int,
    ask: Callable[[AsyncSmoothedClassifier], Coroutine[Any, Any, Answer]],
    *,
    yes: bool,
) -> Answer:
    """Ask, once it is agreed to. most: the queries that it takes at most, sends that have to be repeated apart."""
    import anyio

    from smoothing_proxy.assembly import make_client

    client = make_client(config)
    confirm_one(client.backend, most, config.budget, yes=yes)

    async def asked() -> Answer:
        async with client:
            return await ask(client)

    return anyio.run(asked)


def describe_certificate(certificate: Certificate) -> str:
    """What the proof says, in lines for a person."""
    from smoothing_proxy.stats.rounding import rounded_down

    votes = certificate.votes
    tail = [_votes_line(votes.ranked()[:3], votes.failed, votes.n), _cost_line(certificate)]
    if certificate.label is None:
        return "\n".join(["abstains: the votes prove no label", *tail])
    height, width = certificate.working_size or (0, 0)
    lines = [
        f"{certificate.label}",
        f"proven within l2 radius {rounded_down(certificate.radius, 4)} at {width}x{height}, [0, 1] pixel scale",
    ]
    if certificate.input_size != certificate.working_size and certificate.input_radius is not None:
        height, width = certificate.input_size or (0, 0)
        lines.append(f"which is {rounded_down(certificate.input_radius, 4)} at the picture's own {width}x{height}")
    doubt = f"false with probability <= {certificate.alpha:g}"
    lines.append(f"sigma {certificate.sigma:g}; p >= {rounded_down(certificate.p_lower, 4)}; {doubt}")
    return "\n".join([*lines, *tail])


def describe_prediction(prediction: Prediction) -> str:
    """The majority and its p-value, in lines for a person."""
    votes = prediction.votes
    head = prediction.label or "abstains: the two best labels are too close"
    return "\n".join(
        [
            head,
            f"p-value {prediction.p_value:.3g}; wrong with probability <= {prediction.alpha:g}",
            _votes_line(votes.ranked()[:3], votes.failed, votes.n),
            _cost_line(prediction),
        ]
    )


def _votes_line(ranked: list[tuple[str, int]], failed: int, n: int) -> str:
    shown = [f"{label} {count}" for label, count in ranked] + ([f"failed {failed}"] if failed else [])
    return f"votes of {n}: {', '.join(shown)}"


def _cost_line(verdict: Certificate | Prediction) -> str:
    cost = verdict.cost
    unknown = f", {cost.unknown} more may have been billed" if cost.unknown else ""
    return f"{cost.queries} queries{unknown}, ${cost.usd:.4f}"


def _to_json(verdict: Certificate | Prediction) -> str:
    import json

    return json.dumps(asdict(verdict) | {"queries": verdict.queries}, indent=2)
