"""The columns of a certificate's line."""

from __future__ import annotations

import pytest

from smoothing_proxy.ledger.records import PictureRecord
from smoothing_proxy.runs.rows import COLUMNS, certificate_row
from smoothing_proxy.stats.certificates import certify_votes, proven_within
from smoothing_proxy.stats.two_sided import certify_two_sided
from smoothing_proxy.types import Certificate, Votes

RECORD = PictureRecord(3, "a.png", reference="cat")
VOTES = Votes({"cat": 95, "dog": 3}, 2)

FIXED = certify_votes(VOTES, "cat", sigma=0.25, alpha=0.001)
STOPPED = proven_within(0.1, "cat", VOTES, sigma=0.25, alpha=0.001)
BOTH = certify_two_sided(VOTES, "cat", ("dog",), sigma=0.25, alpha=0.001)


@pytest.mark.parametrize(
    ("certificate", "sequential", "bounded"),
    [(FIXED, False, False), (STOPPED, True, False), (BOTH, False, True), (None, None, False)],
    ids=["fixed", "target", "two-sided", "none"],
)
def test_a_line_says_what_its_votes_are_and_how_the_radius_was_made(
    certificate: Certificate | None, *, sequential: bool | None, bounded: bool
) -> None:
    row = certificate_row(RECORD, certificate, 0.05 if certificate else None)
    assert tuple(row) == COLUMNS
    assert row["sequential"] is sequential
    assert (row["p_upper"] is not None) == bounded
    assert row["family_radius"] == (0.05 if certificate else None)
    assert (row["file"], row["votes"]) == ("a.png", 95 if certificate else None)
