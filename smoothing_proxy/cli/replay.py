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
@json_option
def replay(run: Path, alpha: float | None, as_json: bool) -> None:
    """Compute every certificate of RUN again from its recorded draws, without a call to the classifier."""
    from smoothing_proxy.assembly import LEDGER_NAME
    from smoothing_proxy.ledger.reader import LedgerReader
    from smoothing_proxy.ledger.replay import replay_certificates
    from smoothing_proxy.runs.rows import certificate_row
    from smoothing_proxy.stats.rounding import rounded_down

    if not (run / LEDGER_NAME).is_file():
        raise ConfigError(f"{run}: no run folder, {LEDGER_NAME} is missing")
    with LedgerReader.open(run / LEDGER_NAME) as ledger:
        replayed = list(replay_certificates(ledger, alpha=alpha))
        recorded = ledger.verdicts()
    rows = [certificate_row(record, certificate) for record, certificate in replayed if certificate]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    for row in rows:
        radius = f"radius {rounded_down(row['radius'], 4)} at {row['working_size']}"
        click.echo(f"{row['file']}  {row['label'] or 'abstains'}  {radius}")
    click.echo(f"{len(rows)} of {len(replayed)} pictures replayed, no queries")
    if alpha is None:
        equal = sum(
            (certificate.label, certificate.radius) == (recorded[record.id].label, recorded[record.id].radius)
            for record, certificate in replayed
            if certificate and record.id in recorded
        )
        click.echo(f"{equal} of {len(recorded)} recorded verdicts are the same")
