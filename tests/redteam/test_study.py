"""A study from its file to its table: checked first, kept cell by cell, made again from what is kept."""

from __future__ import annotations

import csv
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from smoothing_proxy.cli.app import app
from smoothing_proxy.redteam.study.cells import CellStore
from smoothing_proxy.redteam.study.config import load_study
from smoothing_proxy.redteam.study.making import drawn_aims
from smoothing_proxy.redteam.study.run import prepare
from tests.redteam.study_nets import STUDY, shaded_pictures

ROWS = ["none/net", "none/steeper", "blur/net", "smoothing/net"]


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    shaded_pictures(tmp_path / "pictures")
    (tmp_path / "study.toml").write_text(STUDY)
    return tmp_path / "study.toml"


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(app, ["study", *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def rows_of(out: Path) -> list[dict[str, str]]:
    with (out / "shades.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_a_study_leaves_its_table_as_markdown_csv_and_figure(file: Path) -> None:
    result = run(str(file), "--out", "out")
    assert result.exit_code == 0, result.output
    out = file.parent / "out"
    text = (out / "shades.md").read_text()
    assert result.stdout.strip() == text.strip()
    assert "A note." in text
    found = {(f"{row['defence']}/{row['classifier']}", row["column"]): row for row in rows_of(out)}
    assert {name for name, _ in found} == set(ROWS)
    for name in ROWS:
        assert float(found[name, "clean"]["accuracy"]) == 1.0
        assert found[name, "far"]["made_on"] == "none/net"
        assert found[name, "near"]["made_on"] == name
    assert float(found["none/net", "far"]["accuracy"]) == 0.0, "an attack that is broken flatters every defence"
    assert float(found["none/net", "far"]["mean_l2"]) == pytest.approx(5.0, abs=0.05)
    assert float(found["none/net", "near"]["mean_l2"]) <= 0.0501
    assert found["smoothing/net", "clean"]["queries_per_answer"] == "9"
    assert found["smoothing/net", "certified 0.05"]["pictures"] == "3"
    assert ("smoothing/net", "aimed") not in found
    aimed = found["blur/net", "aimed"]
    assert float(aimed["score"]) == pytest.approx(float(aimed["mean_l2"]), rel=1e-4), "clean accuracy is 1 here"
    assert aimed["reached"] == aimed["attacked"] == "9"
    falls = [line.split(" | ") for line in text.splitlines() if line.startswith("| blur | net | ")][-1]
    assert falls[2:4] == ["100.0", "100.0"], "the far attack turns it on every picture"
    with Image.open(out / "shades.png") as figure:
        pixels = np.asarray(figure.convert("RGB"))
    assert min(pixels.shape[:2]) > 300
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 50


def test_what_is_certified_is_not_above_what_stands_under_attack(file: Path) -> None:
    assert run(str(file), "--out", "out", "--set", "defences.2.smoothing.certify_pictures=0").exit_code == 0
    found = {
        row["column"]: float(row["accuracy"])
        for row in rows_of(file.parent / "out")
        if row["defence"] == "smoothing"
    }
    assert 0.0 < found["certified 0.05"] <= found["near"] <= found["clean"]


def test_a_table_is_made_again_from_kept_cells_without_an_attack(file: Path) -> None:
    first = run(str(file), "--out", "out")
    kept = (file.parent / "out" / "cells.jsonl").read_bytes()
    made = {path.name: path.stat().st_mtime_ns for path in (file.parent / "out" / "adversarial").iterdir()}
    assert len(made) == 1 + len(ROWS) + 3, "what is made on one row is made once for all"
    for path in (file.parent / "out").glob("shades.*"):
        path.unlink()
    study = prepare(load_study(file))
    seen = {name: opened.network.seen for name, opened in study.networks.items()}
    with CellStore(file.parent / "out") as store:
        study.run(store)
    assert {name: opened.network.seen for name, opened in study.networks.items()} == seen
    assert run(str(file), "--out", "out").stdout == first.stdout
    assert (file.parent / "out" / "cells.jsonl").read_bytes() == kept
    assert {p.name: p.stat().st_mtime_ns for p in (file.parent / "out" / "adversarial").iterdir()} == made


def test_a_cell_is_made_again_where_what_decides_it_has_changed_and_only_there(file: Path) -> None:
    config = load_study(file)
    before = prepare(config)
    changed = prepare(load_study(file, ["attacks.1.eps=0.3", "defences.1.denoiser=gaussian:2", "note=another"]))
    same = {
        (row.name, what if isinstance(what, str) else what.name)
        for (row, what), (other, otherwise) in zip(before.cells(), changed.cells(), strict=True)
        if before.key(row, what) == changed.key(other, otherwise)
    }
    assert ("none/net", "clean") in same
    assert ("none/net", "far") in same
    assert ("smoothing/net", "certified") in same
    assert not {one for one in same if one[1] == "near" or one[0] == "blur/net"}
    renamed = prepare(
        load_study(file, ["attacks.1.name=other", "defences.1.name=filter", "attacks.2.defences=[]"])
    )
    assert renamed.key(*renamed.cells()[2]) == before.key(*before.cells()[2])


def test_a_killed_study_loses_one_cell_at_most_and_goes_on_to_the_same_table(file: Path) -> None:
    whole = run(str(file), "--out", "whole")
    (file.parent / "slow.toml").write_text(STUDY.replace("steep = 60.0", "steep = 60.0\nslow_s = 0.004"))
    cells = file.parent / "out" / "cells.jsonl"
    command = [sys.executable, "-m", "smoothing_proxy", "study", "slow.toml", "--out", "out"]
    root = str(Path(__file__).parents[2])
    process = subprocess.Popen(command, cwd=file.parent, env=os.environ | {"PYTHONPATH": root})
    try:
        deadline = time.monotonic() + 120
        while not cells.exists() or cells.read_bytes().count(b"\n") < 2:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.wait(timeout=10)
    kept = cells.read_bytes()
    kept = kept[: kept.rfind(b"\n") + 1]
    resumed = run(str(file), "--out", "out", "--set", "classifiers.1.slow_s=0.004")
    assert resumed.exit_code == 0
    after = cells.read_bytes()
    assert after.startswith(kept)
    assert after.count(b"\n") == (file.parent / "whole" / "cells.jsonl").read_bytes().count(b"\n")
    assert [line.split("|")[:-2] for line in resumed.stdout.splitlines()] == [
        line.split("|")[:-2] for line in whole.stdout.splitlines()
    ], "all but the milliseconds"


def test_a_line_that_a_kill_tore_is_dropped_and_a_line_of_something_else_is_refused(file: Path) -> None:
    assert run(str(file), "--out", "out", "--set", "attacks=[]").exit_code == 0
    cells = file.parent / "out" / "cells.jsonl"
    whole = cells.read_bytes()
    cells.write_bytes(whole + whole[:40])
    with CellStore(file.parent / "out") as store:
        assert len(store) == whole.count(b"\n")
    assert cells.read_bytes() == whole
    cells.write_bytes(whole + b'{"no": "cell"}\n')
    refused = run(str(file), "--out", "out", "--set", "attacks=[]")
    assert refused.exit_code == 2
    assert f"line {len(whole.splitlines()) + 1} is no cell of a study" in refused.stderr


def test_aims_are_other_classes_than_the_pictures_own_and_follow_the_seed() -> None:
    labels = np.arange(10).repeat(200)
    aims = drawn_aims(labels, 10, seed=1)
    assert not (aims == labels).any()
    assert set(aims[labels == 4]) == set(range(10)) - {4}
    assert (aims == drawn_aims(labels, 10, seed=1)).all()
    assert (aims != drawn_aims(labels, 10, seed=2)).any()


def test_a_check_says_what_is_left_to_do_and_makes_nothing(file: Path) -> None:
    result = run(str(file), "--out", "out", "--check")
    assert result.exit_code == 0
    assert "9 pictures, 16 cells, 16 to make" in result.stderr
    assert not (file.parent / "out" / "cells.jsonl").exists()


def test_a_cell_says_for_each_picture_whether_it_was_right(file: Path) -> None:
    assert run(str(file), "--out", "out", "--set", "defences.2.smoothing.certify_pictures=0").exit_code == 0
    lines = [json.loads(line) for line in (file.parent / "out" / "cells.jsonl").read_text().splitlines()]
    aimed = next(line for line in lines if line["row"] == "blur/net" and line["column"] == "aimed")
    assert len(aimed["cell"]["right"]) == len(aimed["cell"]["l2"]) == 9
    row = next(
        row for row in rows_of(file.parent / "out") if row["defence"] == "blur" and row["column"] == "aimed"
    )
    assert float(row["mean_l2"]) == pytest.approx(math.fsum(aimed["cell"]["l2"]) / 9, abs=1e-5)
