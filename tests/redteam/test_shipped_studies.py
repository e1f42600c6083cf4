"""The studies that are shipped, and the command that makes their tables from nothing but the shared data."""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from denoiser_training.classifier_config import load_classifier_config
from smoothing_proxy.denoisers.registry import denoiser
from smoothing_proxy.redteam.study.config import load_study
from smoothing_proxy.redteam.study.making import check_attack

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks" / "compare_defences.py"
TABLES: Any = SimpleNamespace(**runpy.run_path(str(SCRIPT)))
STUDIES = sorted((ROOT / "configs" / "studies").glob("*.toml"))


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_a_study_that_is_shipped_can_be_made(path: Path) -> None:
    config = load_study(path)
    assert config.name == path.stem
    for defence in config.defences:
        denoiser(defence.denoiser)
    for attack in config.attacks:
        check_attack(attack)
    for card in TABLES.networks(path):
        config_path, *overrides = TABLES.training(card.stem)
        values = [one for one in overrides if one != "--set"]
        assert load_classifier_config(Path(config_path), values).name == card.stem


def test_every_study_is_made_by_the_command_and_has_its_place_in_the_document() -> None:
    names = {path.stem for path in STUDIES}
    assert set(TABLES.SMALL) | set(TABLES.FULL) == names
    text = (ROOT / "docs" / "comparison.md").read_text(encoding="utf-8")
    for name in TABLES.SMALL:
        assert text.count(f"<!-- {name} -->\n") == text.count(f"<!-- /{name} -->") == 1


def test_a_table_takes_the_place_of_the_one_before_and_of_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, document = tmp_path / "made", tmp_path / "comparison.md"
    made.mkdir()
    for end, text in (("png", "figure"), ("csv", "a,b"), ("md", "# x\n\nThe table.\n")):
        (made / f"x.{end}").write_text(text)
    document.write_text("before\n<!-- x -->\nan old table\n<!-- /x -->\nafter\n")
    places = TABLES.publish.__globals__
    monkeypatch.setitem(places, "DOCS", document)
    monkeypatch.setitem(places, "RESULTS", tmp_path / "results")
    TABLES.publish("x", made)
    TABLES.publish("x", made)
    text = document.read_text()
    assert text.startswith("before\n<!-- x -->\nThe table.\n\n![x](comparison/x.png)\n")
    assert text.endswith("<!-- /x -->\nafter\n")
    assert "an old table" not in text
    assert (tmp_path / "results" / "x.csv").read_text() == "a,b"


def test_a_network_that_no_configuration_makes_is_named() -> None:
    with pytest.raises(SystemExit, match="no configuration makes a network 'cifar10-resnet9'"):
        TABLES.training("cifar10-resnet9")
