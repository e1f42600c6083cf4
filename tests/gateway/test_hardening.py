"""From many replies to one."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smoothing_proxy.backends.labels import LabelMap
from smoothing_proxy.gateway.hardening import canonical_reply, hardened_labels
from smoothing_proxy.types import Reply, ScoredLabel, Votes

PLAIN = LabelMap()


def reply(**confidences: float) -> Reply:
    return Reply(tuple(ScoredLabel(name, confidence) for name, confidence in confidences.items()))


def hardened(replies: Sequence[Reply | None], labels: LabelMap = PLAIN) -> list[tuple[str, float]]:
    votes = Votes.tally(labels.vote(one) if one else None for one in replies)
    voted = votes.top()
    assert voted is not None
    return [(one.name, one.confidence) for one in hardened_labels(replies, voted, votes, labels.classes_of)]


@pytest.mark.parametrize(
    ("replies", "expected"),
    [
        pytest.param([reply(cat=0.9)] * 3, [("cat", 0.9)], id="all agree"),
        pytest.param(
            [reply(cat=0.9, dog=0.1), reply(cat=0.5, dog=0.2), reply(cat=0.7)],
            [("cat", 0.7), ("dog", 0.1)],
            id="the median over all copies, 0 where a copy does not carry the label",
        ),
        pytest.param(
            [reply(cat=0.9, hat=0.8), reply(cat=0.7)], [("cat", 0.8)], id="half of the copies is too few"
        ),
        pytest.param([reply(cat=0.9), None, reply(cat=0.7)], [("cat", 0.7)], id="a failed copy carries nothing"),
        pytest.param([reply(b=0.5, a=0.5)] * 3, [("a", 0.5), ("b", 0.5)], id="equal ones by name"),
        pytest.param(
            [reply(a=0.9), reply(a=0.8), reply(b=0.9), reply(c=0.7)],
            [("a", 0.8500000000000001)],
            id="what was voted is carried, though by half of the copies, with their median",
        ),
        pytest.param(
            [reply(a=0.2, b=0.1)] * 3 + [reply(a=0.9, b=0.8)] * 3 + [reply(b=0.85)] * 4,
            [("a", 0.2), ("b", 0.2)],
            id="no label stands above the one that was voted",
        ),
    ],
)
def test_a_hardened_reply_carries_what_most_copies_carry(
    replies: list[Reply | None], expected: list[tuple[str, float]]
) -> None:
    assert hardened(replies) == expected


def test_ids_parents_and_aliases_are_kept() -> None:
    label = ScoredLabel("Pug", 0.9, "/m/1", ("Dog",), ("Carlin",))
    (kept,) = hardened_labels([Reply((label,))] * 3, "Pug", Votes({"Pug": 3}), PLAIN.classes_of)
    assert (kept.scored, kept.copies, kept.votes) == (label, 3, 3)


def test_of_a_voted_group_its_best_member_stands_first() -> None:
    labels = LabelMap(groups={"dog": ("pug", "boxer")}, combine="sum")
    found = hardened([reply(pug=0.3, boxer=0.25, tree=0.5)] * 3, labels)
    assert found == [("pug", 0.3), ("tree", 0.3), ("boxer", 0.25)]


def test_canonical_replies_are_in_the_words_of_the_label_map() -> None:
    labels = LabelMap(groups={"dog": ("pug", "boxer")}, combine="sum")
    assert canonical_reply(reply(pug=0.7, boxer=0.6), labels).labels == (ScoredLabel("dog", 1.0),)


names = st.sampled_from("abcd")
replies = st.dictionaries(names, st.floats(0.01, 1), min_size=1).map(lambda scores: reply(**scores))


@given(st.lists(replies, min_size=1, max_size=12))
def test_the_first_label_is_always_the_one_that_was_voted(some: list[Reply]) -> None:
    votes = Votes.tally(PLAIN.vote(one) for one in some)
    found = hardened(some)
    assert found[0][0] == votes.top()
    assert [confidence for _, confidence in found] == sorted((c for _, c in found), reverse=True)
    for name, _ in found[1:]:
        assert 2 * sum(any(label.name == name for label in one.labels) for one in some) > len(some)
