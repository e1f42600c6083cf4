"""`labels` shows what a classifier says and what the map makes of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from smoothing_proxy.types import Reply, ScoredLabel
from smoothing_proxy.wire.base import HttpReply, HttpRequest
from smoothing_proxy.wire.openai import OpenAiWire
from tests.cli.command_line import Invoke
from tests.wire.loopback import serving

BACKEND = ("--backend", "local:shade_classifier:shade")
MAP = 'closed = true\nother = "else"\n[groups]\nbright = ["light", "grey"]\n'


def test_each_label_is_shown_with_its_class_and_the_vote(invoke: Invoke, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "map.toml").write_text(MAP)
    result = invoke("labels", folder / "5.png", *BACKEND, "--labels", "map.toml")
    assert result.exit_code == 0, result.stderr
    assert "one query to local:shade_classifier:shade, $0.0000" in result.stderr
    row = next(line for line in result.stdout.splitlines() if "light" in line)
    assert "bright" in row
    assert "votes for: bright" in result.stdout


def test_as_json_it_is_the_whole_answer(invoke: Invoke, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "map.toml").write_text(MAP)
    result = invoke("labels", folder / "0.png", *BACKEND, "--labels", "map.toml", "--json")
    report = json.loads(result.stdout)
    assert (report["vote"], report["usd"]) == ("else", 0.0)
    (label,) = [row for row in report["labels"] if row["label"] == "dark"]
    assert (label["confidence"], label["classes"]) == (1.0, ["else"])


def test_the_configurations_own_map_counts_and_sigma_need_not_be_there(
    invoke: Invoke, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "proxy.toml").write_text(
        '[backend]\nname = "local:shade_classifier:shade"\n[labels.groups]\nbright = ["light"]\n'
    )
    result = invoke("labels", folder / "5.png", "--config", "proxy.toml", "--json")
    assert json.loads(result.stdout)["vote"] == "bright"
    plain = invoke("labels", folder / "5.png", *BACKEND, "--json")
    assert json.loads(plain.stdout)["vote"] == "light"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--labels", "missing.toml"], 2, "missing.toml: no such file"),
        (["--labels", "wrong.toml"], 2, "did you mean 'groups'"),
        (["--backend", "local:shade_classifier:broken"], 3, "the model file is gone"),
        (["-b", "batchsize=3"], 2, "did you mean 'batch_size'"),
        (["--encoding", "gif"], 2, "gif"),
    ],
)
def test_what_is_wrong_is_named(
    invoke: Invoke, folder: Path, tmp_path: Path, arguments: list[str], code: int, message: str
) -> None:
    (tmp_path / "wrong.toml").write_text("[grups]\n")
    result = invoke("labels", folder / "0.png", *BACKEND, *arguments)
    assert result.exit_code == code
    assert message in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(("flags", "code", "asked"), [([], 2, 0), (["--yes"], 0, 1)])
def test_money_is_spent_once_and_only_when_told_to(
    invoke: Invoke, folder: Path, tmp_path: Path, flags: list[str], code: int, asked: int
) -> None:
    wire, seen = OpenAiWire(), []

    def answer(request: HttpRequest) -> HttpReply:
        seen.append(request)
        return wire.write(request, wire.read(request), [Reply((ScoredLabel("dog", 0.9),), "v1")], "r")

    with serving(answer) as url:
        (tmp_path / "proxy.toml").write_text(
            f'[backend]\nname = "openai-vision"\nbase_url = "{url}"\nmodel = "m"\nkey_env = ""\n'
            'labels = ["dog", "cat"]\nprice_usd_per_1000 = 2.5\n'
        )
        result = invoke("labels", folder / "0.png", "--config", "proxy.toml", *flags)
    assert result.exit_code == code, result.stderr
    assert "one query to openai-vision, $0.0025" in result.stderr
    assert len(seen) == asked
    assert ("votes for: dog" in result.stdout) is (asked == 1)
    assert ("say --yes" in result.stderr) is (asked == 0)
