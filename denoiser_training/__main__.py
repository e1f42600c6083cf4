"""`python -m denoiser_training CONFIG [--out DIR] [--set KEY=VALUE ...]`: train, or resume, and export."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from denoiser_training.config import load_config
from smoothing_proxy.errors import ConfigError, DenoiserError, ImageError, SmoothingProxyError

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when the card is written, 2 for bad input, 1 when training failed, 130 when it was interrupted."""
    options = _parser().parse_args(arguments)
    console = Console(soft_wrap=True)
    try:
        return _run(options.config, options.out, options.set, console)
    except SmoothingProxyError as error:
        Console(stderr=True, soft_wrap=True).print(f"error: {error}", highlight=False, markup=False)
        return 2 if isinstance(error, ConfigError | DenoiserError | ImageError) else 1


def _run(path: Path, out: Path | None, overrides: Sequence[str], console: Console) -> int:
    config = load_config(path, overrides)
    folder = out or Path("runs") / "training" / config.name
    import torch

    from denoiser_training.train import train

    if config.runtime.threads:
        torch.set_num_threads(config.runtime.threads)
    card = train(config, folder, console)
    if card is None:
        console.print(f"Stopped; {folder} is saved. The same command goes on from there.", highlight=False)
        return 130
    console.print(f"{card}", highlight=False)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m denoiser_training", description="Train a denoiser, or resume."
    )
    parser.add_argument("config", type=Path, help="a TOML file such as configs/training/digits.toml")
    parser.add_argument("--out", type=Path, help="folder of the run; runs/training/NAME by default")
    parser.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="extend",
        nargs="+",
        default=[],
        help="override by dotted name: optimiser.lr=1e-3 phases.0.steps=100",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
