"""Which denoiser for the same training time: networks, objectives, surrogates and noise levels, one seed each.

    python benchmarks/train_denoisers.py --seconds 480 --out runs/ablation

Each variant trains as many steps as were timed to fill these seconds. Of the weights at the ends of its phases,
those are kept behind which the surrogates are more often right on validation pictures. It then certifies CIFAR-10
test pictures in front of two classifiers that no training saw. Finished variants are kept in --out and not trained
again. Writes benchmarks/results/denoisers.json, and the table into docs/denoisers.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from denoiser_training.config import Config
from denoiser_training.evaluate_config import load_evaluation
from smoothing_proxy.denoisers.card import read_card
from smoothing_proxy.runs.manifest import software_versions
from smoothing_proxy.settings_file import parse_settings, read_toml

ROOT = Path(__file__).resolve().parents[1]
BASE = ROOT / "configs" / "ablation" / "cifar10.toml"
TARGETS = ROOT / "configs" / "evaluate" / "cifar10.toml"
RESULTS = ROOT / "benchmarks" / "results" / "denoisers.json"
DOCS = ROOT / "docs" / "denoisers.md"

TIMED_STEPS = 60
STAB_SHARE = 0.27
"""Of the time, for the second phase of those that have one."""

MSE, SOFT, HARD = {"mse": 1.0}, {"soft_stab": 1.0, "mse": 100.0}, {"stab": 1.0}
DNCNN = {"architecture": "dncnn", "options": {"depth": 17, "width": 64}}
RANGE = {"sigma_min": 0.05, "sigma_max": 1.0, "spread": "log"}


@dataclass(frozen=True)
class Variant:
    """What differs from the base. phases: (objective, top of its learning rate); tables: of the configuration."""

    title: str
    phases: Sequence[tuple[Mapping[str, float], float]]
    tables: Mapping[str, Any]
    surrogates: int = 2


VARIANTS = {
    "dncnn-mse": Variant("DnCNN-17x64, MSE", [(MSE, 1e-3)], {"denoiser": DNCNN}),
    "unet-mse": Variant("U-Net, MSE", [(MSE, 2.5e-3)], {}),
    "unet-mse-range": Variant("U-Net, MSE, sigma .05 to 1", [(MSE, 2.5e-3)], {"noise": RANGE}),
    "unet-stab": Variant("U-Net, Stab from scratch", [(HARD, 5e-5)], {}),
    "unet-mse-stab": Variant("U-Net, MSE then Stab", [(MSE, 2.5e-3), (HARD, 5e-5)], {}),
    "unet-mse-soft": Variant("U-Net, MSE then soft Stab + 100 MSE", [(MSE, 2.5e-3), (SOFT, 3e-4)], {}),
    "unet-mse-soft-1": Variant("the same, one surrogate", [(MSE, 2.5e-3), (SOFT, 3e-4)], {}, surrogates=1),
    "unet-mse-soft-range": Variant(
        "the same, two surrogates, sigma .05 to 1", [(MSE, 2.5e-3), (SOFT, 3e-4)], {"noise": RANGE}
    ),
    "unet-sum": Variant("U-Net, soft Stab + 100 MSE from the start", [(SOFT, 2.5e-3)], {}),
}


def config_of(name: str, steps: Sequence[int], threads: int) -> Config:
    """The settings of a variant, with so many steps for each phase."""
    variant, tables = VARIANTS[name], read_toml(BASE)
    tables |= {"name": name, **variant.tables}
    tables["surrogates"] = tables["surrogates"][: variant.surrogates]
    tables["phases"] = [
        {"steps": count, "objective": dict(objective), "lr": lr}
        for count, (objective, lr) in zip(steps, variant.phases, strict=True)
    ]
    tables["runtime"] = {"threads": threads, "samples_every": 0}
    return parse_settings(Config, tables, source=str(BASE))


def timed_steps(name: str, seconds: float, out: Path, threads: int) -> list[int]:
    """How many steps of each phase fill its share of the seconds here."""
    whole = config_of(name, [TIMED_STEPS] * len(VARIANTS[name].phases), threads)
    speeds = []
    for number, phase in enumerate(whole.phases):
        trial = whole.model_copy(update={"phases": (phase,), "name": f"{name}-timed-{number}"})
        speeds.append(_speed(trial, out / trial.name))
    return planned_steps(seconds, speeds)


def planned_steps(seconds: float, speeds: Sequence[float]) -> list[int]:
    """What each phase is given. speeds: steps a second of each; of two phases the second gets STAB_SHARE."""
    shares = [1.0] if len(speeds) == 1 else [1 - STAB_SHARE, STAB_SHARE]
    return [max(1, round(share * seconds * speed)) for share, speed in zip(shares, speeds, strict=True)]


def _speed(trial: Config, folder: Path) -> float:
    """Steps a second, evaluation and loading apart."""
    import torch
    from rich.console import Console

    from denoiser_training.train import train

    train(trial, folder, Console(quiet=True))
    return TIMED_STEPS / float(torch.load(folder / "last.ckpt", weights_only=True)["seconds"])


def trained(name: str, seconds: float, out: Path, threads: int) -> Path:
    """The variant's card; from an earlier call where it is there."""
    from rich.console import Console

    from denoiser_training.train import train

    plan = out / f"{name}.steps.json"
    if not plan.exists():
        plan.write_text(json.dumps(timed_steps(name, seconds, out, threads)), encoding="utf-8")
    card = train(config_of(name, json.loads(plan.read_text(encoding="utf-8")), threads), out / name, Console())
    if card is None:
        raise SystemExit(130)
    return card


