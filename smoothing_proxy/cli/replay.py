"""`replay`: every verdict again from the ledger."""

from __future__ import annotations

import json
from pathlib import Path

import click

from smoothing_proxy.cli.options import json_option
from smoothing_proxy.errors import ConfigError

__all__ = ["replay"]


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--alpha", type=float, help="Certify at another level; by default the run's own.")
@click.option(
    "--target-radius",
    "target_radii",
    type=float,
    multiple=True,
    help="Ask whether this l2 radius is proven; repeatable, the largest proven one counts.",
)
@click.option("--max-queries", type=int, help="Look at so many draws of each picture at most.")
@json_option
def replay(
    run: Path, alpha: float | None, target_radii: tuple[float, ...], max_queries: int | None, as_json: bool
) -> None:
    """Compute every certificate of RUN again from its recorded draws, without a call to the classifier.

    Another question is answered where the recorded draws decide it, for all pictures or for none.
    """
    from smoothing_proxy.assembly import LEDGER_NAME
    from smoothing_proxy.ledger.reader import LedgerReader
    from smoothing_proxy.ledger.replay import Question, replay_certificates
    from smoothing_proxy.runs.rows import certificate_row
    from smoothing_proxy.stats.rounding import rounded_down

    if not (run / LEDGER_NAME).is_file():
        raise ConfigError(f"{run}: no run folder, {LEDGER_NAME} is missing")
    question = Question(alpha, target_radii, max_queries)
    with LedgerReader.open(run / LEDGER_NAME) as ledger:
        replayed = list(replay_certificates(ledger, question))
        recorded = ledger.verdicts()
    rows = [certificate_row(record, certificate) for record, certificate in replayed if certificate]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    for row in rows:
        radius = f"radius {rounded_down(row['radius'], 4)} at {row['working_size']}"
        click.echo(f"{row['file']}  {row['label'] or 'abstains'}  {radius}")
    click.echo(f"{len(rows)} of {len(replayed)} pictures replayed, no queries")
    if question == Question():
        equal = sum(
            (certificate.label, certificate.radius) == (recorded[record.id].label, recorded[record.id].radius)
            for record, certificate in replayed
            if certificate and record.id in recorded
        )
        click.echo(f"{equal} of {len(recorded)} recorded verdicts are the same")
