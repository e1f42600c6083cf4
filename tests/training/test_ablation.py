"""The ablation compares what its variants were trained to: the weights of the phase that served best."""

from __future__ import annotations

import csv
import runpy
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

from denoiser_training.config import Config, ObjectiveSettings, SurrogateSettings
from denoiser_training.train import train
from smoothing_proxy.denoisers import weights

ROOT = Path(__file__).resolve().parents[2]
ABLATION: Any = SimpleNamespace(**runpy.run_path(str(ROOT / "benchmarks" / "train_denoisers.py")))


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """One thread, so that a run is the same everywhere."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", list(ABLATION.VARIANTS))
def test_a_variant_is_the_committed_config_but_for_what_it_names(name: str) -> None:
    variant = ABLATION.VARIANTS[name]
    steps = list(range(3, 3 + len(variant.phases)))
    config: Config = ABLATION.config_of(name, steps, 2)
    assert (config.name, config.best, config.runtime.threads) == (name, "accuracy", 2)
    assert [phase.steps for phase in config.phases] == steps
    assert [phase.objective.weights() for phase in config.phases] == [dict(one) for one, _ in variant.phases]
    assert [phase.lr for phase in config.phases] == [lr for _, lr in variant.phases]
    assert [one.name for one in config.surrogates] == ["resnet20", "resnet32"][: variant.surrogates]
    assert config.denoiser.architecture == ("dncnn" if "dncnn" in name else "unet")
    assert config.noise.sigma_max == (1.0 if "range" in name else 0.25)


def test_phases_share_the_time_and_not_the_steps() -> None:
    assert ABLATION.planned_steps(300, [10]) == [3000]
    assert ABLATION.planned_steps(300, [10, 2]) == [2190, 162]
    assert ABLATION.planned_steps(1, [0.1, 0.1]) == [1, 1]


class Crisp(nn.Module):
    """Class 0 where pixels are far from the middle grey, as all clean digits' are; noise brings them near."""

    def forward(self, pictures: Tensor) -> Tensor:
        distance = 20 * ((pictures - 0.5).abs().mean(dim=(1, 2, 3)) - 1 / 3)
        return torch.stack([distance, -distance], dim=1)


def small(name: str, steps: list[int]) -> Config:
    """A variant with its phases and its rule for the best, on digits and a small network."""
    config: Config = ABLATION.config_of(name, steps, 1)
    phases = [phase.model_copy(update={"lr": lr}) for phase, lr in zip(config.phases, (2e-3, 3e-3), strict=True)]
    data = {"source": "digits", "crop_px": 8, "pad_px": 0, "flip": False, "limit": 300, "validation_every": 5}
    update = {
        "data": config.data.model_copy(update=data),
        "denoiser": config.denoiser.model_copy(update={"options": {"widths": [8], "blocks": 1}}),
        "optimiser": config.optimiser.model_copy(update={"precision": "fp32", "warm_up_steps": 5}),
        "phases": tuple(phases),
        "surrogates": (SurrogateSettings(name="crisp", network=f"{__name__}:Crisp"),),
    }
    return config.model_copy(update=update)


def test_a_second_phase_that_gives_up_psnr_for_accuracy_is_what_is_kept(tmp_path: Path) -> None:
    config = small("unet-mse-stab", [60, 90])
    assert config.phases[1].objective == ObjectiveSettings(stab=1.0)
    card_path = train(config, tmp_path, Console(quiet=True))
    assert card_path is not None
    ends = list(csv.DictReader((tmp_path / "validation.csv").read_text().splitlines()))
    assert [row["step"] for row in ends] == ["60", "150"]
    first, last = ({key: float(value) for key, value in row.items()} for row in ends)
    assert last["crisp@0.25"] > first["crisp@0.25"] + 10
    assert last["psnr@0.25"] < first["psnr@0.25"] - 3
    card, network = weights.load(card_path)
    assert card.steps == 150
    assert card.kept == (
        "after step 150 of 150, in phase 2 of 2: the highest mean accuracy of crisp at sigma 0.25 "
        "on 60 validation pictures"
    )
    trained = torch.load(tmp_path / "last.ckpt", weights_only=True)["network"]
    assert all(torch.equal(tensor, trained[key]) for key, tensor in network.state_dict().items())
    entry = ABLATION.entry_of("unet-mse-stab", card_path, [60, 90])
    assert (entry["steps"], entry["kept"], entry["seconds"]) == ([60, 90], 150, card.seconds)


def row(target: str, card: str, psnr: float, denoised: float, counts: tuple[int, int, int]) -> dict[str, Any]:
    """As evaluation.json has it."""
    points = zip((0.0, 0.1, 0.25, 0.5), (counts[0], counts[0], *counts[1:]), strict=True)
    certified = [{"radius": radius, "accuracy": {"count": count, "total": 100}} for radius, count in points]
    return {"target": target, "denoiser": card, "psnr": psnr, "denoised": denoised, "certified": certified}


def test_the_table_says_which_step_was_kept_and_stands_between_its_markers() -> None:
    report = {
        "variants": {
            "identity": {"title": "none", "steps": [], "card": "identity"},
            "two": {"title": "U-Net", "steps": [1917, 476], "kept": 2393, "card": "two.json"},
        },
        "rows": [
            row("b", "identity", 13.111, 0.13, (11, 6, 0)),
            row("a", "identity", 13.111, 0.11, (10, 10, 1)),
            row("b", "two.json", 24.36, 0.54, (46, 25, 6)),
            row("a", "two.json", 24.36, 0.51, (46, 21, 7)),
        ],
    }
    table = ABLATION.table(report)
    assert table.splitlines()[0].startswith("| denoiser | steps | kept after | PSNR | a: noisy")
    assert table.splitlines()[2:] == [
        "| none | - | - | 13.11 | 11%, 10% / 10% / 1% | 13%, 11% / 6% / 0% |",
        "| U-Net | 1,917 + 476 | 2,393 | 24.36 | 51%, 46% / 21% / 7% | 54%, 46% / 25% / 6% |",
    ]
    text = ABLATION.with_table("before\n<!-- ablation -->\nold\n<!-- /ablation -->\nafter \\1\n", report)
    assert text == f"before\n<!-- ablation -->\n\n{table}\n\n<!-- /ablation -->\nafter \\1\n"
