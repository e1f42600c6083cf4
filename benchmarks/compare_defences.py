"""All defences in tables: trains the networks that are missing, runs the studies, and writes docs/comparison.md.

    python benchmarks/compare_defences.py             # the small studies and their networks: an hour or two
    python benchmarks/compare_defences.py --full      # ResNet18 and more pictures: hours on a GPU
    python benchmarks/compare_defences.py dwt-small   # only these

From nothing but the shared data. Networks stay in runs/classifiers and finished cells in runs/studies, so that the
same command goes on after an interruption. Each study's tables go between its marks in docs/comparison.md, its
figure and its CSV into docs/comparison/.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from smoothing_proxy.redteam.study.config import load_study
from smoothing_proxy.runs.manifest import software_versions

ROOT = Path(__file__).resolve().parents[1]
STUDIES = ROOT / "configs" / "studies"
CLASSIFIERS = ROOT / "configs" / "classifiers"
DOCS = ROOT / "docs" / "comparison.md"
RESULTS = ROOT / "docs" / "comparison"

FILTERED = re.compile(r"(?P<base>.+?)-(?P<filter>wavelet|gaussian|median)(?:-(?P<value>[\w.]+))?")
SPECS = {"wavelet": "wavelet:{},level=3", "gaussian": "gaussian:{}", "median": "median:{}"}
SMALL = (
    "dwt-small",
    "blur-small",
    "blur-photographs-small",
    "three-defences-small",
    "photographs-small",
)
FULL = ("dwt", "blur", "blur-photographs", "three-defences", "photographs")


def networks(study: Path) -> Iterator[Path]:
    """The cards that the study's classifiers name and that are trained here."""
    for classifier in load_study(study).classifiers:
        path = Path(str(classifier.options.get("path", "")))
        if path.suffix == ".json":
            yield path


def training(name: str) -> list[str]:
    """The arguments of the classifier trainer that make the network of this name.

    A name is that of its configuration, or that and the filter's parameter: cifar10-resnet18-gaussian-2.
    """
    if (CLASSIFIERS / f"{name}.toml").exists():
        return [str(CLASSIFIERS / f"{name}.toml")]
    found = FILTERED.fullmatch(name)
    if found is None or found["value"] is None:
        raise SystemExit(f"{CLASSIFIERS}: no configuration makes a network {name!r}")
    spec = SPECS[found["filter"]].format(found["value"])
    config = CLASSIFIERS / f"{found['base']}-{found['filter']}.toml"
    return [str(config), "--set", f"name={name}", f"training.copies.0.denoisers={json.dumps([spec])}"]


def ours(*arguments: str) -> None:
    """One of our own commands, whose progress is shown."""
    subprocess.run([sys.executable, "-m", *arguments], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def make(name: str) -> None:
    """The study's networks, cells and tables, and these into the documents."""
    config = STUDIES / f"{name}.toml"
    for card in networks(config):
        if not (ROOT / card).exists():
            ours("denoiser_training", "classifier", *training(card.stem), "--out", str(card.parent))
    ours("smoothing_proxy", "study", str(config))
    publish(name, ROOT / "runs" / "studies" / name)


def publish(name: str, made: Path) -> None:
    """Between the study's marks in the document; without its heading, with its figure."""
    RESULTS.mkdir(exist_ok=True)
    for end in ("png", "csv"):
        shutil.copyfile(made / f"{name}.{end}", RESULTS / f"{name}.{end}")
    table = (made / f"{name}.md").read_text(encoding="utf-8").split("\n", 2)[2]
    body = f"{table}\n![{name}](comparison/{name}.png)\n\n{machine()}\n"
    text = DOCS.read_text(encoding="utf-8")
    start, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    if start not in text:
        text += f"\n## {name}\n\n{start}{end}\n"
    head, rest = text.split(start, 1)
    DOCS.write_text(f"{head}{start}{body}{end}{rest.split(end, 1)[1]}", encoding="utf-8")


def machine() -> str:
    """Where the milliseconds were measured."""
    versions = software_versions()
    return (
        f"On {os.cpu_count()} CPUs ({platform.machine()}), torch {versions['torch']}; data: docs/comparison/*.csv."
    )


def main() -> None:
    """Make what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("names", nargs="*", help="studies of configs/studies; all small ones by default")
    parser.add_argument("--full", action="store_true", help="those of full size instead")
    arguments = parser.parse_args()
    for name in arguments.names or (FULL if arguments.full else SMALL):
        make(name)


if __name__ == "__main__":
    main()
