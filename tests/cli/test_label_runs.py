"""`run`, `plan` and `replay` with `--per-label` and `--top-k`: proofs about many labels from a run's own draws."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from smoothing_proxy.stats.planning import largest_radius
from tests.cli.command_line import SETTINGS, Invoke

GROUPED = '[labels.groups]\nnot_dark = ["grey", "light"]\n'


def lines(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path("out", name).read_text().splitlines()]


def test_a_run_writes_the_proofs_that_it_was_asked_for_and_pays_nothing_for_them(
    invoke: Invoke, folder: Path
) -> None:
    run = ("run", folder, *SETTINGS, "--per-label", "--watch", "dark", "--top-k", "2", "--out", "out")
    summary = json.loads(invoke(*run, "--json").stdout)
    assert summary["cost"]["queries"] == 6 * 71
    assert summary["proofs"].keys() == {"labels.jsonl", "top_k.jsonl"}
    beside = "per picture: each line is false with probability <= 0.001, beside that of the certificate"
    assert {(made["pictures"], made["guarantee"]) for made in summary["proofs"].values()} == {(6, beside)}
    assert "labels.jsonl: proofs about the labels of 6 pictures" in invoke(*run).stdout
    first, last = lines("labels.jsonl")[::5]
    assert [(proof["label"], proof["present"]) for proof in first["labels"]] == [("dark", True)]
    assert [(proof["label"], proof["present"]) for proof in last["labels"]] == [("dark", False), ("light", True)]
    assert (first["file"], first["queries"], first["alpha_each"]) == ("0.png", 70, 0.001)
    assert [(row["label"], row["k"]) for row in lines("top_k.jsonl")][::5] == [("dark", 2), ("light", 2)]
    other = invoke(*run[:-2], "--threshold", "0.7", "--out", "out")
    assert other.exit_code == 2
    assert "per_label.threshold: 0.5 there, 0.7 here" in other.stderr


def test_a_plan_says_how_far_such_proofs_can_reach_and_that_they_cost_nothing(
    invoke: Invoke, folder: Path
) -> None:
    asked = ("--per-label", "--confidence-within", "0.1", "--top-k", "2")
    alone = json.loads(invoke("plan", folder, *SETTINGS, "--json").stdout)
    figures = json.loads(invoke("plan", folder, *SETTINGS, *asked, "--json").stdout)
    assert (figures["queries"], alone["largest_radius_of_labels"]) == (alone["queries"], {})
    assert figures["largest_radius_of_labels"]["per_label"] == largest_radius(60, 0.001 / 20, 0.2)
    assert figures["largest_radius_of_labels"]["top_k"] > figures["largest_radius"]
    assert (
        "labels stay present, or absent, however many of them are tested, up to 0."
        in invoke("plan", folder, *SETTINGS, *asked).stdout
    )


@pytest.mark.parametrize("method", [("--target-radius", "0.1"), ("--method", "largest")])
def test_a_method_that_stops_earlier_has_no_such_proofs(
    invoke: Invoke, folder: Path, method: tuple[str, ...]
) -> None:
    for command in (("plan", folder), ("run", folder, "--out", "out")):
        for asked in (("--per-label",), ("--top-k", "2")):
            result = invoke(*command, *SETTINGS, *method, *asked)
            assert result.exit_code == 2
            assert "say --method fixed" in result.stderr
    chosen = invoke(
        "run", folder, *SETTINGS[:4], "--choose", "--budget-queries", "900", "--top-k", "2", "--out", "out"
    )
    assert "leave it out with --per-label and --top-k" in chosen.stderr
    assert not Path("out").exists()


def test_by_bonferroni_the_lines_of_all_pictures_hold_together(invoke: Invoke, folder: Path) -> None:
    run = ("run", folder, *SETTINGS, "--per-label", "--family", "bonferroni", "--out", "out", "--json")
    [made] = json.loads(invoke(*run).stdout)["proofs"].values()
    assert made["guarantee"].startswith("all together: that any line is false, of at most 6 pictures")
    assert {row["alpha"] for row in lines("labels.jsonl")} == {0.001 / 6}


def test_the_replies_of_a_run_answer_for_their_labels_without_a_call(invoke: Invoke, folder: Path) -> None:
    invoke("run", folder, *SETTINGS, "--out", "out")
    text = invoke("replay", "out", "--per-label", "--watch", "dark").stdout
    assert "5.png\n  l2 radii at 12x12" in text
    assert "  dark: stays absent within 0." in text
    assert "6 of 6 pictures replayed, no queries\nguarantee: per picture: each line is false" in text
    kept = json.loads(invoke("replay", "out", "--top-k", "2", "--json").stdout)
    assert [(row["file"], row["label"]) for row in kept][::5] == [("0.png", "dark"), ("5.png", "light")]
    assert "stays among the top 2 within" in invoke("replay", "out", "--top-k", "2").stdout


def test_a_label_map_is_read_again_from_the_runs_configuration(invoke: Invoke, folder: Path) -> None:
    Path("proxy.toml").write_text(GROUPED)
    Path("other.toml").write_text(GROUPED.replace("light", "dark"))
    invoke("run", folder, *SETTINGS, "--config", "proxy.toml", "--out", "out")
    asked = ("replay", "out", "--per-label")
    assert "name the run's configuration with --config" in invoke(*asked).stderr
    assert "another label map than the run's" in invoke(*asked, "--config", "other.toml").stderr
    proofs = json.loads(invoke(*asked, "--config", "proxy.toml", "--json").stdout)
    assert [[proof["label"] for proof in row["labels"]] for row in proofs][::5] == [["dark"], ["not_dark"]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--per-label", "--top-k", "2"), "ask for one of them"),
        (("--per-label", "--alpha", "0.1"), "at the run's own level"),
        (("--top-k", "2", "--family", "bonferroni"), "at the run's own level"),
        (("--top-k", "2", "--config", "proxy.toml"), "--config goes with --per-label"),
        (("--watch", "dark"), "go with --per-label"),
    ],
)
def test_two_questions_at_once_are_refused(
    invoke: Invoke, folder: Path, arguments: tuple[str, ...], message: str
) -> None:
    invoke("run", folder, *SETTINGS, "--out", "out", "--limit", "1")
    result = invoke("replay", "out", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr


def test_two_proofs_of_a_group_say_more_than_those_of_its_labels(invoke: Invoke, folder: Path) -> None:
    """At this noise a picture between two shades is either, and surely not the third."""
    from PIL import Image

    Image.new("RGB", (2, 2), (172, 172, 172)).save(folder / "6.png")
    Path("proxy.toml").write_text(GROUPED)
    run = ("run", folder / "6.png", *SETTINGS, "--per-label", "--json")
    assert invoke(*run, "--out", "out").exit_code == 0
    [alone] = lines("labels.jsonl")
    assert not any(proof["present"] for proof in alone["labels"])
    assert lines("certificates.jsonl")[0]["label"] is None
    assert invoke(*run, "--config", "proxy.toml", "--out", "out/grouped").exit_code == 0
    [grouped] = lines("grouped/labels.jsonl")
    assert [(proof["label"], proof["present"]) for proof in grouped["labels"]] == [("not_dark", True)]
    assert lines("grouped/certificates.jsonl")[0]["label"] == "not_dark"
