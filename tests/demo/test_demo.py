"""The demo: real digits, a real black box, the shipped denoiser, and figures that come from the ledger."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from denoiser_training.data import is_digits_test
from smoothing_proxy.cli.app import app
from smoothing_proxy.demo.digits import export_test_digits

pytest.importorskip("sklearn", reason="the digits come from scikit-learn")


def test_the_demo_shows_that_the_denoiser_proves_more(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    result = CliRunner().invoke(
        app, ["demo", "--out", str(out), "--digits", "12", "--max-queries", "200", "--sigma", "0.7"]
    )
    assert result.exit_code == 0, result.output
    summaries = {name: json.loads((out / name / "summary.json").read_text()) for name in ("identity", "digits")}
    for summary in summaries.values():
        assert summary["complete"]
        assert summary["cost"]["usd"] > 0
        assert len(summary["model_versions"]) == 1
    bare, denoised = (summaries[name]["average_certified_radius"] for name in ("identity", "digits"))
    assert denoised > 1.5 * bare
    asked = sum(summary["cost"]["queries"] for summary in summaries.values())
    assert asked < 12 * 2 * 200
    assert f"the vendor billed {asked + 12:,} queries" in result.stdout, "its bill and the ledgers' agree"
    lines = result.stdout.splitlines()
    assert [line.split("  ")[0] for line in lines[2:5]] == [
        "no defence, clean",
        "noise, no denoiser",
        "noise, denoised",
    ]
    assert lines[4].split()[2] == f"{summaries['digits']['certified_accuracy'][0]['share']:.0%}"
    with Image.open(out / "digits.png") as picture:
        assert min(picture.size) > 400


def test_the_test_digits_are_those_that_training_never_sees(tmp_path: Path) -> None:
    labels = export_test_digits(tmp_path / "digits", 30)
    numbers = [int(Path(name).stem.removeprefix("digit-")) for name in labels]
    assert numbers == [number for number in range(150) if is_digits_test(number)]
    with (tmp_path / "labels.csv").open() as stream:
        assert {row["file"]: row["label"] for row in csv.DictReader(stream)} == labels
    with Image.open(tmp_path / "digits" / next(iter(labels))) as digit:
        assert digit.size == (8, 8)
