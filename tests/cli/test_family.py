"""`run`, `plan` and `replay` with a folder-wide statement, and which one is said to hold."""

from __future__ import annotations

import csv
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from smoothing_proxy.stats.planning import largest_radius
from tests.cli.command_line import SETTINGS, Invoke

SHADE = ("--backend", "local:shade_classifier:shade", "--sigma", "0.2")
TARGET = (*SHADE, "--target-radius", "0.1", "--max-queries", "100")
LARGEST = (*SHADE, "--method", "largest", "--n0", "10", "--max-queries", "60")


def ran(invoke: Invoke, folder: Path, *arguments: str) -> tuple[dict[str, Any], list[dict[str, str]]]:
    result = invoke("run", folder, *arguments, "--out", "out", "--json")
    assert result.exit_code == 0, result.stderr
    with Path("out/certificates.csv").open() as stream:
        return json.loads(result.stdout), list(csv.DictReader(stream))


@pytest.mark.parametrize("settings", [SETTINGS, TARGET, LARGEST], ids=["fixed", "target", "largest"])
def test_by_bonferroni_every_method_certifies_each_picture_at_its_share(
    invoke: Invoke, folder: Path, settings: tuple[str, ...]
) -> None:
    summary, rows = ran(invoke, folder, *settings, "--family", "bonferroni")
    assert summary["guarantee"].startswith("all together: that any certificate is false, of at most 6 pictures")
    assert summary["settings"]["family"] == {"method": "bonferroni", "alpha": 0.001, "size": 6, "radii": []}
    assert {float(row["alpha"]) for row in rows} == {0.001 / 6}
    assert all(row["family_radius"] == row["radius"] for row in rows if row["label"])
    assert any(float(row["radius"]) > 0 for row in rows)
    assert all(row["family_radius"] == "" for row in rows if not row["label"])
    assert "6 of 6 recorded verdicts are the same" in invoke("replay", "out").stdout
    planned = json.loads(invoke("plan", folder, *settings, "--family", "bonferroni", "--json").stdout)
    assert (planned["alpha"], planned["guarantee"]) == (0.001 / 6, summary["guarantee"])


def test_without_a_family_each_certificate_stands_alone_and_says_so(invoke: Invoke, folder: Path) -> None:
    summary, rows = ran(invoke, folder, *SETTINGS)
    assert summary["guarantee"] == "per picture: each certificate is false with probability <= 0.001"
    assert (summary["together"], {row["family_radius"] for row in rows}) == ([], {""})
    assert summary["guarantee"] in invoke("plan", folder, *SETTINGS).stdout
    assert summary["guarantee"] in invoke("replay", "out").stdout


@pytest.mark.parametrize("settings", [SETTINGS, LARGEST], ids=["fixed", "largest"])
def test_holm_proves_radii_of_all_pictures_at_once(
    invoke: Invoke, folder: Path, settings: tuple[str, ...]
) -> None:
    holm = ("--family", "holm", "--family-radius", "0.1", "--family-radius", "0.05")
    text = invoke("run", folder, *settings, *holm, "--out", "out")
    assert "all together: that any family_radius is false" in text.stdout
    assert "within 0.1   6 pictures together" in text.stdout
    summary, rows = ran(invoke, folder, *settings, *holm)
    assert summary["together"] == [{"radius": 0.05, "count": 6}, {"radius": 0.1, "count": 6}]
    assert {(row["family_radius"], row["alpha"]) for row in rows} == {("0.1", "0.001")}
    assert all(float(row["radius"]) > 0.1 for row in rows)
    again = json.loads(invoke("replay", "out", "--json").stdout)
    assert [row["family_radius"] for row in again] == [0.1] * 6
    assert "with all others 0.1" in invoke("replay", "out").stdout
    figures = json.loads(invoke("plan", folder, *settings, *holm, "--json").stdout)["expected"]
    together, alone = figures["together"], figures["certified"]
    assert [row["radius"] for row in together] == [0.05, 0.1]
    assert 0 < together[1]["share"] < together[0]["share"] < alone[0]["share"]


