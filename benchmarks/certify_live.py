"""Photographs through a simulated vendor with a trained denoiser: what the vendor billed, and what was proven.

    python benchmarks/certify_live.py --pictures 100 --draws 100

The hundred photographs that no training saw, the shipped denoiser `natural`, and an untouched 8-bit MobileNetV2
behind the vendor's own wire format in another process, which counts what it bills. One run stops each picture as
soon as --radius is proven or hopeless, after --draws at the latest; the other one asks n0 = 20 and n = --draws, as
Cohen et al. do. Both through the command line. Writes benchmarks/results/live.json, and from it the table of
docs/queries.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from subprocess import DEVNULL, Popen, run
from typing import Any

from smoothing_proxy.runs.manifest import software_versions

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "live.json"
DOCS = ROOT / "docs" / "queries.md"
BEGIN, END = "<!-- live -->\n", "<!-- end live -->"
SHARED = Path(os.environ.get("SMOOTHING_PROXY_SHARED_DATA", ROOT.parent / "shared" / "data"))
CLI = [sys.executable, "-m", "smoothing_proxy"]
N0 = 20

SECRET = "simulator-secret"
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "simulator",
    "AWS_SECRET_ACCESS_KEY": SECRET,
    "AZURE_VISION_KEY": SECRET,
    "CLARIFAI_PAT": SECRET,
    "GOOGLE_KEY": SECRET,
    "OPENAI_API_KEY": SECRET,
}

BACKENDS: Mapping[str, Mapping[str, str]] = {
    "aws": {"name": "aws-rekognition", "region": "eu-west-1", "endpoint": "{url}"},
    "google": {"name": "google-vision", "endpoint": "127.0.0.1:{grpc_port}", "api_key_env": "GOOGLE_KEY"},
    "azure": {"name": "azure-vision", "endpoint": "{url}"},
    "clarifai": {"name": "clarifai", "base_url": "{url}", "user_id": "u", "app_id": "a", "model_id": "m"},
    "openai": {"name": "openai-vision", "base_url": "{url}/v1", "model": "m"},
}


def config(vendor: str, where: Mapping[str, Any], smoothing: Mapping[str, Any], denoiser: str) -> str:
    """The TOML of one run."""
    backend: dict[str, Any] = {key: value.format(**where) for key, value in BACKENDS[vendor].items()}
    if vendor == "google":
        backend["insecure"] = True
    if vendor == "clarifai":
        backend["model_version"] = "1"
    if vendor == "openai":
        lines = (SHARED / "blackbox" / "imagenet_labels.txt").read_text(encoding="utf-8").splitlines()
        backend |= {"labels": sorted(set(lines)), "price_usd_per_1000": 1.0}
    tables = {
        "smoothing": {"sigma": 0.25, "alpha": 0.001, "working_size": "shorter=256,crop=224", **smoothing},
        "backend": {**backend, "read_timeout_s": 60},
        "denoiser": {"name": denoiser},
        "run": {"canaries": False, "pictures_at_once": 2},
        "transport": {"requests_per_s": 1000},
    }
    parts = []
    for name, table in tables.items():
        parts.append(f"[{name}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items()))
    return "\n".join(parts)


@contextmanager
def simulator(vendor: str) -> Iterator[dict[str, Any]]:
    """Where it listens; the MobileNetV2 answers."""
    blackbox = SHARED / "blackbox"
    with tempfile.TemporaryDirectory() as folder:
        ready = Path(folder) / "ready.json"
        model = ["--backend", f"local:{blackbox / 'mobilenet_v2_1.0_224_quant.tflite'}"]
        labels = ["-b", f"labels={blackbox / 'imagenet_labels.txt'}"]
        command = [*CLI, "simulate", vendor, *model, *labels, "--key", f"simulator:{SECRET}"]
        process = Popen([*command, "--ready-file", str(ready)], stdout=DEVNULL)
        try:
            while not ready.exists():
                if process.poll() is not None:
                    raise SystemExit(f"the simulator ended with status {process.returncode}")
                time.sleep(0.1)
            yield json.loads(ready.read_text())
        finally:
            process.kill()
            process.wait()


def billed(where: Mapping[str, Any]) -> int:
    """Pictures that the vendor has billed so far."""
    with urllib.request.urlopen(f"{where['url']}/_simulator/till", timeout=10) as reply:
        return int(json.loads(reply.read())["billed"])


def certified(
    vendor: str, where: Mapping[str, Any], folder: Path, smoothing: Mapping[str, Any], denoiser: str, out: Path
) -> dict[str, Any]:
    """One run of the folder: the vendor's bill, and the shares that the run's summary states."""
    out.mkdir(parents=True, exist_ok=True)
    file = out / "proxy.toml"
    file.write_text(config(vendor, where, smoothing, denoiser), encoding="utf-8")
    before, start = billed(where), time.perf_counter()
    command = [*CLI, "run", str(folder), "--config", str(file), "--out", str(out / "run"), "--yes", "--json"]
    done = run(command, env=os.environ | ENVIRONMENT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    summary = json.loads(done.stdout)
    return {
        "billed": billed(where) - before,
        "ledger": summary["cost"],
        "summary": {key: summary[key] for key in ("pictures", "certified_accuracy") if key in summary},
        "seconds": round(time.perf_counter() - start, 1),
    }


def with_table(text: str, known: Mapping[str, Any]) -> str:
    """The page with the table of what was billed and proven. Raises ValueError where its markers are missing."""
    lines = [
        "| vendor, denoiser, question | draws at most | billed | certified at 0.25 |",
        "| --- | --- | --- | --- |",
    ]
    for title, found in known.items():
        if "billed" in found:
            lines.append(f"| {title} | {_draws(found)} | {found['billed']:,} | {_certified(found)} |")
    start = text.index(BEGIN) + len(BEGIN)
    return text[:start] + "\n".join(lines) + "\n" + text[text.index(END, start) :]


def _draws(found: Mapping[str, Any]) -> str:
    asked = found["smoothing"]
    return f"{asked['max_queries']}" if "max_queries" in asked else f"{asked['n0']} + {asked['n']}"


def _certified(found: Mapping[str, Any]) -> str:
    """Pictures certified within 0.25 with the label that the classifier gives the clean picture."""
    points = {point["radius"]: point for point in found["summary"]["certified_accuracy"]}
    return f"{points[0.25]['count']} of {points[0.25]['of']}" if 0.25 in points else ""


def main() -> None:
    """Print what was billed and proven, and keep it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--vendor", choices=sorted(BACKENDS), default="aws")
    parser.add_argument("--pictures", type=int, default=100)
    parser.add_argument("--draws", type=int, default=100)
    parser.add_argument("--radius", type=float, default=0.25)
    parser.add_argument("--denoiser", default="natural")
    parser.add_argument("--only", choices=["target", "fixed"])
    arguments = parser.parse_args()
    questions = {
        "target": {"target_radius": arguments.radius, "max_queries": arguments.draws},
        "fixed": {"method": "fixed", "n0": N0, "n": arguments.draws},
    }
    known = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    with tempfile.TemporaryDirectory() as place, simulator(arguments.vendor) as where:
        folder = Path(place) / "pictures"
        folder.mkdir()
        for path in sorted((SHARED / "imagenet-sample").glob("*.JPEG"))[::10][: arguments.pictures]:
            (folder / path.name).symlink_to(path)
        for name, question in questions.items():
            if arguments.only in (None, name):
                out = Path(place) / name
                found = certified(arguments.vendor, where, folder, question, arguments.denoiser, out)
                title = f"{arguments.vendor} {arguments.denoiser} {name}"
                known[title] = {"smoothing": question, "pictures": arguments.pictures, **found}
                print(title, json.dumps(known[title], indent=2))
    known["on"] = {"cpus": os.cpu_count(), "machine": platform.machine(), "versions": software_versions()}
    RESULTS.write_text(json.dumps(known, indent=2) + "\n", encoding="utf-8")
    DOCS.write_text(with_table(DOCS.read_text(encoding="utf-8"), known), encoding="utf-8")


if __name__ == "__main__":
    main()
