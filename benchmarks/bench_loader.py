"""How many times as fast as a training step takes pictures the loader hands them out.

    python benchmarks/bench_loader.py [--source FOLDER] [--device cuda] [--out benchmarks/results/loader.json]

The network and the crops are those of the shipped denoisers. Both take turns in one run, and the ratio is the
median over the rounds, so that it holds although a shared machine's speed does not. Beside it what the first run
pays: pictures read from JPEG files, and from the cache that it leaves.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from denoiser_training.batches import Batches, Place, centre_crops
from denoiser_training.config import Config, load_config
from denoiser_training.data import load_pictures
from denoiser_training.descent import Descent
from denoiser_training.evaluate import Judges
from denoiser_training.machine import device_named, hardware
from denoiser_training.objectives import WeightedSum
from denoiser_training.pictures import Pictures
from denoiser_training.placement import placed
from denoiser_training.step import DenoiserTask
from denoiser_training.team import ALONE
from smoothing_proxy.denoisers import architectures

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ("natural", "cifar10-wide")
SIZES = {"natural": (256, 341), "cifar10-wide": (32, 32)}
ROUNDS = 7


@dataclass(frozen=True)
class Contest:
    """What takes turns: the batches of a configuration's first phase, and a step that trains on one of them."""

    batches: Batches
    task: DenoiserTask
    descent: Descent
    lr: float

    @classmethod
    def of(cls, config: Config, pictures: Pictures, device: torch.device) -> Contest:
        """The first phase of `config`, on these pictures, from random weights."""
        phase, data, optimiser = config.phases[0], config.data, config.optimiser
        network = architectures.build(config.denoiser.architecture, config.denoiser.options).to(device)
        if optimiser.channels_last:
            network = network.to(memory_format=torch.channels_last)
        batches = Batches(
            pictures=placed(pictures, device),
            batch=phase.batch or optimiser.batch,
            crop_px=phase.crop_px or data.crop_px,
            pad_px=data.pad_px,
            flip=data.flip,
            seed=config.seed,
        )
        judges = Judges(centre_crops(pictures.evenly(1), data.crop_px), None, 0, [], 1, 1, config.seed)
        task = DenoiserTask(
            network=network,
            batches=[batches],
            objectives=[WeightedSum.of(phase.objective)],
            surrogates=[],
            per_step=1,
            noise=config.noise,
            judges=judges,
            sigmas=config.evaluate.sigmas,
            best="psnr",
            channels_last=optimiser.channels_last,
            seed=config.seed,
        )
        return cls(batches, task, Descent(network, optimiser, ALONE, compiled=False), phase.lr or optimiser.lr)

    def load(self, step: int) -> None:
        """One step's crops and labels."""
        self.batches.at(Place(0, step))

    def train(self, step: int) -> None:
        """One step of training, its crops included."""
        place = Place(0, step)
        self.descent.step(lambda network: self.task.losses(network, place, slice(None)), self.lr)


def pictures_per_second(step: Callable[[int], None], batch: int, seconds: float, device: torch.device) -> float:
    """Over at least `seconds`, the device's work included."""
    began, steps = time.perf_counter(), 0
    while steps == 0 or time.perf_counter() - began < seconds:
        step(steps)
        steps += 1
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return steps * batch / (time.perf_counter() - began)


def measured(contest: Contest, device: torch.device, rounds: int, seconds: float) -> dict[str, float]:
    """Pictures per second of both, and how many times as fast the loader is; medians over the rounds."""
    batch, pairs = contest.batches.batch, []
    contest.train(0)  # what is made once
    for _ in range(rounds):
        loaded = pictures_per_second(contest.load, batch, seconds, device)
        pairs.append((loaded, pictures_per_second(contest.train, batch, seconds, device)))
    return {
        "loader_pictures_per_s": round(statistics.median(loaded for loaded, _ in pairs), 1),
        "training_pictures_per_s": round(statistics.median(trained for _, trained in pairs), 1),
        "times_training": round(statistics.median(loaded / trained for loaded, trained in pairs), 1),
    }


def random_files(folder: Path, height: int, width: int, count: int) -> Path:
    """So many smooth random JPEG files."""
    random = np.random.default_rng(0)
    for number in range(count):
        small = Image.fromarray(random.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        small.resize((width, height), Image.Resampling.BICUBIC).save(folder / f"{number:04d}.jpg", quality=90)
    return folder


def read_rates(config: Config, source: str, cache: Path) -> tuple[Pictures, dict[str, float]]:
    """The pictures; how many a second are read from their files, and then from the cache."""
    update = {"source": source, "cache": str(cache), "test_every": 0, "limit": 0}
    data = config.data.model_copy(update=update)
    rates = {}
    for kind in ("files", "cache"):
        began = time.perf_counter()
        pictures = load_pictures(data)
        rates[f"{kind}_pictures_per_s"] = round(len(pictures) / (time.perf_counter() - began), 1)
    return pictures, rates


def main() -> None:
    """Measure, write the JSON, print it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--source", help="real pictures, as data.source has them; without it, smooth random ones")
    parser.add_argument("--count", type=int, default=300, help="of the random ones")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "loader.json")
    options = parser.parse_args()
    device, results = device_named(options.device), {}
    for name in CONFIGS:
        config = load_config(ROOT / "configs" / "training" / f"{name}.toml")
        with tempfile.TemporaryDirectory() as folder:
            files, cache = Path(folder) / "files", Path(folder) / "cache"
            files.mkdir()
            source = options.source or str(random_files(files, *SIZES[name], options.count))
            pictures, rates = read_rates(config, source, cache)
            results[name] = {**measured(Contest.of(config, pictures, device), device, ROUNDS, 1.0), **rates}
            del pictures
        print(name, json.dumps(results[name]))
    report: dict[str, Any] = {
        "what": f"first phase of each configuration; medians of {ROUNDS} rounds",
        "pictures": Path(options.source).name if options.source else f"{options.count} smooth random JPEG files",
        "machine": {"hardware": hardware(device), "cores": os.cpu_count(), "system": platform.system()},
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in ("torch", "numpy", "pillow")},
        "results": results,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
