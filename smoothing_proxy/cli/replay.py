"""`replay`: every verdict again from the ledger."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from textwrap import indent
from typing import TYPE_CHECKING, Any

import click

from smoothing_proxy.cli.ask_labels import (
    describe_labels,
    describe_top_k,
    per_label_options,
    per_label_question,
)
from smoothing_proxy.cli.options import family_options, json_option
from smoothing_proxy.errors import ConfigError

if TYPE_CHECKING:
    from smoothing_proxy.backends.labels import LabelMap
    from smoothing_proxy.ledger.reader import LedgerReader
    from smoothing_proxy.runs.family import Family
    from smoothing_proxy.runs.label_proofs import LabelQuestions
    from smoothing_proxy.types import LabelsCertificate, TopKCertificate

__all__ = ["replay"]


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--alpha", type=float, help="At another level, that of all together where they are one family.")
@click.option(
    "--target-radius",
    "target_radii",
    type=float,
    multiple=True,
    help="Ask whether this l2 radius is proven; repeatable, the largest proven one counts.",
)
@click.option("--max-queries", type=int, help="Look at so many draws of each picture at most.")
@family_options
@per_label_options
@click.option("--top-k", type=int, metavar="K", help="Prove that labels stay among the K most likely ones.")
@click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    help="With --per-label: the run's configuration, for the label map in its table [labels].",
)
@json_option
def replay(
    run: Path,
    alpha: float | None,
    target_radii: tuple[float, ...],
    max_queries: int | None,
    family: str | None,
    family_size: int | None,
    family_radii: tuple[float, ...],
    top_k: int | None,
    config_path: Path | None,
    as_json: bool,
    **asked: Any,
) -> None:
    """Compute every certificate of RUN again from its recorded draws, without a call to the classifier.

    Another question is answered where the recorded draws decide it, for all pictures or for none. It has to be
    fixed without looking at them.
    """
    from smoothing_proxy.assembly import LEDGER_NAME
    from smoothing_proxy.ledger.reader import LedgerReader
    from smoothing_proxy.runs.family import asked_again
    from smoothing_proxy.runs.label_proofs import LabelQuestions

    beside = LabelQuestions(per_label_question(**asked), top_k)
    _refuse_two_questions(
        beside, config_path, (alpha, max_queries, family, family_size, *target_radii, *family_radii)
    )
    if not (run / LEDGER_NAME).is_file():
        raise ConfigError(f"{run}: no run folder, {LEDGER_NAME} is missing")
    with LedgerReader.open(run / LEDGER_NAME) as ledger:
        if beside:
            _replay_labels(ledger, beside, run, config_path, as_json=as_json)
            return
        together = asked_again(ledger, family, size=family_size, radii=family_radii, alpha=alpha)
        _replay_certificates(ledger, together, target_radii, max_queries, as_json=as_json)


def _refuse_two_questions(beside: LabelQuestions, config_path: Path | None, others: Iterable[object]) -> None:
    """Raises UsageError where one of two questions would be left unanswered."""
    if beside.per_label is not None and beside.top_k is not None:
        raise click.UsageError("--per-label and --top-k are two proofs: ask for one of them")
    if beside and any(given is not None for given in others):
        raise click.UsageError("--per-label and --top-k are asked at the run's own level: leave out the others")
    if config_path is not None and beside.per_label is None:
        raise click.UsageError("--config goes with --per-label")


def _replay_certificates(
    ledger: LedgerReader,
    family: Family,
    target_radii: tuple[float, ...],
    max_queries: int | None,
    *,
    as_json: bool,
) -> None:
    from smoothing_proxy.ledger.replay import Question, recorded_smoothing, replay_certificates
    from smoothing_proxy.runs.family import radii_together, recorded_family
    from smoothing_proxy.runs.rows import certificate_row

    recorded = recorded_smoothing(ledger)
    alpha = None if family.alpha_each == recorded.alpha else family.alpha_each
    question = Question(alpha, target_radii, max_queries)
    family.check(question.of(recorded))
    replayed = list(replay_certificates(ledger, question))
    answered = {record: made for record, made in replayed if made}
    together = radii_together(family, {record.id: made for record, made in answered.items()})
    rows = [certificate_row(record, made, together.get(record.id)) for record, made in answered.items()]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    _say_rows(rows, holm=family.method == "holm")
    click.echo(f"{len(rows)} of {len(replayed)} pictures replayed, no queries")
    click.echo(f"guarantee: {family.statement}")
    if question == Question() and family == recorded_family(ledger):
        before = ledger.verdicts()
        equal = sum(
            (made.label, made.radius) == (before[record.id].label, before[record.id].radius)
            for record, made in answered.items()
            if record.id in before
        )
        click.echo(f"{equal} of {len(before)} recorded verdicts are the same")


def _say_rows(rows: Sequence[Mapping[str, Any]], *, holm: bool) -> None:
    from smoothing_proxy.stats.rounding import rounded_down

    for row in rows:
        radius = f"radius {rounded_down(row['radius'], 4)} at {row['working_size']}"
        together = f", with all others {row['family_radius']:g}" if row["family_radius"] is not None else ""
        click.echo(f"{row['file']}  {row['label'] or 'abstains'}  {radius}{together if holm else ''}")


def _replay_labels(
    ledger: LedgerReader, asked: LabelQuestions, run: Path, config_path: Path | None, *, as_json: bool
) -> None:
    from smoothing_proxy.ledger.reply_replay import replay_labels, replay_top_k
    from smoothing_proxy.runs.family import recorded_family
    from smoothing_proxy.runs.label_proofs import labels_statement
    from smoothing_proxy.runs.label_rows import label_row

    described: list[tuple[str, LabelsCertificate | TopKCertificate | None, str]] = []
    if asked.per_label is not None:
        labels = _labels_of(ledger, run, config_path)
        for record, proofs in replay_labels(ledger, asked.per_label, labels):
            described.append((record.name, proofs, describe_labels(proofs) if proofs else ""))
    if asked.top_k is not None:
        for record, kept in replay_top_k(ledger, asked.top_k):
            described.append((record.name, kept, describe_top_k(kept) if kept else ""))
    answered = [(name, proof, text) for name, proof, text in described if proof is not None]
    if as_json:
        click.echo(json.dumps([label_row(name, proof) for name, proof, _ in answered], indent=2))
        return
    for name, _, text in answered:
        click.echo(f"{name}\n{indent(text, '  ')}")
    click.echo(f"{len(answered)} of {len(described)} pictures replayed, no queries")
    click.echo(f"guarantee: {labels_statement(recorded_family(ledger))}")


def _labels_of(ledger: LedgerReader, run: Path, config_path: Path | None) -> LabelMap:
    """The run's label map. Raises ConfigError where it is known only by its fingerprint."""
    from smoothing_proxy.backends.labels import LabelMap, label_map
    from smoothing_proxy.settings_file import read_toml

    if config_path is not None:
        return label_map(read_toml(config_path).get("labels", {}))
    labels = LabelMap()
    if labels.fingerprint() != (ledger.manifest() or {}).get("labels"):
        raise ConfigError(f"{run}: it was made with a label map: name the run's configuration with --config")
    return labels
