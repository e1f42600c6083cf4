from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smoothing_proxy.backends.labels import LabelMap, label_map
from smoothing_proxy.errors import ConfigError, MalformedReplyError
from smoothing_proxy.types import Reply, ScoredLabel

Scores = dict[str, float]

ANIMALS: dict[str, Any] = {
    "synonyms": {"Doggo": "Dog", "/m/0bt9lr": "Dog"},
    "groups": {"dog": ["Dog", "Puppy"], "bird": ["Vulture", "Eagle"]},
}


def reply(scores: Scores) -> Reply:
    return Reply(tuple(ScoredLabel(name, confidence) for name, confidence in scores.items()))


@pytest.mark.parametrize(
    ("settings", "scores", "vote"),
    [
        ({}, {"Cat": 0.6, "Dog": 0.7}, "Dog"),
        ({}, {}, None),
        ({}, {"b": 0.5, "a": 0.5, "c": 0.5}, "a"),
        ({}, {"b": 0.0, "a": 0.0}, "a"),
        ({"threshold": 0.5}, {"Dog": 0.5}, "Dog"),
        ({"threshold": 0.5}, {"Dog": 0.49}, None),
        (ANIMALS, {"Doggo": 0.9, "Cat": 0.8}, "dog"),
        (ANIMALS, {"dog": 0.9, "Cat": 0.8}, "dog"),
        (ANIMALS, {"Puppy": 0.5, "Eagle": 0.5, "Cat": 0.4}, "bird"),
        (ANIMALS, {"Puppy": 0.4, "Dog": 0.4, "Eagle": 0.5}, "bird"),
        ({**ANIMALS, "combine": "sum"}, {"Puppy": 0.4, "Dog": 0.4, "Eagle": 0.5}, "dog"),
        ({**ANIMALS, "combine": "sum"}, {"Doggo": 0.4, "Dog": 0.4, "Eagle": 0.5}, "bird"),
        ({**ANIMALS, "combine": "sum"}, {"Doggo": 0.4, "Dog": 0.4, "Eagle": 0.4}, "bird"),
        ({**ANIMALS, "closed": True}, {"Cat": 0.9, "Eagle": 0.1}, "bird"),
        ({**ANIMALS, "closed": True}, {"Cat": 0.9}, None),
        ({**ANIMALS, "closed": True, "other": "else"}, {"Cat": 0.9, "Eagle": 0.1}, "else"),
        ({**ANIMALS, "closed": True, "other": "else"}, {}, None),
        ({"closed": True, "synonyms": {"Vulture": "Bird"}}, {"Vulture": 0.2, "Bird": 0.1, "Cat": 0.9}, "Bird"),
        (ANIMALS, {"DOGGO": 0.9, "Cat": 0.8}, "DOGGO"),
        ({**ANIMALS, "ignore_case": True}, {"DOGGO": 0.9, "Cat": 0.8}, "dog"),
        ({"ignore_case": True}, {"CAT": 0.9, "Dog": 0.8}, "cat"),
        ({"groups": {"Dog": ["dog"]}, "ignore_case": True}, {"DOG": 0.9}, "Dog"),
        ({"present": {"label": "Dog", "confidence": 0.5}}, {"Cat": 0.9, "Dog": 0.5}, "Dog"),
        ({"present": {"label": "Dog", "confidence": 0.5}}, {"Cat": 0.9, "Dog": 0.4}, "not Dog"),
        ({"present": {"label": "Dog", "confidence": 0.5}}, {"Cat": 0.9}, "not Dog"),
        ({"present": {"label": "Dog", "confidence": 0.5}}, {}, None),
        ({**ANIMALS, "present": {"label": "dog", "confidence": 0.5}}, {"Puppy": 0.7}, "dog"),
        ({**ANIMALS, "closed": True, "present": {"label": "dog", "confidence": 0.5}}, {"Cat": 0.7}, "not dog"),
        ({"ignore_case": True, "present": {"label": "Dog", "confidence": 0.5}}, {"DOG": 0.7}, "Dog"),
    ],
)
def test_a_reply_votes_for(settings: dict[str, Any], scores: Scores, vote: str | None) -> None:
    assert label_map(settings).vote(reply(scores)) == vote


