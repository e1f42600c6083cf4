"""`tune-filter`: which wavelet, Gaussian or median filter leaves least of the noise on the user's own pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from smoothing_proxy.errors import ConfigError

if TYPE_CHECKING:
    from smoothing_proxy.denoisers.tuning import FilterScore, Noisy
    from smoothing_proxy.images.pixels import Pixels

__all__ = ["tune_filter"]

SHOWN = 6
"""Pictures in the picture."""


@click.command("tune-filter")
@click.argument("pictures", type=click.Path(path_type=Path))
@click.option("--sigma", type=float, required=True, help="Noise, on the [0, 1] pixel scale.")
@click.option(
    "--filter",
    "filters",
    multiple=True,
    help="wavelet, gaussian or median (by default all three), or one such as wavelet:sym4,level=2; repeatable.",
)
@click.option(
    "--count", type=click.IntRange(0), default=24, show_default=True, help="Pictures, evenly spread; 0: all."
)
@click.option("--working-size", default="original", show_default=True, help="As for `run`.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the noise.")
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("filters"), show_default=True, help="A folder."
)
def tune_filter(
    pictures: Path, sigma: float, filters: tuple[str, ...], count: int, working_size: str, seed: int, out: Path
) -> None:
    """Try filters on noisy copies of PICTURES (a folder or a zip), by PSNR and MSE.

    Writes sweep.csv, sweep.png and pictures.png into --out, and prints the best of each family. It needs no
    classifier: what a filter does to answers is measured by `run` and by `study`.
    """
    from smoothing_proxy.denoisers import tuning
    from smoothing_proxy.images.albums import open_album

    families = [name for name in filters if name in tuning.FAMILIES] if filters else list(tuning.FAMILIES)
    specs = [*tuning.candidates(families, sigma), *(name for name in filters if name not in tuning.FAMILIES)]
    clean = [_at(working_size, picture) for picture in open_album(pictures).evenly(count).read()]
    noisy = tuning.noisy_copies(clean, sigma, seed)
    scores = tuning.sweep(specs, clean, noisy, sigma)
    try:
        out.mkdir(parents=True, exist_ok=True)
        _write_csv(scores, out / "sweep.csv")
        _draw(scores, clean, noisy, sigma, out)
    except OSError as error:
        raise ConfigError(f"{out}: cannot be written: {error}") from error
    click.echo(_table(scores))
    click.echo(f"{len(clean)} pictures, sigma {sigma:g}; {out}: sweep.csv, sweep.png, pictures.png")


def _at(working_size: str, picture: Pixels) -> Pixels:
    """At the working size, in bytes."""
    from smoothing_proxy.images.codec import quantise
    from smoothing_proxy.images.geometry import WorkingSize, resize_map

    resize = resize_map(*picture.shape[:2], WorkingSize.parse(working_size))
    return picture if resize.is_identity else quantise(resize.apply(picture)[None].astype("float32"))[0]


def _table(scores: Sequence[FilterScore]) -> str:
    """The best of each family, best first."""
    from smoothing_proxy.denoisers.tuning import best_of_each

    best = sorted(best_of_each(scores), key=lambda score: -score.psnr)
    width = max(len(score.spec) for score in best)
    lines = [f"{score.spec:<{width}}  {score.psnr:6.2f} dB  {score.mse:.6f}" for score in best]
    return "\n".join([f"{'best of each family':<{width}}  {'PSNR':>9}  MSE", *lines])


def _write_csv(scores: Sequence[FilterScore], path: Path) -> None:
    import csv

    with path.open("w", encoding="utf-8", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(("filter", "family", "psnr_db", "mse"))
        rows.writerows((score.spec, score.family, f"{score.psnr:.4f}", f"{score.mse:.8f}") for score in scores)


def _draw(
    scores: Sequence[FilterScore], clean: Sequence[Pixels], noisy: Sequence[Noisy], sigma: float, out: Path
) -> None:
    from smoothing_proxy.denoisers import tuning, tuning_figure
    from smoothing_proxy.denoisers.registry import denoiser

    columns = {"clean": clean[:SHOWN]}
    for score in tuning.best_of_each(scores):
        name = "noisy" if score.family == "identity" else score.spec
        columns[f"{name}\n{score.psnr:.1f} dB"] = tuning.restored(denoiser(score.spec), noisy[:SHOWN], sigma)
    tuning_figure.draw_sweep(scores, out / "sweep.png", sigma=sigma, pictures=len(clean))
    tuning_figure.draw_pictures(columns, out / "pictures.png")
