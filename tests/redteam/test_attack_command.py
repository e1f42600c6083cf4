"""`smoothing-proxy attack`, from a folder to a table, JSON and pictures."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from smoothing_proxy.cli.app import app
from smoothing_proxy.cli.attack_show import table_of
from smoothing_proxy.redteam.comparison import Row
from smoothing_proxy.redteam.grid import to_pixels
from tests.redteam.digit_net import CLASSES, save_digit_program, test_digits

COMMON = ("--sigma", "0.25", "--denoiser", "gaussian:0.6", "--max-queries", "200")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """digits.pt2, pictures/ and labels.csv."""
    folder = tmp_path_factory.mktemp("attack")
    save_digit_program(folder / "digits.pt2")
    pictures, labels = test_digits(3)
    (folder / "pictures").mkdir()
    lines = ["file,label"]
    for number, pixels in enumerate(to_pixels(pictures)):
        Image.fromarray(pixels).save(folder / "pictures" / f"{number}.png")
        lines.append(f"{number}.png,{CLASSES[labels[number]]}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder


def _run(*arguments: str | Path) -> Result:
    result = CliRunner().invoke(app, ["attack", *[str(one) for one in arguments]])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_raw_hardened_and_certified_stand_in_one_table_with_pictures(folder: Path, tmp_path: Path) -> None:
    result = _run(
        folder / "pictures", "--classifier", f"local:{folder / 'digits.pt2'}", *COMMON, "--labels",
        folder / "labels.csv", "--attack", "eot-pgd,hopskipjump", "--eps", "0.2,0.6", "--attack-queries", "30",
        "--attack-draws", "8", "--eot", "4", "-a", "eot-pgd.steps=6", "--out", tmp_path,
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    assert "3 pictures; hardened: gaussian:0.6 before local:" in result.stdout
    figures = json.loads((tmp_path / "attack.json").read_text())
    assert figures["clean"]["raw"] == 1.0
    assert [(row["attack"], row["eps"]) for row in figures["rows"]] == [
        ("eot-pgd", 0.2), ("eot-pgd", 0.6), ("hopskipjump", 0.2), ("hopskipjump", 0.6)
    ]  # fmt: skip
    assert all(row["certified"] <= row["hardened"] for row in figures["rows"])
    assert figures["rows"][1]["raw"] < 1.0
    shown = [line.split() for line in result.stdout.splitlines() if line.startswith(("eot-pgd", "hopskipjump"))]
    assert [int(words[6]) for words in shown] == [row["by_proof"] for row in figures["rows"]]
    drawn = sorted(path.name for path in tmp_path.glob("*.png"))
    assert len(drawn) == 8
    with Image.open(tmp_path / "eot-pgd-0.6-raw.png") as picture:
        assert np.asarray(picture.convert("L")).std() > 20, "something is drawn"


def test_the_backends_own_option_labels_names_the_classes_that_gradients_are_of(folder: Path) -> None:
    names = ["nil", *(f"the {number}" for number in range(1, 10))]
    (folder / "names.txt").write_text("\n".join(names) + "\n")
    result = _run(
        folder / "pictures", "--classifier", f"local:{folder / 'digits.pt2'}", *COMMON, "--limit", "2",
        "-b", f"labels={folder / 'names.txt'}", "--attack", "fgsm", "--eps", "0.1", "--eot", "2", "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert {one["reference"] for one in found["certificates"]} <= set(names)
    assert found["clean"]["raw"] == 1.0


def test_the_table_says_how_many_labels_stand_by_proof_alone() -> None:
    row = Row("pgd", "l2", 0.25, 0.1, 0.5, 0.4, 20, 20, 1.0, 2.0, by_proof=7)
    figures = {
        "pictures": 10, "backend": "b", "denoiser": "d", "sigma": 0.25, "clean": {"raw": 1.0, "hardened": 0.9},
        "rows": [asdict(row)],
    }  # fmt: skip
    lines = table_of(figures).splitlines()
    column = lines[1].index("by proof") + len("by proof")
    assert lines[3][:column].endswith(" 7")
    assert "by proof: of how many of these" in lines[4]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--attack", "pdg", "--eps", "0.1"), "no attack is named 'pdg'; did you mean 'pgd'"),
        (("--attack", "pgd", "--eps", "a"), "--eps 'a': expected numbers"),
        (("--attack", "deepfool", "--norm", "linf", "--eps", "0.1"), "deepfool works in l2, not in linf"),
        (("--attack", "pgd", "--eps", "0.1", "-a", "square.x=1"), "'square' is none of the attacks pgd"),
        (("--attack", "pgd", "--eps", "0.1", "-a", "step=1"), "step: unknown key; did you mean 'steps'"),
        (("--attack", "transfer", "--eps", "0.1"), "--surrogate local:FILE.pt2"),
        (("--attack", "square", "--eps", "0.1", "--norm", "l2"), "at least 10 px, not 8"),
        (("--attack", "pgd", "--eps", "0.1", "--budget-queries", "100"), "name a folder for it with --out"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_asked(
    folder: Path, arguments: tuple[str, ...], message: str
) -> None:
    result = _run(folder / "pictures", "--backend", f"local:{folder / 'digits.pt2'}", *COMMON, *arguments)
    assert result.exit_code == 2
    assert message in result.stderr


def test_a_classifier_without_gradients_names_what_works_on_it(folder: Path) -> None:
    result = _run(
        folder / "pictures", "--classifier", "scripted:3", *COMMON, "--attack", "pgd", "--eps", "0.1"
    )  # fmt: skip
    assert result.exit_code == 2
    assert "attacks that work on it: hopskipjump, boundary, square, and transfer" in result.stderr


def test_nothing_is_paid_before_missing_gradients_are_noticed(folder: Path, tmp_path: Path) -> None:
    result = _run(
        folder / "pictures", "--classifier", "scripted:3", *COMMON, "--attack", "square,fgsm", "--eps", "0.1",
        "-b", "price_usd=0.001", "--yes", "--out", tmp_path / "out",
    )  # fmt: skip
    assert result.exit_code == 2
    assert "scripted:3: has no gradients" in result.stderr
    assert not (tmp_path / "out").exists()


def test_an_attack_budget_above_the_money_budget_is_refused(folder: Path, tmp_path: Path) -> None:
    result = _run(
        folder / "pictures", "--classifier", "scripted:3", *COMMON, "--attack", "square", "--eps", "0.1",
        "-b", "price_usd=0.001", "--budget-usd", "1", "--out", tmp_path / "out",
    )  # fmt: skip
    assert result.exit_code == 2
    assert "and the budget allows 1,000 ($1.00)" in result.stderr
    assert not (tmp_path / "out").exists()


def test_an_eps_on_the_scale_of_bytes_is_doubted_aloud(folder: Path) -> None:
    result = _run(
        folder / "pictures", "--classifier", f"local:{folder / 'digits.pt2'}", *COMMON, "--attack", "fgsm",
        "--eps", "8", "--limit", "1", "--eot", "2",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    assert "warning: eps = 8 looks like a 0..255 scale" in result.stderr
