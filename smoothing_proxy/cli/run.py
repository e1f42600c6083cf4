"""`plan` and `run`: a folder of pictures, priced first and then certified."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from smoothing_proxy.cli.options import json_option, settings_options
from smoothing_proxy.cli.show import summary_lines
from smoothing_proxy.errors import ConfigError, LedgerError, SmoothingProxyError

if TYPE_CHECKING:
    from anyio import CancelScope

    from smoothing_proxy.cli.progress import RunProgress
    from smoothing_proxy.config import ProxyConfig
    from smoothing_proxy.ledger.store import Ledger
    from smoothing_proxy.runs.runner import FolderRun
    from smoothing_proxy.smoothing.halt import Halt

__all__ = ["plan", "run"]

folder_argument = click.argument("folder", type=click.Path(path_type=Path))
limit_option = click.option("--limit", type=click.IntRange(min=1), help="Only the first pictures, in name order.")
labels_option = click.option(
    "--labels",
    "labels_path",
    type=click.Path(path_type=Path),
    help="CSV with the columns file and label; else the classifier's own answer on the clean picture counts.",
)


@click.command()
@folder_argument
@settings_options
@limit_option
@labels_option
@json_option
def plan(folder: Path, config: ProxyConfig, limit: int | None, labels_path: Path | None, as_json: bool) -> None:
    """Say what certifying FOLDER would cost and could prove. Spends nothing."""
    figures = _plan(config, len(_names(folder, limit)), reference_asked=labels_path is None)
    click.echo(json.dumps(figures, indent=2) if as_json else _plan_lines(figures))


@click.command()
@folder_argument
@settings_options
@limit_option
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="The run's folder; the same one resumes."
)
@labels_option
@click.option("--label-column", default="label", show_default=True, help="The column of --labels that counts.")
@click.option("--yes", is_flag=True, help="Do not ask before money is spent.")
@click.option("--insecure-seed", type=int, help="Repeatable noise. Whoever knows the seed can defeat the proof.")
@json_option
def run(
    folder: Path,
    config: ProxyConfig,
    limit: int | None,
    out: Path,
    labels_path: Path | None,
    label_column: str,
    yes: bool,
    insecure_seed: int | None,
    as_json: bool,
) -> None:
    """Certify FOLDER. Interrupted at any moment, the same command resumes and pays for nothing twice."""
    from smoothing_proxy.assembly import make_ledger
    from smoothing_proxy.runs.reference import read_reference

    names = _names(folder, limit)
    reference = read_reference(labels_path, names, column=label_column) if labels_path else None
    figures = _plan(config, len(names), reference_asked=reference is None)
    click.echo(_plan_lines(figures), err=True)
    if insecure_seed is not None:
        click.echo(
            "warning: --insecure-seed: these certificates hold only against those who do not know it", err=True
        )
    if figures["usd"] > 0 and not yes:
        _confirm(figures)
    with make_ledger(out, paid=figures["usd"] > 0) as ledger:
        folder_run = _folder_run(config, ledger, folder, names, reference, insecure_seed)
        folder_run.begin()
        fault = _drive(folder_run)
        summary = _report(ledger, out, fault)
    click.echo(json.dumps(summary, indent=2) if as_json else summary_lines(summary, out))
    _exit(fault, summary, out)


def _folder_run(
    config: ProxyConfig,
    ledger: Ledger,
    folder: Path,
    names: Sequence[str],
    reference: Mapping[str, str] | None,
    insecure_seed: int | None,
) -> FolderRun:
    from smoothing_proxy.assembly import make_classifier, make_run

    classifier = make_classifier(config)
    root = folder if folder.is_dir() else folder.parent
    return make_run(
        config, classifier, ledger, folder=root, names=names, reference=reference, insecure_seed=insecure_seed
    )


def _drive(folder_run: FolderRun) -> Exception | None:
    """Run with a progress bar until done or stopped; returns what stopped it, if anything did."""
    import anyio

    from smoothing_proxy.cli.progress import RunProgress

    with RunProgress(folder_run.classifier.backend.price_usd) as progress:
        return anyio.run(_until_stopped, folder_run, progress)


async def _until_stopped(folder_run: FolderRun, progress: RunProgress) -> Exception | None:
    import anyio

    from smoothing_proxy.smoothing.halt import Halt, Interrupted

    halt = Halt()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_halt_on_signal, halt, progress, tasks.cancel_scope)
        try:
            await folder_run.run(progress, halt)
        except (SmoothingProxyError, Interrupted) as fault:
            return fault
        finally:
            await folder_run.classifier.backend.aclose()
            tasks.cancel_scope.cancel()
    return Interrupted() if halt.requested else None


async def _halt_on_signal(halt: Halt, progress: RunProgress, scope: CancelScope) -> None:
    """The first signal stops issuing and lets draws in flight settle; the second gives up on them too."""
    import anyio

    from smoothing_proxy.smoothing.halt import Interrupted

    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            if halt.requested:
                scope.cancel()
                return
            halt.request(Interrupted())
            progress.say("stopping: what is in flight is being settled; once more gives up on it")


def _report(ledger: Ledger, out: Path, fault: Exception | None) -> dict[str, Any]:
    """Write the run's files, also after a fault: what was proven before it is kept."""
    from smoothing_proxy.runs.report import write_report

    try:
        summary: dict[str, Any] = write_report(ledger, out)
    except OSError as error:
        raise fault or LedgerError(f"{out}: cannot write the report: {error}; the ledger is complete") from error
    return summary


