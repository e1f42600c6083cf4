"""The figures of docs/proofs.md and docs/queries.md are those that the committed programs make."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
PROOFS: Any = SimpleNamespace(**runpy.run_path(str(BENCHMARKS / "bench_proofs.py")))
LIVE: Any = SimpleNamespace(**runpy.run_path(str(BENCHMARKS / "certify_live.py")))


def between(page: str, name: str) -> list[list[str]]:
    """The cells of a table, without its two lines of header."""
    lines = page.split(f"<!-- {name} -->\n")[1].split(f"\n<!-- end {name} -->")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_exact_tables_about_proofs_are_computed_again() -> None:
    page = PROOFS.DOCS.read_text(encoding="utf-8")
    made = PROOFS.tables([])
    assert all(made[name] in page for name in ("claims", "any time"))
    assert PROOFS.missing(page) == []
    assert len(PROOFS.missing(page.replace("11 are needed", "12 are needed"))) == 1


def test_the_simulated_table_about_proofs_is_simulated_again() -> None:
    rows = between(PROOFS.DOCS.read_text(encoding="utf-8"), "two-sided")
    documented = [[0.0 if cell == "abstains" else float(cell) for cell in row] for row in rows]
    assert len(documented) == len(PROOFS.SPREADS)
    for shown, found in zip(documented, PROOFS.two_sided_rows(40), strict=True):
        assert shown == pytest.approx(found, abs=0.06)


def test_the_live_table_is_that_of_the_last_live_run() -> None:
    page = LIVE.DOCS.read_text(encoding="utf-8")
    found = json.loads(LIVE.RESULTS.read_text(encoding="utf-8"))
    assert LIVE.with_table(page, found) == page
    fixed, target = (found[f"aws natural {name}"] for name in ("fixed", "target"))
    assert f"{target['billed']:,}" in page
    assert f"{fixed['billed']:,}" in page