def test_a_picture_that_holm_does_not_prove_keeps_its_own_certificate(invoke: Invoke, folder: Path) -> None:
    settings = (*SHADE[:2], "--sigma", "0.9", "--n0", "10", "--n", "60")
    summary, rows = ran(invoke, folder, *settings, "--family", "holm", "--family-radius", "0.6")
    [proven] = summary["together"]
    assert 0 < proven["count"] < 6
    alone = {row["file"] for row in rows if row["label"] and not row["family_radius"]}
    assert len(alone) + proven["count"] <= 6
    assert all(float(row["radius"]) >= 0.6 for row in rows if row["family_radius"])


def test_a_run_may_not_grow_beyond_what_alpha_was_shared_out_over(invoke: Invoke, folder: Path) -> None:
    run = ("run", folder, *SETTINGS, "--family", "bonferroni", "--out", "out", "--json")
    invoke(*run, "--limit", "2")
    kept = Path("out/certificates.jsonl").read_text()
    grown = invoke(*run)
    assert grown.exit_code == 2
    assert "6 pictures, and alpha was shared out over 2 before the first draw" in grown.stderr
    assert Path("out/certificates.jsonl").read_text() == kept
    assert json.loads(invoke(*run, "--limit", "2").stdout)["cost"]["queries"] == 2 * 71, "as it was, it goes on"
    declared = invoke(*run, "--family-size", "6")
    assert "family.size: 2 there, 6 here" in declared.stderr


def test_a_number_of_pictures_that_was_declared_leaves_room_for_more(invoke: Invoke, folder: Path) -> None:
    run = ("run", folder, *SETTINGS, "--family", "bonferroni", "--out", "out", "--json")
    invoke(*run, "--limit", "2", "--family-size", "6")
    for resumed in (run, (*run, "--family-size", "6")):
        summary = json.loads(invoke(*resumed).stdout)
        assert summary["pictures"]["decided"] == 6
        assert summary["largest_radius"] == largest_radius(60, 0.001 / 6, 0.2)


REFUSED = [
    ((*TARGET, "--family", "holm", "--family-radius", "0.1"), "the draws that test a label have chosen it"),
    ((*SETTINGS, "--method", "fixed", "--two-sided", "--family", "holm", "--family-radius", "0.1"), "two_sided"),
    ((*SETTINGS, "--family", "holm"), "say at which radii with family_radii"),
    ((*SETTINGS, "--family", "holm", "--family-radius", "0.4"), "ask for smaller radii, or more draws"),
    ((*SETTINGS, "--family", "holm", "--family-radius", "-1"), "expected l2 distances"),
    ((*SETTINGS, "--family", "bonferroni", "--family-radius", "0.1"), 'family_radii go with "holm"'),
    ((*SETTINGS, "--family-size", "9"), "nothing is shared out per picture"),
    ((*SETTINGS, "--family", "bonferroni", "--family-size", "5"), "6 pictures, and alpha was shared out over 5"),
    ((*SHADE, "--n", "12", "--family", "bonferroni"), "alpha 0.001 shared out over 6 pictures: n is 12"),
    ((*TARGET, "--max-queries", "20", "--family", "bonferroni"), "alpha 0.001 shared out over 6 pictures: target"),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSED)
def test_what_no_statement_covers_is_refused_before_anything_is_asked(
    invoke: Invoke, folder: Path, arguments: tuple[str, ...], message: str
) -> None:
    for command in (("plan", folder), ("run", folder, "--out", "out")):
        result = invoke(*command, *arguments)
        assert result.exit_code == 2
        assert message in result.stderr
    assert not Path("out/certificates.csv").exists()


