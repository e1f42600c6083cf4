"""`run` and `replay`: a folder, its files, and everything that may be wrong with it."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli.command_line import SETTINGS, Invoke


def test_a_run_writes_certificates_summary_and_curve(invoke: Invoke, folder: Path) -> None:
    result = invoke("run", folder, *SETTINGS, "--out", "out", "--labels", "labels.csv")
    assert result.exit_code == 0, result.stderr
    assert "6 of 6 pictures decided" in result.stdout
    with Path("out/certificates.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["file"] for row in rows] == [f"{number}.png" for number in range(6)]
    assert [row["label"] for row in rows][::5] == ["dark", "light"]
    assert all(row["queries"] == "70" for row in rows)
    lines = Path("out/certificates.jsonl").read_text().splitlines()
    assert [json.loads(line)["file"] for line in lines] == [row["file"] for row in rows]
    summary = json.loads(Path("out/summary.json").read_text())
    assert summary["complete"]
    assert summary["cost"]["queries"] == summary["draws"]["answered"] == 6 * 70
    assert summary["certified_accuracy"][0]["of"] == 6
    assert summary["settings"]["smoothing"]["sigma"] == 0.2
    assert summary["software"]["numpy"] == np.__version__
    with Image.open("out/certified_accuracy.png") as picture:
        assert picture.size[0] > 400


def test_without_labels_the_clean_answer_counts_as_correct(invoke: Invoke, folder: Path) -> None:
    summary = json.loads(invoke("run", folder, *SETTINGS, "--out", "out", "--json").stdout)
    assert summary["cost"]["queries"] == 6 * 71
    assert "own answer on the clean picture" in summary["pictures"]["reference"]


def test_a_finished_run_asks_nothing_more(invoke: Invoke, folder: Path) -> None:
    first = json.loads(invoke("run", folder, *SETTINGS, "--out", "out", "--json").stdout)
    second = json.loads(invoke("run", folder, *SETTINGS, "--out", "out", "--json").stdout)
    assert first == second


def test_a_run_can_grow(invoke: Invoke, folder: Path) -> None:
    invoke("run", folder, *SETTINGS, "--out", "out", "--limit", "2")
    before = Path("out/certificates.jsonl").read_text().splitlines()
    summary = json.loads(invoke("run", folder, *SETTINGS, "--out", "out", "--json").stdout)
    assert summary["pictures"]["decided"] == 6
    assert summary["cost"]["queries"] == 6 * 71
    assert Path("out/certificates.jsonl").read_text().splitlines()[:2] == before


def test_bad_pictures_are_listed_and_the_rest_is_certified(invoke: Invoke, folder: Path) -> None:
    (folder / "7-hostile.png").write_text("<svg/>")
    whole = (folder / "0.png").read_bytes()
    (folder / "8-truncated.png").write_bytes(whole[: len(whole) // 2])
    result = invoke("run", folder, *SETTINGS, "--out", "out")
    assert result.exit_code == 2
    assert "6 of 8 pictures decided" in result.stdout
    assert "2 pictures were left out" in result.stdout
    assert "7-hostile.png" in result.stdout
    summary = json.loads(Path("out/summary.json").read_text())
    assert set(summary["pictures"]["left_out"]) == {"7-hostile.png", "8-truncated.png"}
    shutil.copy(folder / "0.png", folder / "8-truncated.png")
    again = invoke("run", folder, *SETTINGS, "--out", "out")
    assert "7 of 8 pictures decided" in again.stdout, "a mended picture is certified by the same command"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (["--sigma", "0.3"], "smoothing.sigma: 0.2 there, 0.3 here"),
        (["--n", "80"], "smoothing.n: 60 there, 80 here"),
        (["--denoiser", "median:3"], "denoiser.name: identity there, median:3 here"),
        (["--backend", "local:shade_classifier:slow_shade"], "backend.name"),
        (["--encoding", "jpeg:90"], "encoding.format: raw there, jpeg here"),
        (["--insecure-seed", "3"], "entropy"),
        (["--labels", "labels.csv"], "reference"),
    ],
)
def test_a_run_folder_made_with_other_settings_is_refused(
    invoke: Invoke, folder: Path, changed: list[str], message: str
) -> None:
    invoke("run", folder, *SETTINGS, "--out", "out")
    kept = Path("out/summary.json").read_text()
    result = invoke("run", folder, *SETTINGS, *changed, "--out", "out")
    assert result.exit_code == 2
    assert message in result.stderr
    assert Path("out/summary.json").read_text() == kept


def test_a_picture_that_changed_since_is_left_out(invoke: Invoke, folder: Path) -> None:
    invoke("run", folder, *SETTINGS, "--out", "out", "--limit", "1")
    alter("DELETE FROM verdicts")
    shutil.copy(folder / "5.png", folder / "0.png")
    result = invoke("run", folder, *SETTINGS, "--out", "out")
    assert result.exit_code == 2
    assert "5 of 6 pictures decided" in result.stdout
    assert "0.png: the picture has changed since its first draws" in result.stdout


def test_other_software_may_not_finish_a_picture_that_is_half_done(invoke: Invoke, folder: Path) -> None:
    invoke("run", folder, *SETTINGS, "--out", "out", "--limit", "1")
    alter("UPDATE runs SET software = json_set(software, '$.numpy', '1.0')")
    assert invoke("run", folder, *SETTINGS, "--out", "out", "--limit", "2").exit_code == 0
    alter("DELETE FROM verdicts")
    result = invoke("run", folder, *SETTINGS, "--out", "out", "--limit", "2")
    assert result.exit_code == 2
    assert f"numpy: 1.0 there, {np.__version__} here" in result.stderr


def test_new_labels_are_taken_up_and_a_run_folder_inside_is_no_picture(invoke: Invoke, folder: Path) -> None:
    inside = folder / "out"
    first = json.loads(
        invoke("run", folder, *SETTINGS, "--out", inside, "--labels", "labels.csv", "--json").stdout
    )
    Path("labels.csv").write_text("file,label\n" + "".join(f"{n}.png,never\n" for n in range(6)))
    second = json.loads(
        invoke("run", folder, *SETTINGS, "--out", inside, "--labels", "labels.csv", "--json").stdout
    )
    assert first["certified_accuracy"][0]["share"] > 0.5
    assert second["certified_accuracy"][0]["share"] == 0.0
    assert second["pictures"]["total"] == 6
    assert second["cost"] == first["cost"]


def test_labels_of_equal_names_in_two_folders_are_told_apart(invoke: Invoke, folder: Path) -> None:
    for name in ("a", "b"):
        (folder / name).mkdir()
        shutil.copy(folder / "0.png", folder / name / "same.png")
    rows = "".join(f"{n}.png,dark\n" for n in range(6))
    Path("few.csv").write_text(f"file,label\n{rows}same,dark\n")
    refused = invoke("run", folder, *SETTINGS, "--out", "out", "--labels", "few.csv")
    assert "no label for 2 of 8 pictures, the first is a/same.png" in refused.stderr
    Path("few.csv").write_text(f"file,label\n{rows}a/same.png,dark\nb/same,dark\n")
    assert invoke("run", folder, *SETTINGS, "--out", "out", "--labels", "few.csv").exit_code == 0


def test_a_changed_function_is_another_classifier(invoke: Invoke, folder: Path, tmp_path: Path) -> None:
    settings = ["--backend", "local:mine:answer", *SETTINGS[2:]]
    (tmp_path / "mine.py").write_text("def answer(pixels):\n    return ['a'] * len(pixels)\n")
    run = [sys.executable, "-m", "smoothing_proxy", "run", str(folder), *settings, "--out", "out"]
    assert subprocess.run(run, cwd=tmp_path, timeout=60, check=False, capture_output=True).returncode == 0
    (tmp_path / "mine.py").write_text("def answer(pixels):\n    return ['b'] * len(pixels)\n")
    second = subprocess.run(run, cwd=tmp_path, timeout=60, check=False, capture_output=True, text=True)
    assert second.returncode == 2
    assert "backend.sha256" in second.stderr


def alter(statement: str) -> None:
    """Change the ledger behind the program's back."""
    with closing(sqlite3.connect("out/ledger.db")) as connection, connection:
        connection.execute(statement)


