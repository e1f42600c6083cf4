"""`certify --per-label` and `certify --top-k` from the command line."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path

import pytest

from smoothing_proxy.cli.ask_labels import describe_labels, describe_top_k, finite
from smoothing_proxy.types import (
    ConfidenceInterval,
    LabelCertificate,
    LabelsCertificate,
    TopKCertificate,
    Votes,
)
from tests.cli.command_line import SETTINGS, Invoke


def test_per_label_says_what_stays_present_and_what_absent(invoke: Invoke, folder: Path) -> None:
    result = invoke("certify", folder / "5.png", *SETTINGS, "--per-label", "--watch", "dark")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0] == "l2 radii at 12x12, [0, 1] pixel scale"
    assert lines[1].startswith("dark: stays absent within 0.")
    assert lines[1].endswith("confidence >= 0.5 present in 0 of 60")
    assert lines[2].startswith("light: stays present within 0.")
    assert lines[-1] == "70 queries, $0.0000"


def test_per_label_as_json_is_everything(invoke: Invoke, folder: Path) -> None:
    result = invoke(
        "certify",
        folder / "5.png",
        *SETTINGS,
        "--per-label",
        "--threshold",
        "0.9",
        "--confidence-within",
        "0.05",
        "--json",
    )
    certificate = json.loads(result.stdout)
    [light] = certificate["labels"]
    assert (light["label"], light["present"], light["threshold"]) == ("light", True, 0.9)
    assert light["confidence"]["radius"] == 0.05
    assert light["confidence"]["low"] == light["confidence"]["high"] == 1.0
    assert certificate["queries"] == 70


def test_top_k_says_within_which_radius(invoke: Invoke, folder: Path) -> None:
    result = invoke("certify", folder / "5.png", *SETTINGS, "--top-k", "2", "--working-size", "6x6")
    lines = result.stdout.splitlines()
    assert lines[0] == "light"
    assert lines[1].startswith("stays among the top 2 within l2 radius 0.")
    assert lines[2].endswith("at the picture's own 12x12")
    found = json.loads(invoke("certify", folder / "5.png", *SETTINGS, "--top-k", "2", "--json").stdout)
    assert (found["label"], found["k"], found["queries"]) == ("light", 2, 70)
    one = json.loads(invoke("certify", folder / "5.png", *SETTINGS, "--json").stdout)
    assert found["radius"] > one["radius"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--top-k", "0"], "k = 0: expected a whole number of labels"),
        (["--per-label", "--threshold", "0"], "threshold = 0.0"),
        (["--threshold", "0.5"], "go with --per-label"),
        (["--watch", "dog"], "go with --per-label"),
        (["--per-label", "--top-k", "2"], "ask for one of them"),
    ],
)
def test_a_wrong_question_is_refused(invoke: Invoke, folder: Path, arguments: list[str], message: str) -> None:
    result = invoke("certify", folder / "0.png", *SETTINGS, *arguments)
    assert result.exit_code == 2
    assert message in result.stderr


def test_abstentions_and_open_intervals_are_said() -> None:
    interval = ConfidenceInterval(0.51239, 0.41239, 0.61231, 0.1)
    open_above = ConfidenceInterval(0.5, 0.0, math.inf, 0.1)
    votes = Votes({"present": 30, "absent": 20}, 10)
    proofs = LabelsCertificate(
        (
            LabelCertificate("dog", None, 0.0, 0.4, 0.5, votes, interval),
            LabelCertificate("cat", True, 0.12349, 0.7, 0.5, votes, open_above),
        ),
        sigma=0.25,
        alpha=0.001,
        alpha_each=0.00025,
        selection=10,
        estimation=60,
        failed=10,
    )
    text = describe_labels(proofs)
    assert "dog: unproven; confidence >= 0.5 present in 30 of 60" in text
    assert "its median confidence 0.5124 stays in [0.4123, 0.6124] within 0.1" in text
    assert "cat: stays present within 0.1234" in text
    assert "stays in [0.0000, any]" in text
    assert text.endswith(", 10 failed")
    assert finite(asdict(proofs))["labels"][1]["confidence"]["high"] is None
    assert "no label was worth testing" in describe_labels(LabelsCertificate((), 0.25, 0.001, 0.001, 10, 0))
    abstained = TopKCertificate(None, 3, 0.0, 0.2, 0.25, 0.001, Votes({"a": 5}))
    assert "abstains: the votes keep no label among the top 3" in describe_top_k(abstained)