def test_the_table_run_of_a_configuration_says_it_too(invoke: Invoke, folder: Path) -> None:
    Path("proxy.toml").write_text(
        '[run]\nfamily = "holm"\nfamily_radii = [0.1]\n[smoothing]\nsigma = 0.2\nn = 60\n'
    )
    summary, _ = ran(invoke, folder, *SETTINGS[:2], "--config", "proxy.toml")
    assert summary["together"] == [{"radius": 0.1, "count": 6}]
    Path("proxy.toml").write_text('[run]\nfamily = "sidak"\n[smoothing]\nsigma = 0.2\n')
    refused = invoke("plan", folder, *SETTINGS[:2], "--config", "proxy.toml")
    assert "run.family" in refused.stderr


def test_what_is_chosen_for_a_budget_is_chosen_at_each_pictures_share(invoke: Invoke, folder: Path) -> None:
    run = ("run", folder, *SHADE, "--target-radius", "0.1", "--choose", "--budget-queries", "900", "--out", "out")
    summary = json.loads(invoke(*run, "--family", "bonferroni", "--json").stdout)
    assert summary["settings"]["smoothing"]["alpha"] == 0.001 / 6
    resumed = invoke(*run, "--family", "bonferroni", "--json")
    assert json.loads(resumed.stdout)["settings"] == summary["settings"]
    holm = invoke(*run[:3], *SHADE[1:], "--choose", "--family", "holm", "--family-radius", "0.1", "--out", "other")
    assert "--choose compares what each picture proves" in holm.stderr


def test_a_recorded_run_answers_for_all_together_where_its_number_of_pictures_was_fixed(
    invoke: Invoke, folder: Path
) -> None:
    invoke("run", folder, *SETTINGS, "--out", "out", "--limit", "3")
    shared = json.loads(invoke("replay", "out", "--family", "bonferroni", "--json").stdout)
    assert {row["alpha"] for row in shared} == {0.001 / 3}
    holm = ("replay", "out", "--family", "holm", "--family-radius", "0.1")
    assert [row["family_radius"] for row in json.loads(invoke(*holm, "--json").stdout)] == [0.1] * 3
    assert "say at which radii" in invoke("replay", "out", "--family", "holm").stderr
    assert "which Holm's argument does not cover" in invoke(*holm, "--target-radius", "0.05").stderr
    assert "begun with 3 pictures, which all count" in invoke(*holm, "--family-size", "2").stderr
    assert "leave out" not in invoke(*holm, "--family-size", "9").stderr
    invoke("run", folder, *SETTINGS, "--out", "out")
    grown = invoke(*holm)
    assert grown.exit_code == 2
    assert "the run has 6 pictures, and was begun with 3" in grown.stderr
    assert invoke(*holm, "--family-size", "6").exit_code == 0, "who fixed that number beforehand may say so"


def test_a_run_of_an_older_version_goes_on_alone_and_declares_its_pictures_to_speak_for_all(
    invoke: Invoke, folder: Path
) -> None:
    invoke("run", folder, *SETTINGS, "--out", "out", "--limit", "2")
    with closing(sqlite3.connect("out/ledger.db")) as connection, connection:
        connection.execute("UPDATE runs SET manifest = json_remove(manifest, '$.family')")
    summary, _ = ran(invoke, folder, *SETTINGS)
    assert summary["pictures"]["decided"] == 6
    assert summary["guarantee"].startswith("per picture")
    assert (
        "family.method: per-picture there"
        in invoke("run", folder, *SETTINGS, "--family", "bonferroni", "--out", "out").stderr
    )
    shared = ("replay", "out", "--family", "bonferroni")
    assert "does not say how many pictures the run began with" in invoke(*shared).stderr
    assert invoke(*shared, "--family-size", "6").exit_code == 0


def test_the_pictures_of_a_family_can_be_taken_alone_at_the_level_of_all(invoke: Invoke, folder: Path) -> None:
    invoke("run", folder, *SETTINGS, "--family", "bonferroni", "--out", "out")
    alone = json.loads(invoke("replay", "out", "--family", "per-picture", "--json").stdout)
    assert {(row["alpha"], row["family_radius"]) for row in alone} == {(0.001, None)}
    wider = json.loads(invoke("replay", "out", "--alpha", "0.06", "--json").stdout)
    assert {row["alpha"] for row in wider} == {0.06 / 6}, "--alpha is that of all together"