@pytest.mark.parametrize(
    ("settings", "label", "canonical"),
    [
        ({}, ScoredLabel("Dog", 0.5, "/m/1"), "Dog"),
        ({}, ScoredLabel("", 0.5, "/m/1"), "/m/1"),
        (ANIMALS, ScoredLabel("Hund", 0.5, "/m/0bt9lr"), "dog"),
        ({"synonyms": {"/m/1": "by id", "Dog": "by name"}}, ScoredLabel("Dog", 0.5, "/m/1"), "by id"),
    ],
)
def test_an_id_is_looked_up_before_the_name(settings: dict[str, Any], label: ScoredLabel, canonical: str) -> None:
    assert label_map(settings).scores(Reply((label,))) == {canonical: 0.5}


def test_a_label_that_is_there_twice_counts_once_with_its_highest_confidence() -> None:
    twice = Reply((ScoredLabel("Dog", 0.2), ScoredLabel("Dog", 0.6), ScoredLabel("Dog", 0.4)))
    assert label_map({**ANIMALS, "combine": "sum"}).scores(twice) == {"dog": 0.6}


@pytest.mark.parametrize("confidence", [math.nan, math.inf, -math.inf, -1e-9, 1.0 + 1e-9, 99.6])
def test_a_confidence_outside_0_to_1_is_a_malformed_reply(confidence: float) -> None:
    with pytest.raises(MalformedReplyError, match=r"'Dog': confidence .* is outside"):
        LabelMap().vote(reply({"Cat": 0.5, "Dog": confidence}))


def test_a_label_without_name_and_id_is_a_malformed_reply() -> None:
    with pytest.raises(MalformedReplyError, match="neither name nor id"):
        LabelMap().vote(Reply((ScoredLabel("", 0.5),)))


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"grups": {}}, "grups: unknown key; did you mean 'groups'"),
        ({"present": {"label": "Dog", "confidense": 0.5}}, "present.confidense: unknown key"),
        ({"present": {"label": "Dog", "confidence": 0.0}}, "present.confidence"),
        ({"combine": "mean"}, "combine"),
        ({"threshold": -0.1}, "threshold"),
        ({"groups": {"a": ["x"], "b": ["x"]}}, "'x' has two meanings: 'a' and 'b'"),
        ({"groups": {"a": ["b"], "b": []}}, "'b' has two meanings"),
        ({"groups": {"a": ["X"], "b": ["x"]}, "ignore_case": True}, "'x' has two meanings"),
        ({"synonyms": {"x": "y"}, "groups": {"a": ["x"]}}, "'x' has two meanings"),
        ({"synonyms": {"x": "y", "y": "z"}}, "'y' has two meanings"),
        ({"synonyms": {"X": "y", "x": "z"}, "ignore_case": True}, "'x' has two meanings"),
        ({"groups": {"a": [""]}}, "groups.a.0"),
        ({"closed": True}, "set `groups` or `synonyms`"),
        ({"other": "else"}, "set `closed = true`"),
        ({**ANIMALS, "closed": True, "other": "dog"}, "'dog' is one already"),
        ({"threshold": 0.5, "present": {"label": "Dog", "confidence": 0.5}}, "leave out `threshold`"),
        ({**ANIMALS, "closed": True, "present": {"label": "dgo", "confidence": 0.5}}, "did you mean 'dog'"),
    ],
)
def test_a_map_that_contradicts_itself_is_refused(settings: dict[str, Any], fault: str) -> None:
    with pytest.raises(ConfigError, match=fault):
        label_map(settings)


@pytest.mark.parametrize(
    ("settings", "classes"),
    [
        ({}, ()),
        (ANIMALS, ()),
        ({**ANIMALS, "closed": True}, ("bird", "dog")),
        ({**ANIMALS, "closed": True, "other": "cat"}, ("bird", "cat", "dog")),
        ({"closed": True, "synonyms": {"Vulture": "Bird"}}, ("Bird",)),
        ({"present": {"label": "Dog", "confidence": 0.5}}, ("Dog", "not Dog")),
    ],
)
def test_a_closed_map_names_its_classes(settings: dict[str, Any], classes: tuple[str, ...]) -> None:
    assert label_map(settings).classes == classes


