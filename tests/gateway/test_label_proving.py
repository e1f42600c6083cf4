"""What the draws of a verdict prove about each label: which of them choose, which of them count."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from smoothing_proxy.backends.labels import LabelMap
from smoothing_proxy.gateway.engine import Kind
from smoothing_proxy.gateway.label_proofs import LabelProof, LabelProofs
from smoothing_proxy.gateway.label_proving import CHOOSING, prove_labels, split_of
from smoothing_proxy.images.geometry import WorkingSize, resize_map
from smoothing_proxy.smoothing.drive import Tape, replay
from smoothing_proxy.smoothing.label_plans import labels_plan
from smoothing_proxy.smoothing.placing import place_labels
from smoothing_proxy.smoothing.reply_stream import scores_of
from smoothing_proxy.smoothing.settings import PerLabel, Smoothing
from smoothing_proxy.stats.so_far import lower_bound_so_far
from smoothing_proxy.types import Reply, ScoredLabel

FIXED = Smoothing(sigma=0.25, n0=20, n=200)
TARGET = Smoothing(sigma=0.25, target_radius=0.25)
LARGEST = Smoothing(sigma=0.25, n0=20, method="largest")
PREDICT = Smoothing(sigma=0.25)
PLAIN = LabelMap()
HALVED = resize_map(96, 96, WorkingSize.parse("48x48"))


def reply(**confidences: float) -> Reply:
    return Reply(tuple(ScoredLabel(name, confidence) for name, confidence in confidences.items()))


def draws(n: int, **shares: float) -> list[Reply | None]:
    """n replies; each label has 0.9 in its share of every twenty of them, and 0.1 in the others."""
    return [
        reply(**{name: 0.9 if (7 * i) % 20 < 20 * share else 0.1 for name, share in shares.items()})
        for i in range(n)
    ]


def proofs(
    replies: Sequence[Reply | None],
    smoothing: Smoothing,
    kind: Kind = "certify",
    *,
    answered: Sequence[str] = (),
    labels: LabelMap = PLAIN,
    **asked: Any,
) -> LabelProofs:
    split = split_of(kind, smoothing)
    return prove_labels(replies, answered, split, PerLabel(**asked), smoothing, labels, HALVED)


def of(found: LabelProofs, label: str) -> LabelProof:
    return next(proof for proof in found.labels if proof.label == label)


@pytest.mark.parametrize("radius", [None, 0.1])
def test_a_fixed_number_of_draws_proves_what_the_per_label_plan_proves(radius: float | None) -> None:
    replies = [*draws(219, tree=1.0, dog=0.95, cat=0.5, car=0.05), None]
    asked = PerLabel(confidence_radius=radius, watched=("sofa",))
    found = proofs(replies, FIXED, confidence_radius=radius, watched=("sofa",))
    tape = Tape([scores_of(one, PLAIN) for one in replies])
    plain = place_labels(replay(labels_plan(FIXED, asked), tape.take), HALVED)
    assert (found.alpha_each, found.selection, found.estimation) == (plain.alpha_each, 20, 200)
    assert (found.failed, found.tested, found.sequential) == (1, len(plain.labels), False)
    for proof, expected in zip(found.labels, plain.labels, strict=True):
        assert (proof.label, proof.present, proof.p_lower) == (expected.label, expected.present, expected.p_lower)
        assert (proof.radius, proof.input_radius) == (expected.radius, expected.input_radius)
        assert proof.votes == dict(expected.votes.counts)
        assert (proof.confidence is None) == (expected.confidence is None)
        if proof.confidence is not None and expected.confidence is not None:
            bounds = (expected.confidence.median, expected.confidence.low, expected.confidence.high)
            assert (proof.confidence.median, proof.confidence.low, proof.confidence.high) == bounds
    assert of(found, "sofa").present is False, "what was asked for is proven to stay away"


@pytest.mark.parametrize(
    ("kind", "smoothing", "selection"),
    [
        ("certify", FIXED, 20),
        ("certify", LARGEST, 20),
        ("certify", TARGET, CHOOSING),
        ("predict", PREDICT, CHOOSING),
        ("predict", TARGET, CHOOSING),
        ("predict", Smoothing(sigma=0.25, n0=100, n=150, method="fixed"), 75),
        ("predict", Smoothing(sigma=0.25, n0=100, n=1000, method="fixed"), 100),
    ],
)
def test_the_draws_that_choose_a_claim_are_no_evidence_for_it(
    kind: Kind, smoothing: Smoothing, selection: int
) -> None:
    found = proofs([*draws(selection, dog=1.0), *draws(200, cat=1.0)], smoothing, kind)
    dog = of(found, "dog")
    assert (found.selection, found.estimation, found.tested) == (selection, 200, 1)
    assert (dog.present, dog.radius, dog.input_radius, dog.unproven) == (None, None, None, "too few votes")
    assert dog.votes == {"absent": 200}
    assert [proof.label for proof in found.labels] == ["dog"], "what the later draws show first is not tested"


def test_what_a_sequential_plan_came_to_take_neither_chooses_nor_proves_too_much() -> None:
    selection = draws(CHOOSING, tree=1.0, dog=1.0)
    long = proofs([*selection, *draws(100, tree=1.0)], TARGET)
    short = proofs([*selection, *draws(3, tree=1.0)], TARGET)
    assert [one.label for one in long.labels] == [one.label for one in short.labels] == ["dog", "tree"]
    assert long.sequential
    assert long.alpha_each == 0.001 / 2
    assert of(long, "tree").p_lower == lower_bound_so_far(100, 100, 0.001 / 2)
    assert of(short, "tree").unproven == "too few draws"


def test_a_prediction_of_few_draws_says_that_it_proves_nothing_about_a_label() -> None:
    found = proofs(draws(12, dog=1.0, pet=1.0), PREDICT, "predict", answered=("dog",), confidence_radius=0.1)
    assert (found.selection, found.estimation, found.tested) == (8, 4, 2)
    for proof in found.labels:
        assert (proof.present, proof.radius, proof.unproven) == (None, None, "too few draws")
        assert proof.votes == {"present": 4}
        assert proof.confidence is not None
        assert (proof.confidence.median, proof.confidence.low, proof.confidence.high) == (0.9, None, None)


def test_labels_of_the_answer_that_were_not_tested_are_told_as_such() -> None:
    found = proofs(draws(220, dog=1.0, cat=0.55), FIXED, answered=("dog", "cat", "cat"))
    assert [proof.label for proof in found.labels] == ["dog", "cat"]
    cat = of(found, "cat")
    assert (cat.present, cat.radius, cat.p_lower, cat.unproven) == (None, None, None, "not tested")
    assert cat.votes["present"] + cat.votes["absent"] == 200
    assert found.tested == 1


def test_a_confidence_that_failed_draws_may_hide_has_no_upper_bound() -> None:
    replies = [*draws(20, dog=1.0), *draws(150, dog=1.0), *[None] * 50]
    confidence = of(proofs(replies, FIXED, confidence_radius=0.2), "dog").confidence
    assert confidence is not None
    assert (confidence.median, confidence.high) == (0.9, None)
    assert confidence.input_radius is not None
    assert confidence.input_radius != confidence.radius


def test_claims_are_in_the_words_of_the_label_map() -> None:
    labels = LabelMap(groups={"animal": ("dog", "cat")})
    turns = [reply(dog=0.9) if i % 2 else reply(cat=0.9) for i in range(220)]
    found = proofs(turns, FIXED, labels=labels)
    assert [(proof.label, proof.present) for proof in found.labels] == [("animal", True)]


def test_a_document_is_the_same_after_it_was_written_and_read() -> None:
    found = proofs(draws(220, dog=1.0, cat=0.55), FIXED, answered=("cat",), confidence_radius=0.1)
    assert LabelProofs.model_validate_json(found.model_dump_json()) == found
