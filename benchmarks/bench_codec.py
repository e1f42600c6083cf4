"""How fast copies are written: this project's PNG and JPEG against Pillow's and OpenCV's.

    python benchmarks/bench_codec.py [--pictures FOLDER] [--out benchmarks/results/codec.json]

One thread, and two threads to see who keeps the interpreter's lock. All encoders take turns in one run, and each
one's figure is the median over the rounds, so that the ratios hold although a shared machine's speed does not.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from smoothing_proxy.images.codec import Encoding, encode, quantise
from smoothing_proxy.images.geometry import WorkingSize, resize_map
from smoothing_proxy.images.noise import noisy_batch, to_grid
from smoothing_proxy.images.pixels import picture_files, read

Pixels = npt.NDArray[np.uint8]
Encoder = Callable[[Pixels], bytes]

SIZES = ("224x224", "480x640")
ROUNDS = 9
SIGMA = 0.25


def pillow(kind: str, **options: Any) -> Encoder:
    """Pillow's writer."""

    def write(pixels: Pixels) -> bytes:
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, kind, **options)
        return file.getvalue()

    return write


def ours(text: str) -> Encoder:
    """This project's writer."""
    encoding = Encoding.parse(text)
    return lambda pixels: encode(pixels, encoding).data


ENCODERS: dict[str, Encoder] = {
    "png, Pillow level 6": pillow("PNG"),
    "png, Pillow level 1": pillow("PNG", compress_level=1),
    "png, ours": ours("png"),
    "jpeg 95 4:4:4, Pillow": pillow("JPEG", quality=95, subsampling=0),
    "jpeg 95 4:4:4, ours": ours("jpeg:95"),
}
BASELINES = {"png": "png, Pillow level 6", "jpeg": "jpeg 95 4:4:4, Pillow"}


def copies(folder: Path | None, size: str) -> list[Pixels]:
    """Six noisy pictures after a Gaussian blur, as a denoiser would leave them."""
    random = np.random.default_rng(0)
    sources = (
        [read(file) for file in picture_files(folder)[:6]]
        if folder
        else [random.integers(0, 256, (15, 20, 3), dtype=np.uint8) for _ in range(6)]
    )
    denoised = []
    for number, pixels in enumerate(sources):
        image = resize_map(*pixels.shape[:2], WorkingSize.parse(size)).apply(pixels)
        noisy = noisy_batch(to_grid(image), bytes(16), [number], SIGMA)[0]
        denoised.append(np.asarray(cv2.GaussianBlur(noisy, (0, 0), 1.0), dtype=np.float32))
    return list(quantise(np.stack(denoised)))


def images_per_second(encoder: Encoder, pictures: list[Pixels], threads: int) -> float:
    """Each thread writes every picture once."""
    began = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(encoder, pictures * threads):
            pass
    return len(pictures) * threads / (time.perf_counter() - began)


def measure(pictures: list[Pixels]) -> dict[str, dict[str, float]]:
    """Speed, its ratio to the baseline in the same round, and size, of each encoder."""
    rates: dict[tuple[str, int], list[float]] = {(name, threads): [] for name in ENCODERS for threads in (1, 2)}
    for _ in range(ROUNDS):
        for name, threads in rates:
            rates[name, threads].append(images_per_second(ENCODERS[name], pictures, threads))
    rows = {}
    for name, encoder in ENCODERS.items():
        baseline = BASELINES[name.split()[0].rstrip(",")]
        one, two = (rates[name, threads] for threads in (1, 2))
        rows[name] = {
            "images_per_second": round(statistics.median(one), 1),
            "images_per_second_two_threads": round(statistics.median(two), 1),
            "times_baseline": round(
                statistics.median(a / b for a, b in zip(one, rates[baseline, 1], strict=True)), 2
            ),
            "kib": round(statistics.fmean(len(encoder(pixels)) for pixels in pictures) / 1024, 1),
        }
    return rows


def main() -> None:
    """Measure, write the JSON, print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pictures", type=Path, help="a folder of real pictures; without it, smooth random ones")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "codec.json")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    results = {size: measure(copies(options.pictures, size)) for size in SIZES}
    report = {
        "what": f"six pictures, noise of sigma {SIGMA}, then a Gaussian blur of 1 px; median of {ROUNDS} rounds",
        "pictures": options.pictures.name if options.pictures else "smooth random pictures",
        "machine": {"processor": processor(), "cores": os.cpu_count(), "system": platform.system()},
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in ("numpy", "pillow", "opencv-python-headless")},
        "baseline": BASELINES,
        "results": results,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    for size, rows in results.items():
        for name, row in rows.items():
            print(f"{size}  {name:26s} {json.dumps(row)}")


def processor() -> str:
    """The processor's name, where the system tells it."""
    lines = (
        Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    )
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())


if __name__ == "__main__":
    main()
