"""`demo`: the whole system on this machine, with no key and no download."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

__all__ = ["demo"]

RATIOS = (0.0, 0.5, 1.0, 1.5)
"""Target radii, in units of sigma."""

SHOWN_RADII = (0.0, 0.25, 0.5, 0.75)


@click.command()
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("demo-run"),
    show_default=True,
    help="The demo's folder.",
)
@click.option("--digits", type=click.IntRange(1, 360), default=40, show_default=True, help="How many test digits.")
@click.option("--sigma", type=float, default=0.5, show_default=True, help="Noise, on the [0, 1] pixel scale.")
@click.option("--max-queries", type=int, default=500, show_default=True, help="For one digit, at most.")
def demo(out: Path, digits: int, sigma: float, max_queries: int) -> None:
    """Certify handwritten digits through a classifier in the cloud that nobody can differentiate.

    It is a support vector classifier behind a simulated AWS Rekognition, in a process of its own, asked as boto3
    asks. First with noise alone, then with the denoiser that was trained for it. Everything lands in --out.
    """
    from smoothing_proxy.cli.progress import RunProgress
    from smoothing_proxy.demo.show import Demo
    from smoothing_proxy.demo.vendor import vendor
    from smoothing_proxy.smoothing.settings import Smoothing

    smoothing = Smoothing(sigma=sigma, target_radii=tuple(r * sigma for r in RATIOS), max_queries=max_queries)
    summaries = {}
    with vendor() as there:
        stage = Demo(out, digits, smoothing, there)
        labels = stage.export()
        clean = stage.clean_accuracy(labels)
        for name in ("identity", "digits"):
            with RunProgress(price_usd=stage.price_usd) as progress:
                progress.say(f"{digits} digits through {there.url}, denoiser {name}, sigma {sigma:g}:")
                summaries[name] = stage.certify(name, labels, progress)
        billed = there.till()["billed"]
    click.echo(_table(clean, digits, summaries))
    most = len(summaries) * digits * max_queries
    click.echo(f"the vendor billed {billed:,} queries this time; {max_queries:,} for each proof would be {most:,}")
    click.echo(f"pictures: {out / 'digits.png'}; every draw, certificate and curve: {out}/identity, {out}/digits")


def _table(clean: float, digits: int, summaries: Mapping[str, Mapping[str, Any]]) -> str:
    names = {"identity": "noise, no denoiser", "digits": "noise, denoised"}
    head = ["", *(f"r>={radius:g}" for radius in SHOWN_RADII), "abstained", "queries"]
    raw = ["no defence, clean", f"{clean:.0%}", *["no proof"] * (len(SHOWN_RADII) - 1), "-", f"{digits:,}"]
    rows = [head, raw, *(_row(names[name], summary) for name, summary in summaries.items())]
    title = "share of digits with the right label, proven against every change of l2 norm below r ([0, 1] pixels):"
    return "\n".join([title, *(_line(row) for row in rows)])


def _row(title: str, summary: Mapping[str, Any]) -> list[str]:
    accuracy = {point["radius"]: f"{point['share']:.0%}" for point in summary["certified_accuracy"]}
    pictures = summary["pictures"]
    return [
        title,
        *(accuracy.get(radius, "-") for radius in SHOWN_RADII),
        f"{pictures['abstained'] / pictures['decided']:.0%}",
        f"{summary['cost']['queries']:,}",
    ]


def _line(cells: Sequence[str]) -> str:
    return f"{cells[0]:<20}" + "".join(f"{cell:>10}" for cell in cells[1:])