def test_a_map_is_read_from_its_own_file(tmp_path: Path) -> None:
    path = tmp_path / "labels.toml"
    path.write_text('combine = "sum"\n[groups]\ndog = ["Dog", "Puppy"]\n')
    assert label_map(path) == label_map({"combine": "sum", "groups": {"dog": ["Dog", "Puppy"]}})
    path.write_text("combin = 1\n")
    with pytest.raises(ConfigError, match=r"labels\.toml: combin: unknown key; did you mean 'combine'"):
        label_map(str(path))
    with pytest.raises(ConfigError, match="no such file"):
        label_map(tmp_path / "missing.toml")


def test_the_fingerprint_follows_what_the_map_does() -> None:
    reordered = {"groups": {"bird": ["Eagle", "Vulture"], "dog": ["Puppy", "Dog"]}, "combine": "max"}
    ordered = {"groups": ANIMALS["groups"]}
    assert label_map(reordered).fingerprint() == label_map(ordered).fingerprint()
    changed = [{}, ordered, ANIMALS, {**ordered, "combine": "sum"}, {**ordered, "threshold": 0.5}]
    assert len({label_map(settings).fingerprint() for settings in changed}) == len(changed)
    expected = "f7fe22df144fa60d791ff28c2f4c7656fd1c35d6b58b5e2ec753c94391ec77ca"
    assert label_map({**ANIMALS, "parents": True}).fingerprint() != label_map(ANIMALS).fingerprint()
    known = {"groups": {"dog": ["Dog", "Puppy"]}, "synonyms": {"Doggo": "Dog"}, "combine": "sum"}
    assert label_map(known).fingerprint() == expected


TREE: dict[str, Any] = {
    "parents": True,
    "synonyms": {"Hound": "Dog", "Canine": "Wolf"},
    "groups": {"dog": ["Dog"], "cat": ["Cat"], "pug": ["Show Pug"], "pet": ["Companion"]},
}
PUG = ScoredLabel("Pug", 0.9, parents=("Animal", "Dog", "Canine"))


@pytest.mark.parametrize(
    ("settings", "labels", "scores"),
    [
        (TREE, (PUG,), {"dog": 0.9}),
        ({**TREE, "parents": False}, (PUG,), {"Pug": 0.9}),
        (TREE, (PUG, ScoredLabel("Dog", 0.95)), {"dog": 0.95}),
        ({**TREE, "combine": "sum"}, (PUG, ScoredLabel("Dog", 0.5)), {"dog": 0.9}),
        (TREE, (ScoredLabel("Beagle", 0.8, parents=("Hound",)),), {"dog": 0.8}),
        (TREE, (ScoredLabel("Fox", 0.8, parents=("Canine",)),), {"Fox": 0.8}),
        (TREE, (ScoredLabel("Show Pug", 0.8, parents=("Dog",)),), {"pug": 0.8}),
        (TREE, (ScoredLabel("Pug", 0.7, parents=("Dog", "Companion")),), {"dog": 0.7, "pet": 0.7}),
        (TREE, (ScoredLabel("Car", 0.7, parents=("Vehicle",)),), {"Car": 0.7}),
        ({**TREE, "closed": True}, (ScoredLabel("Car", 0.7, parents=("Vehicle",)),), {}),
        ({**TREE, "closed": True, "other": "else"}, (PUG, ScoredLabel("Car", 0.7)), {"dog": 0.9, "else": 0.7}),
        ({**TREE, "ignore_case": True}, (ScoredLabel("Beagle", 0.7, parents=("DOG",)),), {"dog": 0.7}),
    ],
)
def test_a_label_without_a_class_counts_for_those_of_its_parents(
    settings: dict[str, Any], labels: tuple[ScoredLabel, ...], scores: Scores
) -> None:
    labels_map = label_map(settings)
    assert labels_map.scores(Reply(labels)) == scores
    assert {name for label in labels for name in labels_map.classes_of(label)} == set(scores)


def test_a_parent_answers_a_question_of_presence() -> None:
    labels_map = label_map({**TREE, "present": {"label": "dog", "confidence": 0.8}})
    assert labels_map.vote(Reply((PUG,))) == "dog"
    assert labels_map.vote(Reply((ScoredLabel("Car", 0.9),))) == "not dog"


