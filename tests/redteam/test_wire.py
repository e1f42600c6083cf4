"""Black-box attacks through a vendor's wire: budgets hold, and the ledger knows what the vendor billed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from smoothing_proxy.assembly import LEDGER_NAME
from smoothing_proxy.ledger.store import Ledger
from tests.simulator.processes import SECRET, simulation
from tests.vendors.runs import CLASSIFIER, ENVIRONMENT, shades

PICTURES, QUERIES, DRAWS = 2, 6, 3


@pytest.mark.timeout(200)
@pytest.mark.parametrize("name", ["square", "hopskipjump"])
def test_an_attack_on_a_vendor_is_paid_through_the_ledger_and_keeps_its_budget(name: str, tmp_path: Path) -> None:
    folder, out = shades(tmp_path / "pictures", PICTURES, side=96), tmp_path / "out"
    with simulation("aws", tmp_path, backend=CLASSIFIER, environment=ENVIRONMENT) as there:
        command = [
            sys.executable, "-m", "smoothing_proxy", "attack", str(folder), "--attack", name, "--eps", "0.05",
            "--backend", "aws-rekognition", "-b", "region=eu-west-1", "-b", f"endpoint={there.url}",
            "--sigma", "0.1", "--denoiser", "gaussian:1", "--method", "fixed", "--n0", "5", "--n", "20",
            "--attack-queries", str(QUERIES), "--attack-draws", str(DRAWS), "--budget-queries", "500",
            "--out", str(out), "--yes", "--json",
        ]  # fmt: skip
        done = subprocess.run(
            command, env=os.environ | ENVIRONMENT, capture_output=True, text=True, timeout=150, check=False
        )
        till = there.till()
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)["rows"]
    assert 1 <= row["raw_queries"] <= QUERIES
    assert 1 <= row["hardened_queries"] <= QUERIES
    with Ledger(out / LEDGER_NAME) as ledger:
        assert ledger.totals.cost().unknown == 0
        assert ledger.totals.cost().queries == ledger.account.spent == till["billed"]
    attacked = PICTURES * (row["raw_queries"] + DRAWS * row["hardened_queries"])
    judged = PICTURES * (1 + (1 + 25 + 20) + 1 + 20)
    assert till["billed"] == attacked + judged, "labels, clean, certified, and both looks at what was made"
    assert SECRET not in done.stdout + done.stderr
