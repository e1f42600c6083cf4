"""Folders certified through simulated vendors: verdicts valid, every send paid once and known to the ledger."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import time
from pathlib import Path

import pytest

from tests.simulator.processes import SECRET, simulation
from tests.vendors.runs import CLASSIFIER, ENVIRONMENT, VendorRun, shades
from tests.vendors.validity import SHADES_OF_THREE, check_verdicts

VENDORS = ("aws", "google", "azure", "clarifai", "openai")

FAULTS = {
    "throttle": 0.06,
    "unavailable": 0.05,
    "internal": 0.04,
    "timeout": 0.03,
    "reset_before": 0.03,
    "reset_after": 0.03,
    "cut_off": 0.02,
    "malformed": 0.02,
    "blank": 0.01,
    "empty": 0.02,
    "hang": 0.005,
    "picture_internal": 0.03,
    "error_billed": 0.5,
}
"""Close to 30 % of all requests."""


def leaks(out: Path, printed: str) -> list[str]:
    """Where a secret can be read: in what was printed, or in a file of the run."""
    files = [path for path in out.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]
    return [*map(str, files), *(["printed"] if SECRET in printed else [])]


@pytest.mark.timeout(200)
@pytest.mark.parametrize("vendor", VENDORS)
def test_a_folder_is_certified_through_each_vendor_and_paid_once(vendor: str, tmp_path: Path) -> None:
    folder = shades(tmp_path / "pictures", 3, side=96)
    with simulation(vendor, tmp_path, backend=CLASSIFIER, environment=ENVIRONMENT) as there:
        run = VendorRun.against(vendor, there, folder, sigma=0.1, n0=5, n=20, arguments=())
        status, summary, printed = run.finish()
        assert status == 0, printed
        assert summary["pictures"]["decided"] == 3
        assert check_verdicts(run.out, SHADES_OF_THREE, sigma=0.1, n0=5, n=20) == 3
        till = there.till()
        again, same, printed_again = run.finish()
        assert (again, same) == (0, summary), printed_again
        assert there.till()["billed"] == till["billed"]
    assert till["billed"] == summary["cost"]["queries"] == 3 * 26
    assert till["sent_again"] == 0
    assert not leaks(run.out, printed)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("vendor", VENDORS)
def test_under_faults_of_all_kinds_no_draw_is_dropped_and_none_paid_for_behind_the_ledgers_back(
    vendor: str, tmp_path: Path
) -> None:
    folder = shades(tmp_path / "pictures", 3, side=96)
    options = [x for key, value in FAULTS.items() for x in ("-f", f"{key}={value}")]
    with simulation(vendor, tmp_path, *options, backend=CLASSIFIER, environment=ENVIRONMENT) as there:
        run = VendorRun.against(vendor, there, folder, sigma=0.1, n0=10, n=60, arguments=())
        status, summary, printed = run.finish()
        till = there.till()
    assert status == 0, printed
    assert summary["complete"]
    cost = summary["cost"]
    assert summary["draws"]["answered"] + summary["draws"]["failed"] == 3 * 71, "none dropped, none drawn again"
    assert summary["draws"]["answered"] > summary["draws"]["failed"]
    assert check_verdicts(run.out, SHADES_OF_THREE, sigma=0.1, n0=10, n=60) >= 1
    assert cost["queries"] <= till["billed"] <= cost["queries"] + cost["unknown"]
    assert till["sent_again"] <= cost["unknown"]
    assert not leaks(run.out, printed)


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    ("pictures", "kills"), [(4, 4), pytest.param(20, 25, marks=pytest.mark.slow)], ids=["some", "many"]
)
def test_killed_again_and_again_under_faults_the_vendor_never_bills_more_than_the_ledger_knows(
    pictures: int, kills: int, tmp_path: Path
) -> None:
    folder = shades(tmp_path / "pictures", pictures, side=96)
    total = pictures * 71
    options = [x for key, value in (FAULTS | {"hang": 0.0}).items() for x in ("-f", f"{key}={value}")]
    moments = random.Random(7)
    with simulation("aws", tmp_path, *options, backend=CLASSIFIER, environment=ENVIRONMENT) as there:
        run = VendorRun.against("aws", there, folder, sigma=0.1, n0=10, n=60, arguments=("--insecure-seed", "3"))
        for kill in range(kills):
            until = int(total * (kill + moments.uniform(0.1, 0.9)) / kills)
            process = run.start()
            deadline = time.monotonic() + 60
            while there.till()["billed"] < until and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.01)
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate(timeout=30)
        status, summary, printed = run.finish()
        till = there.till()
    assert status == 0, printed
    assert summary["complete"]
    cost = summary["cost"]
    assert summary["draws"]["answered"] + summary["draws"]["failed"] == total
    assert cost["unknown"] > 0, "neither a fault nor a kill left a send unknown: the test is too weak"
    assert till["billed"] <= cost["queries"] + cost["unknown"]
    assert till["sent_again"] <= cost["unknown"], "no settled draw is sent again"
    connection = sqlite3.connect(run.out / "ledger.db")
    [[twice]] = connection.execute("SELECT COUNT(*) FROM draws WHERE status = 'sent'")
    connection.close()
    assert twice == 0
    assert not leaks(run.out, printed)


@pytest.mark.timeout(120)
def test_wrong_credentials_and_a_used_up_quota_stop_the_run_and_cost_nothing(tmp_path: Path) -> None:
    folder = shades(tmp_path / "pictures", 2, side=96)
    with simulation("aws", tmp_path, backend=CLASSIFIER, environment=ENVIRONMENT) as there:
        run = VendorRun.against("aws", there, folder, sigma=0.1, n0=5, n=20, arguments=())
        wrong = VendorRun(
            run.folder, run.out, run.config, environment={"AWS_SECRET_ACCESS_KEY": "entirely-wrong-secret"}
        )
        status, _, printed = wrong.finish()
        assert status == 3
        assert "check the key" in printed
        assert "entirely-wrong-secret" not in printed
        assert there.till()["billed"] == 0
        there.switch(quota_pictures=20)
        status, _, printed = run.finish()
        assert status == 3
        assert "quota" in printed.lower()
        assert there.till()["billed"] == 20
        there.switch()
        status, summary, printed = run.finish()
        assert status == 0, printed
        assert summary["cost"] == {"queries": 52, "unknown": 0, "usd": pytest.approx(0.052)}
        assert there.till()["billed"] == 52


@pytest.mark.timeout(120)
def test_a_model_that_changes_in_the_middle_voids_the_certificate_under_way(tmp_path: Path) -> None:
    folder = shades(tmp_path / "pictures", 3, side=96)
    with simulation("aws", tmp_path, backend=CLASSIFIER, environment=ENVIRONMENT) as there:
        there.switch(model_version="3.0", next_model_version="4.0", model_changes_after=40)
        run = VendorRun.against("aws", there, folder, sigma=0.1, n0=5, n=20, arguments=())
        run.config.write_text(
            run.config.read_text().replace("canaries = false", "pictures_at_once = 1\ncanaries = true")
        )
        status, summary, _ = run.finish()
    assert status == 2
    assert summary["pictures"]["decided"] == 2
    [reason] = summary["pictures"]["left_out"].values()
    assert "3.0, 4.0" in reason
    assert summary["drift"]["changed"]
    assert summary["drift"]["model_versions"] == ["3.0", "4.0"]
