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
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("sklearn", reason="the digits come from scikit-learn")

HERE = Path(__file__).parent
N0, N = 20, 100
FIXED = ("--n0", str(N0), "--n", str(N))
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
    interrupted, whole = killed_and_whole(tmp_path, folder, FIXED, kills, latest=0.9)
    assert interrupted["draws"]["answered"] == whole["draws"]["answered"] == total
    assert whole["cost"] == {"queries": total, "unknown": 0, "usd": 0.0}
    assert len(asked(tmp_path)) == total


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("digits", "kills", "radii"),
    [
        (24, 3, ("0.1",)),
        pytest.param(24, 3, ("0.05", "0.2"), marks=pytest.mark.slow),
        pytest.param(100, 15, ("0.1",), marks=pytest.mark.slow),
    ],
    ids=["some", "some up a ladder", "many"],
)
def test_so_does_one_that_stops_each_picture_when_its_votes_say_so(
    tmp_path: Path, digits: int, kills: int, radii: tuple[str, ...]
) -> None:
    """How many draws were in flight at a stop, and paid for, is chance; what a verdict rests on is not."""
    folder = export_digits(tmp_path, digits)
    settings = [*(part for radius in radii for part in ("--target-radius", radius)), "--max-queries", "200"]
    killed_and_whole(tmp_path, folder, settings, kills, latest=0.6)
    decided = certificates(tmp_path / "whole")
    assert {row["sequential"] for row in decided} == {True}
    assert len({row["n"] for row in decided}) > 3, "they have stopped at different moments"
    assert len({row["radius"] for row in decided}) == len(radii) + 1, "some pictures are not proven"


def killed_and_whole(
    tmp_path: Path, folder: Path, settings: Sequence[str], kills: int, *, latest: float
) -> tuple[dict[str, dict[str, int]], dict[str, dict[str, int]]]:
    """The summaries of a run that was killed so often, and of one that was not; the same but for the bill.

    latest: share of the time between two kills, that the last one finds something left to do.
    """
    whole = finish(tmp_path, folder, "whole", settings)
    moments = random.Random(20240)
    for kill in range(kills):
        until = int(whole["draws"]["answered"] * (kill + moments.uniform(0.2, latest)) / kills)
        kill_once_asked(tmp_path, folder, until, settings)
    interrupted = finish(tmp_path, folder, "interrupted", settings)

    assert certificates(tmp_path / "interrupted") == certificates(tmp_path / "whole")
    unknown = interrupted["cost"]["unknown"]
    assert unknown > 0, "no kill found a draw in flight: the test is too weak"
    assert unknown <= kills * IN_FLIGHT, "only draws in flight at a kill are unknown"
    bill = asked(tmp_path)
    assert sum(bill.values()) <= interrupted["draws"]["answered"] + unknown
    assert sum(count - 1 for count in bill.values()) <= sum(repeats_recorded(tmp_path / "interrupted"))
    return interrupted, whole


def asked(tmp_path: Path) -> Counter[str]:
    return Counter((tmp_path / "interrupted.asked").read_text().split())


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


def start(tmp_path: Path, folder: Path, out: str, settings: Sequence[str]) -> subprocess.Popen[bytes]:
    environment = os.environ | {
        "PYTHONPATH": str(HERE),
        "KNOWN_DIGITS": str(tmp_path / "known.npz"),
        "ASKED": str(tmp_path / f"{out}.asked"),
    }
    command = [sys.executable, "-m", "smoothing_proxy", "run", str(folder), "--out", str(tmp_path / out)]
    command += ["--backend", "local:nearest_digit:classify", "--denoiser", "median:3", "--sigma", "0.25"]
    command += [*settings, "--insecure-seed", "5", "--json"]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )


def kill_once_asked(tmp_path: Path, folder: Path, count: int, settings: Sequence[str]) -> None:
    bill = tmp_path / "interrupted.asked"
    process = start(tmp_path, folder, "interrupted", settings)
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        if bill.exists() and bill.stat().st_size >= count * 65:
            os.killpg(process.pid, signal.SIGKILL)
            break
        time.sleep(0.001)
    _, complaints = process.communicate(timeout=30)
    assert process.returncode == -signal.SIGKILL, f"it ended before it could be killed: {complaints.decode()}"


def finish(tmp_path: Path, folder: Path, out: str, settings: Sequence[str]) -> dict[str, dict[str, int]]:
    process = start(tmp_path, folder, out, settings)
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
