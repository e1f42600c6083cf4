"""A run killed at any moment resumes, pays for nothing twice, and comes to the same verdicts."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("sklearn", reason="the digits come from scikit-learn")

HERE = Path(__file__).parent
N0, N = 20, 100
IN_FLIGHT = 2 * 32  # requests at once of a classifier on this machine, and copies in each


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("digits", "kills"), [(24, 6), pytest.param(100, 25, marks=pytest.mark.slow)], ids=["some", "many"]
)
def test_a_killed_run_pays_for_no_settled_draw_again_and_reaches_the_same_verdicts(
    tmp_path: Path, digits: int, kills: int
) -> None:
    folder = export_digits(tmp_path, digits)
    total = digits * (N0 + N + 1)
    moments = random.Random(20240)
    for kill in range(kills):
        until = int(total * (kill + moments.uniform(0.2, 0.9)) / kills)
        kill_once_asked(tmp_path, folder, until)
    interrupted = finish(tmp_path, folder, "interrupted")
    whole = finish(tmp_path, folder, "whole")

    assert certificates(tmp_path / "interrupted") == certificates(tmp_path / "whole")
    assert interrupted["draws"]["answered"] == whole["draws"]["answered"] == total
    assert whole["cost"] == {"queries": total, "unknown": 0, "usd": 0.0}
    unknown = interrupted["cost"]["unknown"]
    assert unknown > 0, "no kill found a draw in flight: the test is too weak"
    assert unknown <= kills * IN_FLIGHT, "only draws in flight at a kill are unknown"

    asked = Counter((tmp_path / "interrupted.asked").read_text().split())
    assert sum(asked.values()) <= total + unknown
    repeats = sorted(count - 1 for count in asked.values() if count > 1)
    recorded = repeats_recorded(tmp_path / "interrupted")
    assert sum(repeats) <= sum(recorded)
    assert len(asked) == total


def export_digits(tmp_path: Path, count: int) -> Path:
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = (digits.images * 255 / 16).round().astype(np.uint8)
    folder = tmp_path / "digits"
    folder.mkdir()
    for number in range(count):
        Image.fromarray(pixels[number]).save(folder / f"{number:04}.png")
    with (tmp_path / "known.npz").open("wb") as stream:
        np.savez(stream, pixels=pixels[500:700].reshape(-1, 64).astype(np.float64), labels=digits.target[500:700])
    return folder


def start(tmp_path: Path, folder: Path, out: str) -> subprocess.Popen[bytes]:
    environment = os.environ | {
        "PYTHONPATH": str(HERE),
        "KNOWN_DIGITS": str(tmp_path / "known.npz"),
        "ASKED": str(tmp_path / f"{out}.asked"),
    }
    command = [sys.executable, "-m", "smoothing_proxy", "run", str(folder), "--out", str(tmp_path / out)]
    command += ["--backend", "local:nearest_digit:classify", "--denoiser", "median:3", "--sigma", "0.25"]
    command += ["--n0", str(N0), "--n", str(N), "--insecure-seed", "5", "--json"]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )


def kill_once_asked(tmp_path: Path, folder: Path, count: int) -> None:
    bill = tmp_path / "interrupted.asked"
    process = start(tmp_path, folder, "interrupted")
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        if bill.exists() and bill.stat().st_size >= count * 65:
            os.killpg(process.pid, signal.SIGKILL)
            break
        time.sleep(0.001)
    _, complaints = process.communicate(timeout=30)
    assert process.returncode == -signal.SIGKILL, f"it ended before it could be killed: {complaints.decode()}"


def finish(tmp_path: Path, folder: Path, out: str) -> dict[str, dict[str, int]]:
    process = start(tmp_path, folder, out)
    output, complaints = process.communicate(timeout=300)
    assert process.returncode == 0, complaints.decode()
    return dict(json.loads(output))


def certificates(out: Path) -> list[dict[str, object]]:
    rows = [json.loads(line) for line in (out / "certificates.jsonl").read_text().splitlines()]
    paid = {"queries", "unknown", "usd"}
    return [{key: value for key, value in row.items() if key not in paid} for row in rows]


def repeats_recorded(out: Path) -> list[int]:
    connection = sqlite3.connect(out / "ledger.db")
    found = [sends - 1 for (sends,) in connection.execute("SELECT sends FROM draws WHERE sends > 1")]
    assert not connection.execute("SELECT 1 FROM draws WHERE sends - 1 > unknown").fetchall()
    connection.close()
    return found
