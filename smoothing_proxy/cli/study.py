"""`study`: a whole table of defences, attacks and classifiers, which goes on where it was stopped."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from smoothing_proxy.errors import ConfigError

if TYPE_CHECKING:
    from smoothing_proxy.redteam.study.cells import CellStore
    from smoothing_proxy.redteam.study.run import Study

__all__ = ["study"]


@click.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder of cells and tables; runs/studies/NAME by default."
)
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override by dotted name: pictures=50; repeatable.",
)
@click.option("--check", is_flag=True, help="Check everything and say what is left to do; run nothing.")
def study(config: Path, out: Path | None, overrides: tuple[str, ...], check: bool) -> None:
    """Run the study that CONFIG describes, such as configs/studies/dwt.toml.

    Every finished cell is kept in --out, so that the same command goes on after an interruption and makes the
    table again without an attack. Writes NAME.md, NAME.csv and NAME.png. Classifiers are of this machine: nothing
    is paid.
    """
    from smoothing_proxy.redteam.study.cells import CellStore
    from smoothing_proxy.redteam.study.config import load_study
    from smoothing_proxy.redteam.study.run import prepare

    settings = load_study(config, overrides)
    if settings.threads:
        import torch

        torch.set_num_threads(settings.threads)
    ready = prepare(settings)
    folder = out or Path("runs") / "studies" / settings.name
    with CellStore(folder) as store:
        missing = sum(store.get(ready.key(row, what)) is None for row, what in ready.cells())
        cells = len(ready.cells())
        click.echo(f"{len(ready.gallery)} pictures, {cells} cells, {missing} to make; {folder}", err=True)
        if not check:
            _run(ready, store, folder)


def _run(ready: Study, store: CellStore, folder: Path) -> None:
    try:
        ready.run(store, lambda line: click.echo(line, err=True))
    except KeyboardInterrupt:
        _write(ready, store, folder)
        click.echo(f"Stopped; {folder} is saved. The same command goes on from there.", err=True)
        sys.exit(130)
    click.echo(_write(ready, store, folder))
    broken = ready.broken_proofs(store)
    for complaint in broken:
        click.echo(f"broken proof: {complaint}", err=True)
    if broken:
        sys.exit(1)


def _write(ready: Study, store: CellStore, folder: Path) -> str:
    """The tables and the picture of what is finished; returns the Markdown. Raises ConfigError where it cannot."""
    from smoothing_proxy.redteam.study.figure import draw_study
    from smoothing_proxy.redteam.study.table import csv_text, lines_of, markdown

    config = ready.config
    lines = lines_of(config, lambda row, what: store.get(ready.key(row, what)))
    text = markdown(config, lines, len(ready.gallery))
    try:
        _replace(folder / f"{config.name}.md", text)
        _replace(folder / f"{config.name}.csv", csv_text(lines))
        if lines:
            draw_study(config.name, lines, folder / f"{config.name}.png")
    except OSError as error:
        raise ConfigError(f"{folder}: the tables cannot be written: {error}; the cells are kept") from error
    return text


def _replace(path: Path, text: str) -> None:
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)
