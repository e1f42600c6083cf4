"""What the shipped denoisers prove in front of classifiers that took no part in their training.

    python benchmarks/certify_shipped.py cifar10 --targets resnet56 --pictures 500
    python benchmarks/certify_shipped.py natural --sigma 0.25
    python benchmarks/certify_shipped.py speed

cifar10: CIFAR-10 test JPEGs, evenly spread, correct by their label; a ladder of target radii with at most --n
draws each, or the procedure of Cohen et al. with --method fixed. natural: the hundred photographs that no training
saw, in front of an untouched 8-bit MobileNetV2, correct where its own clean answer is repeated; n0 = 20, n = 100
and fixed. Finished pictures are kept under --out. Writes benchmarks/results/shipped.json.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import re
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from filelock import FileLock
from rich.progress import track

from denoiser_training.batches import to_unit
from denoiser_training.certify import answers
from denoiser_training.config import SurrogateSettings
from denoiser_training.data import load_pictures
from denoiser_training.data_settings import DataSettings
from denoiser_training.surrogates import Surrogate, load_surrogate
from smoothing_proxy import Certificate, SmoothedClassifier, Smoothing, backend, denoiser
from smoothing_proxy.backends.local.torch_module import weights_sha256
from smoothing_proxy.denoisers.base import Denoiser
from smoothing_proxy.images.codec import quantise
from smoothing_proxy.images.noise import new_entropy, noisy_batch, pixels_to_grid
from smoothing_proxy.runs.manifest import software_versions
from smoothing_proxy.smoothing.drive import replay
from smoothing_proxy.smoothing.plan import certify_plan
from smoothing_proxy.stats.curves import Judged, abstention_rate, certified_accuracy
from smoothing_proxy.types import Draws, Votes

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "shipped.json"
DOCS = ROOT / "docs" / "denoisers.md"
SHARED = Path(os.environ.get("SMOOTHING_PROXY_SHARED_DATA", ROOT.parent / "shared" / "data"))
ALPHA = 0.001
CIFAR_RADII = (0.0, 0.1, 0.25, 0.5, 0.75)
PHOTO_RADII = (0.0, 0.1, 0.2, 0.3)
PHOTO_SIZE = "shorter=256,crop=224"

Picture = npt.NDArray[np.uint8] | Path


@dataclass(frozen=True)
class Case:
    """One row. pictures: name -> (picture, its right label or None for the classifier's own clean answer).

    certify: a picture to its certificate; classify: to the classifier's own clean answer.
    """

    title: str
    classifier: str
    certify: Callable[[Any], Certificate]
    classify: Callable[[Any], str | None]
    denoiser: str
    smoothing: Smoothing
    radii: Sequence[float]
    pictures: Mapping[str, tuple[Picture, str | None]]

    def rows_in(self, folder: Path) -> Path:
        """Where its finished pictures are kept: rows of other settings, weights or pictures are in other files."""
        question = [self.title, repr(self.smoothing), denoiser(self.denoiser).fingerprint, self.classifier]
        digest = hashlib.sha256(json.dumps([*question, sorted(self.pictures)]).encode()).hexdigest()
        return folder / f"{re.sub('[^A-Za-z0-9.-]+', '_', self.title)}-{digest[:12]}.jsonl"


def cifar_pictures(count: int) -> dict[str, tuple[Picture, str | None]]:
    """Evenly spread over the test pictures in name order, with the index of their class."""
    data = DataSettings(source=str(SHARED / "cifar10-jpeg" / "test.zip"), license="see there", crop_px=32)
    pictures = load_pictures(data).evenly(count)
    if pictures.labels is None:
        raise SystemExit(f"{data.source}: no class folders")
    found: dict[str, tuple[Picture, str | None]] = {}
    for i, label in enumerate(pictures.labels.tolist()):
        found[f"{i:04d}"] = (pictures.pixels[i].permute(1, 2, 0).contiguous().numpy(), str(label))
    return found


def cifar_target(name: str) -> Surrogate:
    """A network of the shared data by its name, or a classifier's card by its path."""
    if name.endswith(".json"):
        settings = SurrogateSettings(name=Path(name).stem, network="card", weights=Path(name))
    else:
        weights = SHARED / "cifar10-classifiers" / f"{name}.safetensors"
        settings = SurrogateSettings(name=name, network="cifar-resnet", weights=weights)
    return load_surrogate(settings)


@dataclass
class Stream:
    """One picture's draws as the sampler makes them (exact noise, denoiser, eight bits), in whole batches.

    A plan takes of them in their order what it asks for; the rest of a batch is never looked at.
    """

    network: Surrogate
    denoiser: Denoiser
    sigma: float
    pixels: npt.NDArray[np.uint8]
    batch: int = 64
    entropy: bytes = field(default_factory=new_entropy)
    labels: list[int] = field(default_factory=list)
    told: int = 0

    def __call__(self, request: Draws) -> Votes:
        """The next votes."""
        end = self.told + request.answered
        while len(self.labels) < end:
            numbers = range(len(self.labels), len(self.labels) + self.batch)
            noisy = noisy_batch(pixels_to_grid(self.pixels), self.entropy, numbers, self.sigma)
            copies = torch.from_numpy(quantise(self.denoiser.denoise(noisy, self.sigma)))
            self.labels += answers(self.network, to_unit(copies.permute(0, 3, 1, 2))).tolist()
        given, self.told = self.labels[self.told : end], end
        return Votes.tally([None if label < 0 else str(label) for label in given])


def streamed(network: Surrogate, one: Denoiser, smoothing: Smoothing) -> Callable[[Any], Certificate]:
    """CERTIFY by the plan that `smoothing` names."""

    def certify(picture: npt.NDArray[np.uint8]) -> Certificate:
        stream = Stream(network, one, smoothing.sigma, picture)
        certificate = replay(certify_plan(smoothing), stream)
        return replace(certificate, cost=replace(certificate.cost, queries=stream.told))

    return certify


def photographs(count: int) -> dict[str, tuple[Picture, str | None]]:
    """Every tenth photograph in name order: those that `data.test_every = 10` keeps out of the training."""
    held_out = sorted((SHARED / "imagenet-sample").glob("*.JPEG"))[::10]
    return {path.name: (path, None) for path in held_out[:count]}


def photo_client(smoothing: Smoothing, name: str) -> SmoothedClassifier:
    """The library, as a user has it, in front of the 8-bit MobileNetV2."""
    folder = SHARED / "blackbox"
    labels = str(folder / "imagenet_labels.txt")
    target = backend(f"local:{folder / 'mobilenet_v2_1.0_224_quant.tflite'}", labels=labels)
    return SmoothedClassifier(target, smoothing=smoothing, denoiser=name)


def measured(case: Case, kept: Path) -> dict[str, Any]:
    """The row's figures; one line of `kept` per finished picture."""
    kept.parent.mkdir(parents=True, exist_ok=True)
    lines = kept.read_text(encoding="utf-8").splitlines() if kept.exists() else []
    rows = {row["picture"]: row for row in map(json.loads, lines)}
    missing = [name for name in case.pictures if name not in rows]
    with kept.open("a", encoding="utf-8") as stream:
        for name in track(missing, case.title):
            picture, right = case.pictures[name]
            start = time.perf_counter()
            certificate = case.certify(picture)
            seconds = time.perf_counter() - start
            right = case.classify(picture) if right is None else right
            rows[name] = _row(name, certificate, right, seconds)
            stream.write(json.dumps(rows[name]) + "\n")
            stream.flush()
    return _figures(case, [rows[name] for name in case.pictures])


def _row(name: str, certificate: Certificate, right: str | None, seconds: float) -> dict[str, Any]:
    return {
        "picture": name,
        "label": certificate.label,
        "right": right,
        "radius": certificate.radius,
        "queries": certificate.cost.queries,
        "votes": certificate.votes.of(right) if right else 0,
        "n": certificate.votes.n,
        "seconds": round(seconds, 3),
    }


def _figures(case: Case, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    judged = [
        Judged(row["label"] is not None and row["label"] == row["right"], row["radius"], row["label"] is None)
        for row in rows
    ]
    return {
        "denoiser": Path(case.denoiser).stem,
        "fingerprint": denoiser(case.denoiser).fingerprint,
        "classifier": case.classifier,
        "pictures": len(rows),
        "smoothing": {
            key: getattr(case.smoothing, key)
            for key in ("sigma", "n0", "n", "alpha", "method", "target_radii", "max_queries", "working_size")
        },
        "certified": {
            f"{point.radius:g}": [
                round(100 * share, 1) for share in (point.accuracy.value, point.accuracy.low, point.accuracy.high)
            ]
            for point in certified_accuracy(_no_further(judged), case.radii)
        },
        "abstained": round(100 * abstention_rate(_no_further(judged)).value, 1),
        "queries a picture": round(statistics.mean(row["queries"] for row in rows), 1),
        "seconds": round(sum(row["seconds"] for row in rows), 1),
    }


def _no_further(judged: Sequence[Judged]) -> Sequence[Judged]:
    """An abstention counts as wrong and has no radius."""
    return [Judged(correct=False, radius=0.0, abstained=True) if one.abstained else one for one in judged]


def cifar_cases(arguments: argparse.Namespace) -> Iterator[Case]:
    """Each denoiser in front of each target."""
    pictures = cifar_pictures(arguments.pictures)
    if arguments.method == "fixed":
        smoothing = Smoothing(sigma=arguments.sigma, n0=100, n=arguments.n, alpha=ALPHA, method="fixed")
    else:
        smoothing = Smoothing(
            sigma=arguments.sigma,
            alpha=ALPHA,
            target_radii=tuple(arguments.radii),
            max_queries=arguments.n,
        )
    for target in arguments.targets:
        for name in arguments.denoisers or ["cifar10"]:
            how = f"sigma {arguments.sigma:g} {arguments.method} n {arguments.n}"
            title = f"cifar10 {Path(name).stem} {Path(target).stem} {how}, {arguments.pictures} pictures"
            network, one = cifar_target(target), denoiser(name)
            certify = streamed(network, one, smoothing)
            known = f"{network.name} {weights_sha256(network)[:16]}"
            radii = smoothing.ladder or CIFAR_RADII
            yield Case(title, known, certify, lambda _: None, name, smoothing, radii, pictures)


def photo_cases(arguments: argparse.Namespace) -> Iterator[Case]:
    """Each denoiser in front of the MobileNetV2."""
    smoothing = Smoothing(
        sigma=arguments.sigma, n0=20, n=100, alpha=ALPHA, method="fixed", working_size=PHOTO_SIZE
    )
    for name in arguments.denoisers or ["natural"]:
        title = f"natural {Path(name).stem} mobilenet_v2 sigma {arguments.sigma:g} n 100"
        client, pictures = photo_client(smoothing, name), photographs(arguments.pictures)
        yield Case(title, "mobilenet_v2", client.certify, client.classify, name, smoothing, PHOTO_RADII, pictures)
        client.close()


def speeds(arguments: argparse.Namespace) -> dict[str, Any]:
    """Pictures a second through each shipped denoiser, the median of five batches, on this machine."""
    found = {}
    for name, side, batch in (("cifar10", 32, 64), ("natural", 224, 8), ("natural", 128, 16)):
        for spec in (name, f"{name},device=cuda") if torch.cuda.is_available() else (f"{name},device=cpu",):
            one = denoiser(spec)
            copies = np.random.default_rng(0).random((batch, side, side, 3), np.float32)
            one.denoise(copies, 0.25)
            taken = []
            for _ in range(5):
                start = time.perf_counter()
                one.denoise(copies, 0.25)
                taken.append(time.perf_counter() - start)
            found[f"{spec} {side}x{side}, {torch.get_num_threads()} threads"] = batch / statistics.median(taken)
    return {title: round(speed, 1) for title, speed in found.items()}


def keep(title: str, figures: Mapping[str, Any]) -> None:
    """Into the results, beside those of other rows."""
    machine = {"cpus": os.cpu_count(), "machine": platform.machine(), "versions": software_versions()}
    with FileLock(f"{RESULTS}.lock"):
        known = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
        known[title] = {**figures, "on": machine}
        RESULTS.write_text(json.dumps(known, indent=2) + "\n", encoding="utf-8")
        write_table(known)
    print(title, json.dumps(figures, indent=2))


def write_table(known: Mapping[str, Any]) -> None:
    """The rows with certified accuracies, into docs/denoisers.md."""
    lines = [
        "| denoiser | classifier | sigma | pictures | draws each | certified at l2 radius |",
        "|---" * 6 + "|",
    ]
    for title, row in known.items():
        if "certified" not in row:
            continue
        asked = row["smoothing"]
        most = f"at most {asked['max_queries']:,}" if asked["target_radii"] else f"{asked['n0']} + {asked['n']:,}"
        points = row["certified"].items()
        shares = ", ".join(f"{share[0]:g} ({share[1]:g}-{share[2]:g}) at {r}" for r, share in points)
        draws = f"{row['queries a picture']:g} ({most})" if asked["target_radii"] else most
        cells = [
            row["denoiser"],
            title.split()[2],
            f"{asked['sigma']:g}",
            row["pictures"],
            draws,
            shares,
        ]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    text = DOCS.read_text(encoding="utf-8")
    start, end = text.index("<!-- shipped -->"), text.index("<!-- /shipped -->")
    DOCS.write_text(text[:start] + "<!-- shipped -->\n" + "\n".join(lines) + "\n" + text[end:], encoding="utf-8")


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("what", choices=["cifar10", "natural", "speed"])
    parser.add_argument("--targets", nargs="+", default=["resnet56"], help="names in the shared data, or cards")
    parser.add_argument("--denoisers", nargs="+", help="instead of the shipped one")
    parser.add_argument("--pictures", type=int, default=500)
    parser.add_argument("--sigma", type=float, default=0.25)
    parser.add_argument("--radii", type=float, nargs="+", default=list(CIFAR_RADII), help="the ladder of cifar10")
    parser.add_argument("--method", choices=["target", "fixed"], default="target")
    parser.add_argument("--n", type=int, default=10_000, help="the most draws of a picture, of cifar10")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "shipped")
    arguments = parser.parse_args()
    if arguments.what == "speed":
        keep("speed", speeds(arguments))
        return
    cases = cifar_cases(arguments) if arguments.what == "cifar10" else photo_cases(arguments)
    for case in cases:
        keep(case.title, measured(case, case.rows_in(arguments.out)))


if __name__ == "__main__":
    main()