def test_a_ledger_of_a_newer_version_is_refused(invoke: Invoke, folder: Path) -> None:
    invoke("run", folder, *SETTINGS, "--out", "out", "--limit", "1")
    with sqlite3.connect("out/ledger.db") as connection:
        connection.execute("INSERT INTO schema_version VALUES (999)")
    connection.close()
    for command in (["run", folder, *SETTINGS, "--out", "out", "--limit", "1"], ["replay", "out"]):
        result = invoke(*command)
        assert result.exit_code == 2
        assert "written by a newer version" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing"], "missing: no such folder"),
        (["empty"], "empty: no picture in it"),
        (["pictures", "--labels", "few.csv"], "few.csv: no label for 5 of 6 pictures, the first is 1.png"),
        (["pictures", "--labels", "labels.csv", "--label-column", "verdikt"], "did you mean 'verdict'"),
        (["pictures", "--labels", "missing.csv"], "missing.csv"),
        (["pictures", "--out", "few.csv"], "few.csv: cannot be the run's folder"),
    ],
)
def test_a_folder_or_label_file_that_will_not_do_is_refused(
    invoke: Invoke, folder: Path, arguments: list[str], message: str
) -> None:
    Path("empty").mkdir()
    Path("few.csv").write_text("file,label\n0.png,dark\n")
    result = invoke("run", "--out", "out", *arguments, *SETTINGS)
    assert result.exit_code == 2
    assert message in result.stderr
    assert not Path("out/ledger.db").exists()