def _exit(fault: Exception | None, summary: Mapping[str, Any], out: Path) -> None:
    from smoothing_proxy.smoothing.halt import Interrupted

    if isinstance(fault, Interrupted):
        click.echo(
            f"interrupted; the same command resumes, --out {out}: settled queries are not asked again", err=True
        )
        sys.exit(130)
    if fault is not None:
        raise fault
    if summary["pictures"]["unreadable"]:
        sys.exit(2)
    if summary["draws"]["failed"] and not summary["cost"]["queries"]:
        sys.exit(3)


def _names(folder: Path, limit: int | None) -> list[str]:
    """The pictures to certify, relative to the folder; FOLDER may be a single picture."""
    from smoothing_proxy.images.pixels import picture_files

    if folder.is_file():
        return [folder.name]
    return [path.relative_to(folder).as_posix() for path in picture_files(folder)][:limit]


def _plan(config: ProxyConfig, pictures: int, *, reference_asked: bool) -> dict[str, Any]:
    from smoothing_proxy.assembly import make_classifier
    from smoothing_proxy.smoothing.drive import count_draws
    from smoothing_proxy.smoothing.plan import certify_plan
    from smoothing_proxy.stats.planning import largest_radius

    smoothing = config.smoothing
    classifier = make_classifier(config)
    classifier.check_sigma()
    queries = pictures * (count_draws(certify_plan(smoothing)) + int(reference_asked))
    return {
        "pictures": pictures,
        "queries": queries,
        "usd": queries * classifier.backend.price_usd,
        "largest_radius": largest_radius(smoothing.n, smoothing.alpha, smoothing.sigma),
        "alpha": smoothing.alpha,
        "backend": classifier.backend.name,
        "denoiser": classifier.denoiser.name,
    }


def _plan_lines(figures: Mapping[str, Any]) -> str:
    return (
        f"{figures['pictures']} pictures, {figures['denoiser']} before {figures['backend']}: "
        f"{figures['queries']:,} queries, ${figures['usd']:,.2f}; "
        f"can prove up to l2 radius {figures['largest_radius']:.4f}, "
        f"each false with probability <= {figures['alpha']:g}"
    )


def _confirm(figures: Mapping[str, Any]) -> None:
    """Ask before money is spent. Raises ConfigError where nobody can be asked."""
    if not sys.stdin.isatty():
        raise ConfigError(f"this run costs ${figures['usd']:,.2f}: say --yes to spend it without being asked")
    click.confirm(f"Spend up to ${figures['usd']:,.2f}?", abort=True, err=True)
