from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from smoothing_proxy.backends.local.callable import Function, callable_backend
from smoothing_proxy.errors import BackendError, ConfigError, MalformedReplyError
from smoothing_proxy.types import ScoredLabel
from tests.backends.backend_asking import noise_pictures, outcomes, replies

UInt8 = npt.NDArray[np.uint8]
PICTURES = noise_pictures(3, 4, 5)
SCORES = [[0.25, 0.75], [0.5, 0.5], [1.0, 0.0]]
LABELLED = [
    (ScoredLabel("b", 0.75), ScoredLabel("a", 0.25)),
    (ScoredLabel("a", 0.5), ScoredLabel("b", 0.5)),
    (ScoredLabel("a", 1.0), ScoredLabel("b", 0.0)),
]


class Tensorlike:
    """An array of another library."""

    def __array__(self, dtype: Any = None, copy: Any = None) -> npt.NDArray[np.float64]:
        return np.array(SCORES)


@pytest.mark.parametrize(
    ("answer", "options", "labels"),
    [
        (["x", "y", "x"], {}, [(ScoredLabel(name, 1.0),) for name in "xyx"]),
        (np.array(["x", "y", "x"]), {}, [(ScoredLabel(name, 1.0),) for name in "xyx"]),
        (("x", None, {}), {}, [(ScoredLabel("x", 1.0),), (), ()]),
        ([{"a": 0.25, "b": 0.75}, {"b": np.float32(0.5), "a": 0.5}, {"b": 0, "a": 1}], {}, LABELLED),
        ([{"a": 0.25, "b": 0.75}] * 3, {"top": 1}, [(ScoredLabel("b", 0.75),)] * 3),
        (SCORES, {"labels": ["a", "b"]}, LABELLED),
        (np.array(SCORES, np.float32), {"labels": ["a", "b"]}, LABELLED),
        (Tensorlike(), {"labels": ["a", "b"]}, LABELLED),
        (np.array([[3, 3]] * 3), {"labels": ["a", "b"], "output": "logits"}, [LABELLED[1]] * 3),
    ],
)
def test_a_function_may_answer(
    answer: Any, options: dict[str, Any], labels: list[tuple[ScoredLabel, ...]]
) -> None:
    backend = callable_backend(lambda pixels: answer, **options)
    assert [reply.labels for reply in replies(backend, PICTURES)] == labels


@pytest.mark.parametrize(
    ("answer", "options", "fault"),
    [
        (["x", "y"], {}, "2 answers to 3 pictures"),
        ("cat", {}, "answers str, one item for each picture is needed"),
        (None, {}, "answers NoneType, one item for each picture"),
        ({"a": 0.5}, {}, "answers dict, one item for each picture"),
        ([1, 2, 3], {}, "answers int for a picture: a label, a dict of confidences, or scores"),
        (np.array([1, 2, 3]), {"labels": ["a", "b"]}, r"scores of shape \(3,\), \(3, 2\) expected"),
        (SCORES, {}, "together with `labels`"),
        (SCORES, {"labels": ["a", "b", "c"]}, r"scores of shape \(3, 2\), \(3, 3\) expected"),
        ([[0.1, 0.2], [0.3], [0.4, 0.5]], {"labels": ["a", "b"]}, "is no array of scores"),
        (np.array(SCORES) * 9, {"labels": ["a", "b"]}, "set output = 'logits'"),
        (["x", 7, "y"], {"labels": ["a", "b"]}, "no array of scores|one item for each picture"),
    ],
)
def test_an_answer_of_another_shape_fails_the_request(answer: Any, options: dict[str, Any], fault: str) -> None:
    failures = outcomes(callable_backend(lambda pixels: answer, name="local:mine", **options), PICTURES)
    assert len(failures) == 3
    for failure in failures:
        with pytest.raises(MalformedReplyError, match=f"local:mine: {fault}|local:mine: .*{fault}"):
            raise failure if isinstance(failure, BackendError) else AssertionError(failure)


@pytest.mark.parametrize("wrong", [{"a": 1.5}, {"a": float("nan")}, {"a": "0.5"}, {7: 0.5}, {"a": 0.5, "b": None}])
def test_a_wrong_confidence_fails_its_own_picture(wrong: Any) -> None:
    first, second, third = outcomes(callable_backend(lambda pixels: ["x", wrong, "y"]), PICTURES)
    assert isinstance(second, MalformedReplyError)
    assert "a label with a confidence in [0, 1] is needed" in str(second)
    assert not isinstance(first, BackendError)
    assert not isinstance(third, BackendError)


def test_what_a_function_raises_is_named_with_it() -> None:
    def clumsy(pixels: UInt8) -> list[str]:
        raise KeyError("cat")

    for failure in outcomes(callable_backend(clumsy), PICTURES):
        assert isinstance(failure, BackendError)
        assert str(failure) == f"local:{clumsy.__qualname__}: KeyError: 'cat'"


def test_a_function_sees_the_pictures_and_may_change_its_own_copy() -> None:
    seen: list[UInt8] = []

    def wild(pixels: UInt8) -> list[str]:
        seen.append(pixels.copy())
        pixels[:] = 0
        return ["x"] * len(pixels)

    replies(callable_backend(wild), PICTURES)
    np.testing.assert_array_equal(seen[0], PICTURES)


MODULE = """
def classify(pixels):
    return ["dark" if picture.mean() < 128 else "light" for picture in pixels]

class Holder:
    @staticmethod
    def method(pixels):
        return ["held"] * len(pixels)

number = 7
"""


@pytest.fixture
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "my_classifier.py").write_text(MODULE)
    (tmp_path / "my_broken.py").write_text("1 / 0")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "my_classifier", raising=False)
    return tmp_path


@pytest.mark.parametrize(
    ("reference", "label"), [("my_classifier:classify", "dark"), ("my_classifier:Holder.method", "held")]
)
def test_a_function_is_found_in_the_working_folder(working_folder: Path, reference: str, label: str) -> None:
    backend = callable_backend(reference)
    assert backend.name == f"local:{reference}"
    (answer,) = replies(backend, np.zeros((1, 4, 4, 3), np.uint8))
    assert answer.labels == (ScoredLabel(label, 1.0),)


@pytest.mark.parametrize(
    ("reference", "fault"),
    [
        ("my_clasifier:classify", "cannot import my_clasifier: ModuleNotFoundError"),
        ("my_broken:classify", "cannot import my_broken: ZeroDivisionError"),
        ("my_classifier:clasify", "has no 'clasify'; did you mean 'classify'"),
        ("my_classifier:Holder.methot", "did you mean 'method'"),
        ("my_classifier:number", "is a int, a function is needed"),
    ],
)
def test_a_reference_to_no_function_is_refused(working_folder: Path, reference: str, fault: str) -> None:
    with pytest.raises(ConfigError, match=fault):
        callable_backend(reference)


def test_an_unknown_option_is_refused() -> None:
    function: Function = len
    with pytest.raises(ConfigError, match="label: unknown key; did you mean 'labels'"):
        callable_backend(function, label=["a"])
