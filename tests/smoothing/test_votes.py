"""Votes are counts, nothing more."""

from __future__ import annotations

import pytest

from smoothing_proxy.types import Cost, Votes


def test_a_tally_counts_none_as_failed() -> None:
    votes = Votes.tally(["cat", None, "dog", "cat"])
    assert votes == Votes({"cat": 2, "dog": 1}, failed=1)
    assert votes.n == 4
    assert votes.of("cat") == 2
    assert votes.of(None) == 0


def test_ties_are_broken_by_the_name() -> None:
    assert Votes({"dog": 3, "cat": 3}).ranked() == [("cat", 3), ("dog", 3)]
    assert Votes({"dog": 3, "cat": 3}).top() == "cat"
    assert Votes(failed=3).top() is None


def test_votes_add_and_zero_counts_vanish() -> None:
    assert Votes({"cat": 1, "dog": 0}, 2) + Votes({"cat": 1, "eel": 1}) == Votes({"cat": 2, "eel": 1}, 2)


@pytest.mark.parametrize(("counts", "failed"), [({"cat": -1}, 0), ({}, -1)])
def test_negative_votes_are_refused(counts: dict[str, int], failed: int) -> None:
    with pytest.raises(ValueError, match="negative"):
        Votes(counts, failed)


def test_unknown_queries_are_charged() -> None:
    cost = (Cost(10, 2) + Cost(1, 0)).at(0.001)
    assert (cost.queries, cost.unknown) == (11, 2)
    assert cost.usd == pytest.approx(0.013)
