"""Verdicts held against the draws that they were made from, without the code that made them."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from scipy.stats import beta, norm

__all__ = ["SHADES_OF_THREE", "check_verdicts"]

SHADES_OF_THREE = {"000.png": "dark", "001.png": "grey", "002.png": "light"}
"""What tests.vendors.runs.shades(folder, 3) shows."""

ALPHA = 0.001


def check_verdicts(out: Path, truth: Mapping[str, str], *, sigma: float, n0: int, n: int) -> int:
    """Assert that each verdict of a fixed-n run follows from its own draws, and that each proven label is right.

    Every draw is there once; the label is the selection's leader, and its radius that of Cohen et al. 2019 for the
    estimation's count, where a failed draw counts in n and for nobody. Returns how many labels are proven.
    """
    proven = 0
    with closing(sqlite3.connect(out / "ledger.db")) as ledger:
        verdicts = ledger.execute(
            "SELECT pictures.id, name, label, radius FROM pictures JOIN verdicts ON picture_id = pictures.id"
        ).fetchall()
        assert {name for _, name, _, _ in verdicts} == set(truth)
        for picture, name, label, radius in verdicts:
            rows = ledger.execute(
                "SELECT number, status, label FROM draws WHERE picture_id = ? AND number >= 0 ORDER BY number",
                [picture],
            ).fetchall()
            assert [number for number, _, _ in rows] == list(range(n0 + n))
            assert all(vote is None for _, status, vote in rows if status == "failed")
            selection = Counter(vote for number, _, vote in rows if number < n0 and vote)
            most = max(selection.values())
            leader = min(vote for vote, count in selection.items() if count == most)
            count = sum(vote == leader for number, _, vote in rows if number >= n0)
            p_lower = beta.ppf(ALPHA, count, n - count + 1) if count else 0.0
            if label is None:
                assert p_lower <= 0.5
                continue
            proven += 1
            assert label == leader == truth[name]
            exact = sigma * norm.ppf(p_lower)
            assert 0 < radius <= exact + 1e-9
            assert abs(radius - exact) < 1e-6
    return proven