def evaluated(cards: Mapping[str, Path], out: Path, pictures: int, n: int, threads: int) -> list[dict[str, Any]]:
    """Rows of denoiser_training's evaluation: no denoiser, and each card."""
    from rich.console import Console

    from denoiser_training.evaluation import evaluate

    denoisers = ["identity", *(str(card) for card in cards.values())]
    overrides = [
        f"denoisers={json.dumps(denoisers)}",
        f"pictures={pictures}",
        f"certify.n={n}",
        f"runtime.threads={threads}",
    ]
    evaluate(load_evaluation(TARGETS, overrides), out / "evaluation", Console())
    rows: list[dict[str, Any]] = json.loads((out / "evaluation" / "evaluation.json").read_text())["rows"]
    return rows


def table(report: Mapping[str, Any]) -> str:
    """Markdown: a line for each variant, its figures in front of both targets."""
    targets = sorted({row["target"] for row in report["rows"]})
    head = [
        "denoiser",
        "steps",
        "kept after",
        "PSNR",
        *(f"{t}: noisy, certified at 0 / .25 / .5" for t in targets),
    ]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for entry in report["variants"].values():
        rows = {row["target"]: row for row in report["rows"] if row["denoiser"] == entry["card"]}
        cells = [f"{rows[t]['denoised']:.0%}, {_certified(rows[t])}" for t in targets]
        psnr = f"{rows[targets[0]]['psnr']:.2f}"
        steps = " + ".join(f"{count:,}" for count in entry["steps"]) or "-"
        kept = f"{entry['kept']:,}" if entry["steps"] else "-"
        lines.append("| " + " | ".join([entry["title"], steps, kept, psnr, *cells]) + " |")
    return "\n".join(lines)


def _certified(row: Mapping[str, Any]) -> str:
    at = {point["radius"]: point["accuracy"] for point in row["certified"]}
    return " / ".join(f"{at[r]['count'] / at[r]['total']:.0%}" for r in (0.0, 0.25, 0.5))


def with_table(text: str, report: Mapping[str, Any]) -> str:
    """The text with the table between its markers."""
    block = f"<!-- ablation -->\n\n{table(report)}\n\n<!-- /ablation -->"
    return re.sub(r"<!-- ablation -->.*<!-- /ablation -->", lambda _: block, text, flags=re.DOTALL)


def entry_of(name: str, card: Path, steps: Sequence[int]) -> dict[str, Any]:
    """What the report says of a variant. steps: planned, of each phase; seconds: what they took in the end."""
    facts = read_card(card)
    return {
        "title": VARIANTS[name].title,
        "steps": list(steps),
        "kept": facts.steps,
        "seconds": facts.seconds,
        "card": str(card),
    }


def main() -> None:
    """Train what is missing, evaluate all, write JSON and table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=480.0, help="of training, for each variant")
    parser.add_argument("--out", type=Path, default=Path("runs/ablation"))
    parser.add_argument("--pictures", type=int, default=100)
    parser.add_argument("--n", type=int, default=400)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", nargs="*", choices=list(VARIANTS), default=list(VARIANTS))
    options = parser.parse_args()
    import torch

    torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    cards = {name: trained(name, options.seconds, options.out, options.threads) for name in options.only}
    rows = evaluated(cards, options.out, options.pictures, options.n, options.threads)
    variants: dict[str, Any] = {"identity": {"title": "none", "steps": [], "card": "identity"}}
    for name, card in cards.items():
        steps = json.loads((options.out / f"{name}.steps.json").read_text(encoding="utf-8"))
        variants[name] = entry_of(name, card, steps)
    report = {
        "variants": variants,
        "rows": rows,
        "settings": {"seconds": options.seconds, "threads": options.threads, "pictures": options.pictures},
        "machine": {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "software": software_versions(),
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    DOCS.write_text(with_table(DOCS.read_text(encoding="utf-8"), report), encoding="utf-8")
    print(table(report))


if __name__ == "__main__":
    main()
