from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import joblib  # type: ignore[import-untyped]
import numpy as np
import numpy.typing as npt
import pytest
import scipy.special
import skops.io
from sklearn.datasets import load_digits
from sklearn.ensemble import VotingClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVC

from smoothing_proxy.backends.labels import LabelMap
from smoothing_proxy.backends.local.sklearn_file import sklearn_backend, sklearn_file_backend
from smoothing_proxy.errors import ConfigError
from tests.backends.backend_asking import noise_pictures, one_by_one, replies, table

DIGITS = load_digits()
PICTURES = np.repeat(np.rint(DIGITS.images[:50] * 255 / 16).astype(np.uint8)[..., np.newaxis], 3, axis=3)
TEN = [str(digit) for digit in range(10)]
GREY: dict[str, Any] = {"channels": 1, "scale": 16.0}


def rows(pictures: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    return np.asarray(pictures[..., 0].reshape(len(pictures), -1) / 255.0 * 16.0)


def fitted(estimator: Any, targets: Any = None) -> Any:
    labels = DIGITS.target if targets is None else targets
    return estimator.fit(DIGITS.data[:600], labels[:600])


def probabilities(estimator: Any) -> npt.NDArray[np.float64]:
    return np.asarray(estimator.predict_proba(rows(PICTURES)))


def softmax(estimator: Any) -> npt.NDArray[np.float64]:
    return np.asarray(scipy.special.softmax(estimator.decision_function(rows(PICTURES)), axis=1))


def one_hot(estimator: Any) -> npt.NDArray[np.float64]:
    return np.asarray(np.eye(10)[estimator.predict(rows(PICTURES))])


@pytest.mark.parametrize(
    ("estimator", "expected"),
    [
        (fitted(GaussianNB()), probabilities),
        (fitted(make_pipeline(StandardScaler(), LogisticRegression(C=0.01))), probabilities),
        (fitted(SVC()), softmax),
        (fitted(make_pipeline(StandardScaler(), SVC())), softmax),
        (fitted(VotingClassifier([("svc", SVC()), ("bayes", GaussianNB())])), one_hot),
    ],
    ids=["bayes", "logistic", "svc", "pipeline", "voting"],
)
def test_confidences_come_from_the_best_that_an_estimator_offers(estimator: Any, expected: Any) -> None:
    backend = sklearn_backend(estimator, **GREY)
    together = table(replies(backend, PICTURES), TEN)
    np.testing.assert_allclose(together, expected(estimator), rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(together, table(one_by_one(backend, PICTURES), TEN), rtol=1e-6)
    votes = [LabelMap().vote(answer) for answer in replies(backend, PICTURES)]
    assert votes == [str(label) for label in estimator.predict(rows(PICTURES))]


def test_two_classes_share_one_decision_value() -> None:
    estimator = fitted(SVC(), np.where(DIGITS.target < 5, "low", "high"))
    scores = table(replies(sklearn_backend(estimator, **GREY), PICTURES), ["low", "high"])
    low = scipy.special.expit(estimator.decision_function(rows(PICTURES)))
    np.testing.assert_allclose(scores, np.stack([low, 1.0 - low], axis=1), rtol=1e-4)


def test_colour_is_flattened_by_rows_columns_then_channels() -> None:
    pictures = noise_pictures(20, 5, 5)
    flat = pictures.reshape(20, -1) / 255.0
    estimator = GaussianNB().fit(flat, np.arange(20) % 2)
    answers = table(replies(sklearn_backend(estimator, labels=["even", "odd"]), pictures), ["even", "odd"])
    np.testing.assert_allclose(answers, estimator.predict_proba(flat), atol=1e-3)


@pytest.mark.parametrize("suffix", [".skops", ".joblib", ".pkl"])
def test_a_file_answers_as_its_estimator_does(tmp_path: Path, suffix: str) -> None:
    estimator = fitted(SVC())
    path = tmp_path / f"svc{suffix}"
    if suffix == ".skops":
        skops.io.dump(estimator, path)
    else:
        joblib.dump(estimator, path)
    options: dict[str, Any] = {} if suffix == ".skops" else {"allow_pickle": True}
    backend = sklearn_file_backend(path, **GREY, **options)
    expected = replies(sklearn_backend(estimator, **GREY), PICTURES)
    np.testing.assert_array_equal(table(replies(backend, PICTURES), TEN), table(expected, TEN))
    assert backend.name == f"local:{path}"
    assert backend.model_version


def halved(values: Any) -> Any:
    return values / 2


def test_a_skops_file_may_only_contain_what_is_trusted(tmp_path: Path) -> None:
    path = tmp_path / "svc.skops"
    skops.io.dump(fitted(make_pipeline(FunctionTransformer(halved), SVC())), path)
    name = f"{halved.__module__}.halved"
    with pytest.raises(ConfigError, match=rf"svc\.skops: contains {name}; .*`trusted_types`"):
        sklearn_file_backend(path, **GREY)
    assert replies(sklearn_file_backend(path, **GREY, trusted_types=[name]), PICTURES)


@pytest.mark.parametrize("suffix", [".joblib", ".pkl", ".pickle"])
def test_a_pickle_is_refused_before_it_is_opened(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"svc{suffix}"
    joblib.dump(Bomb(tmp_path / "exploded"), path)
    with pytest.raises(ConfigError, match="runs whatever code it contains"):
        sklearn_file_backend(path)
    assert not (tmp_path / "exploded").exists()
    with pytest.raises(ConfigError, match=r"NoneType without classes_"):
        sklearn_file_backend(path, allow_pickle=True)
    assert (tmp_path / "exploded").exists()


class Bomb:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["svc.skops", "svc.joblib"])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"hello")
    with pytest.raises(ConfigError, match=rf"{name}: cannot be loaded"):
        sklearn_file_backend(tmp_path / name, allow_pickle=True)


@pytest.mark.parametrize(
    ("estimator", "options", "fault"),
    [
        (SVC(), {}, "SVC without classes_ is no fitted classifier"),
        (LinearRegression(), {}, "LinearRegression without classes_"),
        (fitted(SVC()), {"channels": 1, "labels": ["a"]}, "1 labels for 10 outputs"),
        (fitted(SVC(decision_function_shape="ovo")), GREY, "10 labels for 45 outputs"),
        (fitted(SVC()), {"channels": 3}, "cannot classify a picture of 224x224 pixels"),
        (fitted(SVC()), {"chanels": 1}, "did you mean 'channels'"),
    ],
)
def test_an_estimator_that_does_not_fit_is_refused(estimator: Any, options: dict[str, Any], fault: str) -> None:
    with pytest.raises(ConfigError, match=fault):
        sklearn_backend(estimator, **options)


def test_a_missing_library_names_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    skops.io.dump(fitted(SVC()), tmp_path / "svc.skops")
    monkeypatch.setitem(sys.modules, "skops.io", None)
    with pytest.raises(ConfigError, match=r"pip install 'smoothing-proxy\[sklearn\]'"):
        sklearn_file_backend(tmp_path / "svc.skops", **GREY)
