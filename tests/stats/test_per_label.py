"""Which labels of a multi-label reply are tested, and what their certificates say."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smoothing_proxy.stats.certificates import certify_votes
from smoothing_proxy.stats.per_label import Chosen, Scores, certify_presence, choose_labels
from smoothing_proxy.types import Votes

SIGMA = 0.25


def replies(n: int, failed: int = 0, **shares: float) -> list[Scores | None]:
    """n replies, each label at 0.9 in its share of them and at 0.1 in the others; and some failed ones."""
    answered: list[Scores | None] = [
        {label: 0.9 if i < share * n else 0.1 for label, share in shares.items()} for i in range(n)
    ]
    return answered + [None] * failed


def chosen(
    selection: Sequence[Scores | None], *, most: int = 10, n: int = 1000, watched: tuple[str, ...] = ()
) -> dict[str, bool]:
    found = choose_labels(selection, threshold=0.5, most=most, n=n, alpha=0.001, watched=watched)
    return {claim.label: claim.present for claim in found}


def test_labels_that_are_mostly_there_or_mostly_not_are_tested_and_the_undecided_are_not() -> None:
    selection = replies(100, tree=1.0, dog=0.9, cat=0.5, car=0.1, sofa=0.0)
    assert chosen(selection) == {"tree": True, "dog": True, "car": False}


def test_how_far_from_one_half_depends_on_what_the_draws_can_prove() -> None:
    selection = replies(100, tree=0.6, dog=0.75, cat=0.97)
    assert set(chosen(selection, n=10_000)) == {"tree", "dog", "cat"}
    assert set(chosen(selection, n=100)) == {"dog", "cat"}
    assert set(chosen(selection, n=15)) == {"cat"}
    assert set(chosen(selection, n=5)) == set()


def test_a_claim_is_worth_it_if_it_can_be_proven_at_the_smallest_share_of_alpha() -> None:
    selection = replies(100, a=1.0)
    assert chosen(selection, n=11, most=1) == {"a": True}
    assert chosen(selection, n=11, most=10) == {}
    assert chosen(selection, n=14, most=10) == {"a": True}


def test_a_label_at_the_threshold_is_present() -> None:
    assert chosen([{"a": 0.5, "b": 0.4999}] * 100) == {"a": True}


def test_the_most_frequent_present_ones_come_first_and_then_the_absent_ones_up_to_the_cap() -> None:
    selection = replies(100, a=0.8, b=0.9, c=0.9, x=0.05, y=0.1)
    assert list(chosen(selection)) == ["b", "c", "a", "x", "y"]
    assert list(chosen(selection, most=2)) == ["b", "c"]


def test_watched_labels_are_tested_whatever_the_draws_say() -> None:
    selection = replies(100, a=0.9, b=0.5, c=0.8)
    assert list(chosen(selection, watched=("nobody saw it", "b"))) == ["nobody saw it", "b", "a", "c"]
    assert chosen(selection, watched=("nobody saw it", "b"))["nobody saw it"] is False
    assert list(chosen(selection, watched=("c",), most=1)) == ["c"]


def test_failed_draws_are_no_evidence_for_either() -> None:
    assert chosen(replies(20, 80, a=1.0, b=0.05)) == {}
    assert chosen(replies(90, 10, a=1.0, b=0.05)) == {"a": True, "b": False}
    assert chosen([None] * 50, watched=("a",)) == {"a": False}


@settings(deadline=None)
@given(st.permutations(range(30)))
def test_the_order_of_the_draws_does_not_matter(order: list[int]) -> None:
    selection = replies(25, 5, a=0.9, b=0.1, c=0.9)
    assert chosen([selection[i] for i in order]) == chosen(selection)


@pytest.mark.parametrize(
    ("claim", "votes", "said"),
    [
        (Chosen("dog", present=True), Votes({"present": 95, "absent": 5}), True),
        (Chosen("dog", present=False), Votes({"present": 5, "absent": 95}), False),
        (Chosen("dog", present=True), Votes({"present": 5, "absent": 95}), None),
        (Chosen("dog", present=False), Votes({"present": 5, "absent": 55}, failed=40), None),
        (Chosen("dog", present=True), Votes(failed=100), None),
    ],
)
def test_a_certificate_is_that_of_two_classes(claim: Chosen, votes: Votes, said: bool | None) -> None:
    proof = certify_presence(claim, votes, threshold=0.5, sigma=SIGMA, alpha=0.001)
    plain = certify_votes(votes, "present" if claim.present else "absent", sigma=SIGMA, alpha=0.001)
    assert proof.present is said
    assert (proof.radius, proof.p_lower, proof.votes) == (plain.radius, plain.p_lower, votes)
    assert (proof.radius > 0) == (said is not None)
    assert (proof.label, proof.threshold) == ("dog", 0.5)


counts = st.tuples(st.integers(0, 200), st.integers(0, 200), st.integers(0, 30))


@settings(deadline=None)
@given(counts, st.booleans(), st.integers(1, 20))
def test_the_radius_grows_with_votes_shrinks_with_failures_and_scales_with_sigma(
    c: tuple[int, int, int], present: bool, more: int
) -> None:
    def radius(says: int, says_not: int, failed: int, sigma: float = SIGMA) -> float:
        votes = Votes({"present": says if present else says_not, "absent": says_not if present else says}, failed)
        return certify_presence(Chosen("x", present), votes, threshold=0.5, sigma=sigma, alpha=0.01).radius

    assert radius(c[0] + more, c[1], c[2]) >= radius(*c)
    assert radius(c[0], c[1], c[2] + more) <= radius(*c)
    assert radius(c[0], c[1] + more, c[2]) == radius(c[0], c[1], c[2] + more)
    assert radius(*c, 3 * SIGMA) == pytest.approx(3 * radius(*c), rel=1e-13)
