"""`python -m denoiser_training CONFIG`: train a denoiser, or resume, and export; `... classifier CONFIG`: the same
for a classifier; `... evaluate CONFIG`: certify and compare.

All take `[--out DIR] [--set KEY=VALUE ...]`.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from denoiser_training.classifier_config import load_classifier_config
from denoiser_training.config import load_config
from denoiser_training.evaluate_config import load_evaluation
from smoothing_proxy.errors import ConfigError, DenoiserError, ImageError, SmoothingProxyError

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when the card or table is written, 2 for bad input, 1 when it failed, 130 when it was interrupted."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning threads would starve those that draw noise
    words = list(sys.argv[1:] if arguments is None else arguments)
    name = words.pop(0) if words and words[0] in COMMANDS else "train"
    options = _parser(name).parse_args(words)
    console = Console(soft_wrap=True, markup=False)  # a folder's name may look like it
    try:
        return COMMANDS[name].run(options.config, options.out, options.set, console)
    except SmoothingProxyError as error:
        Console(stderr=True, soft_wrap=True).print(f"error: {error}", highlight=False, markup=False)
        return 2 if isinstance(error, ConfigError | DenoiserError | ImageError) else 1
    except OSError as error:
        Console(stderr=True, soft_wrap=True).print(f"error: {error}", highlight=False, markup=False)
        return 1


@dataclass(frozen=True)
class _Command:
    """run: takes the config's path, --out, the overrides and the console; returns the exit status."""

    run: Callable[[Path, Path | None, Sequence[str], Console], int]
    description: str
    example: str
    out: str
    overrides: str


def _train(path: Path, out: Path | None, overrides: Sequence[str], console: Console) -> int:
    config = load_config(path, overrides)
    folder = out or Path("runs") / "training" / config.name
    import torch

    from denoiser_training.train import train

    if config.runtime.threads:
        torch.set_num_threads(config.runtime.threads)
    card = train(config, folder, console)
    if card is None:
        return _stopped(folder, console)
    console.print(f"{card}", highlight=False)
    return 0


def _classifier(path: Path, out: Path | None, overrides: Sequence[str], console: Console) -> int:
    config = load_classifier_config(path, overrides)
    folder = out or Path("runs") / "classifiers" / config.name
    import torch

    from denoiser_training.classifier_run import train_alone

    if config.runtime.threads:
        torch.set_num_threads(config.runtime.threads)
    card = train_alone(config, folder, console)
    if card is None:
        return _stopped(folder, console)
    console.print(f"{card}", highlight=False)
    return 0


def _evaluate(path: Path, out: Path | None, overrides: Sequence[str], console: Console) -> int:
    config = load_evaluation(path, overrides)
    folder = out or Path("runs") / "evaluation" / config.name
    import torch

    from denoiser_training.evaluation import evaluate

    if config.runtime.threads:
        torch.set_num_threads(config.runtime.threads)
    try:
        table = evaluate(config, folder, console)
    except KeyboardInterrupt:
        return _stopped(folder, console)
    console.print(f"{table}", highlight=False)
    return 0


def _stopped(folder: Path, console: Console) -> int:
    console.print(f"Stopped; {folder} is saved. The same command goes on from there.", highlight=False)
    return 130


COMMANDS = {
    "train": _Command(
        _train,
        "Train a denoiser, or resume. `classifier CONFIG` trains a classifier, `evaluate CONFIG` measures both.",
        "configs/training/digits.toml",
        "runs/training/NAME",
        "optimiser.lr=1e-3 phases.0.steps=100",
    ),
    "classifier": _Command(
        _classifier,
        "Train or fine-tune a classifier, or resume.",
        "configs/classifiers/cifar10-resnet56-ft.toml",
        "runs/classifiers/NAME",
        "training.steps=100 training.optimiser.lr=1e-3",
    ),
    "evaluate": _Command(
        _evaluate,
        "Certified accuracy of target classifiers behind denoisers, as a table; an interrupted one goes on.",
        "configs/evaluate/cifar10.toml",
        "runs/evaluation/NAME",
        "pictures=20 certify.n=1000",
    ),
}
"""The first word of the command line; without one of them it is "train"."""


def _parser(name: str) -> argparse.ArgumentParser:
    command = COMMANDS[name]
    prog = "python -m denoiser_training" + ("" if name == "train" else f" {name}")
    parser = argparse.ArgumentParser(prog=prog, description=command.description)
    parser.add_argument("config", type=Path, help=f"a TOML file such as {command.example}")
    parser.add_argument("--out", type=Path, help=f"folder of the results; {command.out} by default")
    parser.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="extend",
        nargs="+",
        default=[],
        help=f"override by dotted name: {command.overrides}",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