@pytest.mark.parametrize(
    ("label", "scores"),
    [
        (ScoredLabel("Car", 0.5, aliases=("Automobile",)), {"vehicle": 0.5}),
        (ScoredLabel("Car", 0.5, "/m/1", aliases=("Automobile",)), {"by id": 0.5}),
        (ScoredLabel("Truck", 0.5, aliases=("Automobile",)), {"lorry": 0.5}),
        (ScoredLabel("Car", 0.5, aliases=("Motor", "Automobile")), {"vehicle": 0.5}),
        (ScoredLabel("Car", 0.5, aliases=("Automobile", "Motor")), {"vehicle": 0.5}),
        (ScoredLabel("Car", 0.5, parents=("Engine",), aliases=("Automobile",)), {"vehicle": 0.5}),
        (ScoredLabel("Car", 0.5, aliases=("Coach",)), {"Car": 0.5}),
    ],
)
def test_an_id_goes_before_a_name_a_name_before_an_alias_and_an_alias_before_parents(
    label: ScoredLabel, scores: Scores
) -> None:
    settings = {
        "parents": True,
        "synonyms": {"/m/1": "by id", "Truck": "lorry"},
        "groups": {"vehicle": ["Automobile"], "machine": ["Motor", "Engine"]},
    }
    assert label_map(settings).scores(Reply((label,))) == scores


def test_the_shipped_map_takes_the_words_and_ids_of_several_vendors() -> None:
    labels_map = label_map(Path(__file__).parents[2] / "configs" / "labels" / "everyday.toml")
    replies: dict[str | None, Reply] = {
        "dog": Reply((PUG, ScoredLabel("Animal", 0.99))),
        "vehicle": Reply((ScoredLabel("Automobil", 0.9, "/m/0k4j"),)),
        "bird": Reply((ScoredLabel("bird", 0.9), ScoredLabel("outdoor", 0.8))),
        "plant": Reply((ScoredLabel("texture", 0.9), ScoredLabel("tree", 0.6), ScoredLabel("cat", 0.4))),
        None: Reply((ScoredLabel("texture", 0.9), ScoredLabel("cat", 0.4))),
    }
    assert {name: labels_map.vote(reply) for name, reply in replies.items()} == {name: name for name in replies}
    assert set(labels_map.classes) == {"person", "dog", "cat", "bird", "vehicle", "food", "plant", "building"}


NAMES = ["Dog", "dog", "Doggo", "Puppy", "Eagle", "Vulture", "Cat", "cat"]
SOME_NAMES = st.lists(st.sampled_from(NAMES), max_size=3).map(tuple)
LABELS = st.builds(
    ScoredLabel,
    st.sampled_from(NAMES),
    st.sampled_from([0.0, 0.1, 0.2, 0.3, 1.0]) | st.floats(0, 1),
    parents=SOME_NAMES,
    aliases=SOME_NAMES,
)
MAPS = [
    label_map({**base, "combine": combine, **closed, "ignore_case": ignore_case, "parents": parents})
    for parents in (False, True)
    for base in ({}, ANIMALS)
    for combine in ("max", "sum")
    for closed in ({}, {"closed": True, "groups": {"else": ["Cat"]}})
    for ignore_case in (False, True)
]


@given(st.data(), st.lists(LABELS, max_size=8), st.sampled_from(MAPS))
def test_the_order_of_a_reply_never_changes_its_vote(
    data: st.DataObject, labels: list[ScoredLabel], labels_map: LabelMap
) -> None:
    shuffled = data.draw(st.permutations(labels))
    assert labels_map.scores(Reply(tuple(shuffled))) == labels_map.scores(Reply(tuple(labels)))
    assert labels_map.vote(Reply(tuple(shuffled))) == labels_map.vote(Reply(tuple(labels)))


@given(st.lists(LABELS, min_size=1, max_size=8), st.sampled_from(MAPS))
def test_no_label_has_a_better_score_than_the_vote(labels: list[ScoredLabel], labels_map: LabelMap) -> None:
    scores = labels_map.scores(Reply(tuple(labels)))
    vote = labels_map.vote(Reply(tuple(labels)))
    rivals = [(-confidence, label) for label, confidence in scores.items()]
    assert vote == (min(rivals)[1] if rivals else None)
