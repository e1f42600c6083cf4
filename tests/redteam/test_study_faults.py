"""Damaged files, full disks and two processes at once take nothing from a study but an understandable message."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from smoothing_proxy.cli.app import app
from smoothing_proxy.errors import ConfigError
from smoothing_proxy.redteam.study.cells import Adversarial, Cell, CellStore
from smoothing_proxy.redteam.study.config import load_study
from smoothing_proxy.redteam.study.notes import notes_of
from tests.redteam.study_nets import STUDY, shaded_pictures


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    shaded_pictures(tmp_path / "pictures", each=1)
    short = STUDY[: STUDY.index('[[defences]]\nname = "blur"')] + STUDY[STUDY.index("[[attacks]]") :]
    (tmp_path / "study.toml").write_text(short[: short.index('[[attacks]]\nname = "near"')])
    return tmp_path / "study.toml"


def _run(*arguments: str) -> Result:
    result = CliRunner().invoke(app, ["study", *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def _broken(data: bytes, how: str) -> bytes:
    if how == "cut":
        return data[: len(data) // 2]
    if how == "empty":
        return b""
    middle = len(data) // 3
    return data[:middle] + bytes([data[middle] ^ 0xFF]) + data[middle + 1 :]


@pytest.mark.parametrize("how", ["cut", "turned", "empty"])
def test_kept_pictures_that_were_damaged_are_made_again(file: Path, how: str) -> None:
    assert _run(str(file), "--out", "out").exit_code == 0
    out = file.parent / "out"
    (kept,) = (out / "adversarial").iterdir()
    whole = kept.read_bytes()
    kept.write_bytes(_broken(whole, how))
    with CellStore(out) as store:
        assert store.adversarial(kept.stem) is None
    (out / "cells.jsonl").unlink()
    again = _run(str(file), "--out", "out")
    assert again.exit_code == 0, again.stderr
    with CellStore(out) as store:
        assert store.adversarial(kept.stem) is not None


def test_a_disk_that_takes_no_more_is_said_and_keeps_what_was_finished(tmp_path: Path) -> None:
    import numpy as np

    made = Adversarial(np.zeros((1, 3, 2, 2), np.float32), np.ones(1, bool), np.ones(1, bool), 1, 0.0)
    with CellStore(tmp_path / "out") as store:
        store.put("a", Cell("clean", (True,)), {})
        (tmp_path / "out" / "cells.jsonl").rename(tmp_path / "kept.jsonl")
        (tmp_path / "out" / "cells.jsonl").symlink_to("/dev/full")
        with pytest.raises(ConfigError, match=r"cells\.jsonl: cannot be written: .*the same command goes on"):
            store.put("b", Cell("clean", (True,)), {})
        assert store.get("b") is None
        assert store.get("a") is not None
        (tmp_path / "out" / "adversarial" / "c.part").symlink_to("/dev/full")
        with pytest.raises(ConfigError, match=r"c\.part: cannot be written: "):
            store.keep_adversarial("c", made)
        assert store.adversarial("c") is None


def test_tables_that_cannot_be_written_are_your_fault_and_no_traceback(file: Path) -> None:
    out = file.parent / "out"
    (out / "shades.md").mkdir(parents=True)
    refused = _run(str(file), "--out", "out")
    assert refused.exit_code == 2
    assert "out: the tables cannot be written: " in refused.stderr
    (out / "shades.md").rmdir()
    assert "0 to make" in _run(str(file), "--out", "out").stderr


def test_a_study_that_another_process_works_on_is_left_alone(file: Path) -> None:
    with CellStore(file.parent / "out"):
        refused = _run(str(file), "--out", "out")
    assert refused.exit_code == 2
    assert "out: another process is working on this study" in refused.stderr
    assert _run(str(file), "--out", "out").exit_code == 0


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_a_seed_that_generators_do_not_take_is_refused(file: Path, seed: int) -> None:
    refused = _run(str(file), "--out", "out", "--set", f"seed={seed}")
    assert refused.exit_code == 2
    assert "seed" in refused.stderr
    assert not (file.parent / "out").exists()


def test_under_a_table_stand_what_its_proofs_rest_on_and_what_eps_is_in_bytes(tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text(STUDY)
    text = notes_of(load_study(tmp_path / "study.toml"))
    assert "* blur: `gaussian:1`; no noise, and no proof." in text
    assert "* smoothing: `median:3`, noise of sigma 0.1; an answer is the majority of 9 votes" in text
    assert "n0 = 5, n = 40, alpha = 0.001" in text
    assert "no radius above 0.10 can be proven" in text
    assert "* Not rounded to bytes: aimed." in text
    linf = STUDY.replace('norm = "l2"\neps = 0.05', 'norm = "linf"\neps = 0.01')
    (tmp_path / "study.toml").write_text(linf)
    assert "a pixel moves by 2/255 = 0.0078 at most: near." in notes_of(load_study(tmp_path / "study.toml"))
    (tmp_path / "study.toml").write_text(linf.replace("eps = 0.01", "eps = 0.00784313725"))
    assert "a pixel moves by" not in notes_of(load_study(tmp_path / "study.toml"))