def test_a_classifier_that_never_answers_is_its_own_fault(invoke: Invoke, folder: Path) -> None:
    settings = ["--backend", "local:shade_classifier:broken", *SETTINGS[2:]]
    result = invoke("run", folder, *settings, "--out", "out", "--labels", "labels.csv")
    assert result.exit_code == 3
    assert "420 draws failed and count as votes for nothing" in result.stdout
    assert "RuntimeError: the model file is gone" in result.stdout
    assert "6 of 6 pictures decided, 6 abstained" in result.stdout


def test_money_is_not_spent_without_a_yes(invoke: Invoke, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from smoothing_proxy.backends.local.local_backend import LocalBackend

    monkeypatch.setattr(LocalBackend, "price_usd", 0.001)
    result = invoke("run", folder, *SETTINGS, "--out", "out")
    assert result.exit_code == 2
    assert "this costs up to $0.43" in result.stderr
    assert not Path("out/ledger.db").exists()
    paid = json.loads(invoke("run", folder, *SETTINGS, "--out", "out", "--yes", "--json").stdout)
    assert paid["cost"]["usd"] == pytest.approx(0.429), "six pictures and three canaries"


def test_replay_reaches_the_same_verdicts_without_a_call(invoke: Invoke, folder: Path) -> None:
    settings = ["--backend", "local:shade_classifier:shade", "--sigma", "0.9", "--n0", "10", "--n", "60"]
    invoke("run", folder, *settings, "--out", "out")
    recorded = [json.loads(line) for line in Path("out/certificates.jsonl").read_text().splitlines()]
    assert len({row["radius"] for row in recorded}) > 2, "verdicts that are all alike test nothing"
    replayed = json.loads(invoke("replay", "out", "--json").stdout)
    assert [(row["file"], row["label"], row["radius"], row["input_radius"]) for row in replayed] == [
        (row["file"], row["label"], row["radius"], row["input_radius"]) for row in recorded
    ]
    assert "6 of 6 recorded verdicts are the same" in invoke("replay", "out").stdout
    stricter = json.loads(invoke("replay", "out", "--alpha", "1e-9", "--json").stdout)
    assert all(a["radius"] <= b["radius"] for a, b in zip(stricter, recorded, strict=True))
    assert any(a["radius"] < b["radius"] for a, b in zip(stricter, recorded, strict=True))


def test_replay_of_what_is_no_run_is_refused(invoke: Invoke, tmp_path: Path) -> None:
    result = invoke("replay", tmp_path)
    assert result.exit_code == 2
    assert "ledger.db is missing" in result.stderr


def test_an_interrupt_settles_what_is_in_flight_and_says_how_to_resume(folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "smoothing_proxy", "run", str(folder), "--out", str(tmp_path / "out")]
    command += ["--backend", "local:shade_classifier:slow_shade", "-b", "batch_size=2", *SETTINGS[2:], "--json"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    wait_for_draws(tmp_path / "out" / "ledger.db", 20, process)
    process.send_signal(signal.SIGINT)
    output, complaints = process.communicate(timeout=60)
    assert process.returncode == 130, complaints
    assert "the same command resumes" in complaints
    summary = json.loads(output)
    assert not summary["complete"]
    assert summary["cost"]["unknown"] == 0
    with sqlite3.connect(tmp_path / "out" / "ledger.db") as connection:
        assert connection.execute("SELECT count(*) FROM draws WHERE status = 'sent'").fetchone() == (0,)
    connection.close()
    resumed = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert resumed.returncode == 0, resumed.stderr
    summary = json.loads(resumed.stdout)
    assert summary["cost"] == {"queries": 6 * 71, "unknown": 0, "usd": 0.0}


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash's ulimit")
def test_a_full_disk_stops_the_run_and_loses_nothing(folder: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "smoothing_proxy",
        "run",
        str(folder),
        "--out",
        str(tmp_path / "out"),
        *SETTINGS,
    ]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    small_disk = ["bash", "-c", 'ulimit -f 150; exec "$@"', "bash", *command]
    stopped = subprocess.run(small_disk, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert stopped.returncode == 2, stopped.stderr
    assert "cannot write" in stopped.stderr
    assert "is the disk full?" in stopped.stderr
    with closing(sqlite3.connect(tmp_path / "out" / "ledger.db")) as connection:
        (settled,) = connection.execute("SELECT count(*) FROM draws WHERE status = 'settled'").fetchone()
    resumed = subprocess.run(
        [*command, "--json"], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert resumed.returncode == 0, resumed.stderr
    cost = json.loads(resumed.stdout)["cost"]
    assert cost["queries"] == 6 * 71
    assert 0 < settled < 6 * 71


def wait_for_draws(path: Path, count: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if path.exists():
            with closing(sqlite3.connect(path, timeout=5)) as connection, suppress(sqlite3.OperationalError):
                if connection.execute("SELECT count(*) FROM draws").fetchone()[0] >= count:
                    return
        time.sleep(0.01)
    raise AssertionError(f"no {count} draws in time")
