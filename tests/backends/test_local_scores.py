from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import scipy.special
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from smoothing_proxy.backends.labels import LabelMap
from smoothing_proxy.backends.local.batches import BatchLimits
from smoothing_proxy.backends.local.scores import ScoredClasses, ScoredOptions, ScoreReader, confidences
from smoothing_proxy.errors import ConfigError, MalformedReplyError
from smoothing_proxy.types import Reply, ScoredLabel
from tests.backends.backend_asking import noise_pictures

UInt8 = npt.NDArray[np.uint8]
Float64 = npt.NDArray[np.float64]


@dataclass
class Means:
    """Outputs are each picture's mean red, green and blue; `coupling` lets the batch's mean leak in."""

    picture_size: tuple[int, int] | None = (4, 4)
    coupling: float = 0.0
    shape: tuple[int, ...] = (-1, 3)

    def scores(self, pixels: UInt8) -> Float64:
        means = pixels.reshape(len(pixels), -1, 3).mean(axis=1) / 255.0
        outputs: Float64 = means + self.coupling * (pixels.mean() / 255.0 - 0.5)
        return outputs.reshape(self.shape)


def reader(names: list[str], **settings: Any) -> ScoreReader:
    return ScoreReader(names, **{"output": "probabilities", "top": 10, **settings})


def test_an_answer_has_the_best_labels_in_full_precision_ties_by_name() -> None:
    scores = np.array([[0.1, 0.3, 0.3, 0.3], [0.1 + 1e-16, 0.1, 0.2, 0.1]])
    first, second = reader(["d", "c", "a", "b"], top=3).answers(scores, 2)
    assert first == (ScoredLabel("a", 0.3), ScoredLabel("b", 0.3), ScoredLabel("c", 0.3))
    assert second == (ScoredLabel("a", 0.2), ScoredLabel("d", 0.1 + 1e-16), ScoredLabel("b", 0.1))


@given(arrays.arrays(np.uint8, 40, elements=st.integers(0, 3)), st.permutations(range(40)), st.integers(1, 40))
def test_ties_at_the_cut_never_change_the_vote(scores: UInt8, order: list[int], top: int) -> None:
    names = [f"label {number}" for number in order]
    (answer,) = reader(names, top=top).answers(scores[np.newaxis] / 256.0, 1)
    assert isinstance(answer, tuple)
    best = min(name for name, score in zip(names, scores, strict=True) if score == scores.max())
    assert LabelMap().vote(Reply(answer)) == best


@given(arrays.arrays(np.float64, (3, 5), elements=st.floats(-50, 50)))
def test_softmax_is_scipys_and_never_reverses_the_order(outputs: Float64) -> None:
    values = confidences(outputs, "logits")
    np.testing.assert_allclose(values, scipy.special.softmax(outputs, axis=1), rtol=1e-12)
    sorted_by_outputs = np.take_along_axis(values, outputs.argsort(axis=1), axis=1)
    assert (np.diff(sorted_by_outputs, axis=1) >= 0.0).all()


def test_softmax_survives_any_logit() -> None:
    assert confidences(np.array([[1e30, -1e30, 0.0]]), "logits").tolist() == [[1.0, 0.0, 0.0]]


def test_probabilities_may_be_off_by_the_rounding_of_single_precision() -> None:
    assert confidences(np.array([[1.0 + 5e-7, -5e-7]]), "probabilities").tolist() == [[1.0, 0.0]]


@pytest.mark.parametrize(
    ("output", "wrong", "fault"),
    [
        ("logits", math.nan, "not a number"),
        ("logits", math.inf, "not a number"),
        ("probabilities", math.nan, "not a number"),
        ("probabilities", math.inf, "no probabilities; set output = 'logits'"),
        ("probabilities", 1.1, "no probabilities; set output = 'logits'"),
        ("probabilities", -0.1, "no probabilities; set output = 'logits'"),
    ],
)
def test_a_score_that_is_no_confidence_fails_its_own_picture_only(output: str, wrong: float, fault: str) -> None:
    scores = np.array([[0.5, math.nan], [0.5, wrong], [0.5, 0.25]])
    _, second, third = reader(["a", "b"], output=output).answers(scores, 3)
    assert isinstance(second, MalformedReplyError)
    assert fault in str(second)
    assert isinstance(third, tuple)


@pytest.mark.parametrize("shape", [(2, 3), (1, 2), (2,), (2, 2, 1), ()])
def test_scores_of_another_shape_are_malformed(shape: tuple[int, ...]) -> None:
    with pytest.raises(MalformedReplyError, match=r"\(2, 2\) expected"):
        reader(["a", "b"]).answers(np.zeros(shape), 2)


@pytest.mark.parametrize("labels", [None, ("red", "green", "blue")])
def test_outputs_are_named_by_the_labels_or_numbered(labels: tuple[str, ...] | None) -> None:
    classes = ScoredClasses("test", Means(), ScoredOptions(labels=labels), output="probabilities")
    (answer,) = classes.classify(np.full((1, 4, 4, 3), [51, 102, 0], np.uint8))
    red, green, blue = labels or ("0", "1", "2")
    assert answer == (ScoredLabel(green, 0.4), ScoredLabel(red, 0.2), ScoredLabel(blue, 0.0))


@pytest.mark.parametrize(
    ("scorer", "options", "fault"),
    [
        (Means(), ScoredOptions(labels=("red", "green")), "test: 2 labels for 3 outputs"),
        (Means(coupling=1.0), ScoredOptions(), "depends on the other pictures"),
        (Means(shape=(-1,)), ScoredOptions(), r"answers \(6,\) to two pictures"),
        (Means(shape=(-1, 3, 1)), ScoredOptions(), r"answers \(2, 3, 1\) to two pictures"),
        (Means(shape=(-1, 4)), ScoredOptions(), "4x4 pixels: ValueError"),
        (Means(coupling=100.0), ScoredOptions(), "no probabilities"),
    ],
)
def test_a_network_that_cannot_be_voted_with_is_refused(scorer: Means, options: ScoredOptions, fault: str) -> None:
    with pytest.raises(ConfigError, match=fault):
        ScoredClasses("test", scorer, options, output="probabilities")


@pytest.mark.parametrize(
    ("limits", "sizes"),
    [
        (BatchLimits(), [7]),
        (BatchLimits(1, 1), [1] * 7),
        (BatchLimits(3, 3), [3, 3, 3]),
        (BatchLimits(2, 3), [3, 3, 2]),
        (BatchLimits(1, 3), [3, 3, 1]),
        (BatchLimits(10, None), [10]),
    ],
)
def test_batches_are_cut_and_filled_up_to_the_limits(limits: BatchLimits, sizes: list[int]) -> None:
    seen: list[int] = []

    def network(inputs: npt.NDArray[Any]) -> npt.NDArray[Any]:
        seen.append(len(inputs))
        return np.asarray(inputs.reshape(len(inputs), -1).sum(axis=1, keepdims=True))

    inputs = noise_pictures(7, 2, 3).astype(np.int64)
    outputs = limits.call(network, inputs)
    assert seen == sizes
    np.testing.assert_array_equal(outputs[:, 0], inputs.sum(axis=(1, 2, 3)))
