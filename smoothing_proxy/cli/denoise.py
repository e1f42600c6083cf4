"""`denoise`: what the classifier will be shown, side by side with what was sent."""

from __future__ import annotations

from pathlib import Path

import click

from smoothing_proxy.errors import ConfigError

__all__ = ["denoise"]

GAP_PX = 6


@click.command()
@click.argument("image", type=click.Path(path_type=Path))
@click.option("--sigma", type=float, required=True, help="Noise, on the [0, 1] pixel scale.")
@click.option("--denoiser", help="As for `run`; by default the shipped one that fits, else median:3.")
@click.option("--working-size", default="original", show_default=True, help="As for `run`.")
@click.option("--out", type=click.Path(path_type=Path), help="The PNG file; by default IMAGE.denoised.png here.")
def denoise(image: Path, sigma: float, denoiser: str | None, working_size: str, out: Path | None) -> None:
    """Write IMAGE clean | noisy | denoised, side by side, as one PNG file."""
    import numpy as np

    from smoothing_proxy.denoisers.registry import denoiser as denoiser_named
    from smoothing_proxy.denoisers.shipped import fitting
    from smoothing_proxy.images import codec, noise
    from smoothing_proxy.smoothing.picture import canonical, prepare

    picture = prepare(canonical(image), working_size)
    removes = denoiser_named(denoiser or fitting(sigma, *picture.working_size) or "median:3")
    removes.check(sigma, *picture.working_size)
    noisy = noise.noisy_batch(picture.grid, picture.entropy, [0], sigma)
    clean = picture.grid[np.newaxis].astype(np.float32) / np.float32(noise.GRID_SCALE)
    panels = codec.quantise(np.concatenate([clean, noisy, removes.denoise(noisy, sigma)]))
    gap = np.full((panels.shape[1], GAP_PX, 3), 255, np.uint8)
    strip = np.concatenate([panels[0], gap, panels[1], gap, panels[2]], axis=1)
    out = out or Path(f"{image.stem}.denoised.png")
    try:
        out.write_bytes(codec.encode(strip, codec.Encoding("png")).data)
    except OSError as error:
        raise ConfigError(f"--out {out}: cannot be written: {error.strerror}") from error
    click.echo(f"{out}: clean | noisy, sigma {sigma:g} | {removes.name}")
