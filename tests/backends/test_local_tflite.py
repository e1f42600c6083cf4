from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import scipy.special
from PIL import Image

from smoothing_proxy.backends.labels import LabelMap
from smoothing_proxy.backends.local.tflite import tflite_backend
from smoothing_proxy.errors import ConfigError, RequestRejectedError
from tests.backends.backend_asking import noise_pictures, one_by_one, outcomes, replies, table
from tests.backends.tflite_files import dense_model

SIZE = (4, 6)
PICTURES = noise_pictures(5, *SIZE)
NAMES = ["a", "b", "c", "d", "e"]
RANDOM = np.random.default_rng(0)
FLOATS = RANDOM.normal(size=(5, 72)).astype(np.float32)
INTEGERS = RANDOM.integers(-10, 10, (5, 72))
SHARP = ((1 / 255, -128), (0.1, 3))


def quantised_scores(
    quantised: npt.NDArray[Any], into: tuple[float, int], weight_scale: float
) -> npt.NDArray[Any]:
    """What a fully connected layer answers, by the arithmetic of the TFLite quantisation specification."""
    real = (quantised.reshape(len(quantised), -1).astype(float) - into[1]) * into[0]
    scale, zero = SHARP[1]
    outputs = np.clip(np.rint(real @ (INTEGERS * weight_scale).T / scale) + zero, -128, 127)
    return np.asarray((outputs - zero) * scale)


@pytest.mark.parametrize(
    ("options", "inputs"),
    [
        ({}, PICTURES / 255.0),
        ({"scale": 255.0}, PICTURES / 1.0),
        ({"mean": 0.5, "std": 0.5}, PICTURES / 127.5 - 1.0),
    ],
)
def test_a_float_network_is_asked_as_it_was_trained(
    tmp_path: Path, options: dict[str, Any], inputs: npt.NDArray[Any]
) -> None:
    path = dense_model(tmp_path / "dense.tflite", FLOATS, size=SIZE)
    expected = scipy.special.softmax(inputs.reshape(5, -1) @ FLOATS.T, axis=1)
    backend = tflite_backend(path, labels=NAMES, output="logits", **options)
    np.testing.assert_allclose(table(replies(backend, PICTURES), NAMES), expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "into", "quantised"),
    [
        ({}, SHARP[0], PICTURES.astype(int) - 128),
        ({}, (1 / 128, 0), PICTURES.astype(int) - 128),
        ({"scale": 1.0}, (0.01, -100), np.clip(np.rint(PICTURES / 255.0 / 0.01) - 100, -128, 127)),
        ({"mean": 0.5, "std": 0.5}, (0.01, 5), np.clip(np.rint((PICTURES / 127.5 - 1.0) / 0.01) + 5, -128, 127)),
    ],
)
def test_a_quantised_network_is_fed_raw_pixels_unless_told_otherwise(
    tmp_path: Path, options: dict[str, Any], into: tuple[float, int], quantised: npt.NDArray[Any]
) -> None:
    path = dense_model(
        tmp_path / "dense.tflite",
        INTEGERS.astype(np.int8),
        size=SIZE,
        kind="int8",
        quantisation=(into, SHARP[1]),
        weight_scale=0.05,
    )
    expected = scipy.special.softmax(quantised_scores(quantised, into, 0.05), axis=1)
    backend = tflite_backend(path, labels=NAMES, output="logits", **options)
    np.testing.assert_allclose(table(replies(backend, PICTURES), NAMES), expected, rtol=1e-5)


def test_a_network_of_any_size_is_given_one(tmp_path: Path) -> None:
    path = dense_model(tmp_path / "dense.tflite", FLOATS, size=SIZE, free_size=True)
    with pytest.raises(ConfigError, match=r"dense\.tflite: takes pictures of any size, say which with `size`"):
        tflite_backend(path)
    fixed = dense_model(tmp_path / "fixed.tflite", FLOATS, size=SIZE)
    given = replies(tflite_backend(path, size=SIZE, output="logits"), PICTURES)
    np.testing.assert_array_equal(
        table(given, ["0", "1"]), table(replies(tflite_backend(fixed, output="logits"), PICTURES), ["0", "1"])
    )


def test_pictures_of_another_size_are_resized_or_rejected(tmp_path: Path) -> None:
    path = dense_model(tmp_path / "dense.tflite", FLOATS, size=SIZE)
    larger = noise_pictures(2, 40, 60)
    assert len(replies(tflite_backend(path, output="logits"), larger)) == 2
    for failure in outcomes(tflite_backend(path, output="logits", mode="none"), larger):
        assert isinstance(failure, RequestRejectedError)


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"thread": 2}, "thread: unknown key; did you mean 'threads'"),
        ({"threads": 0}, "threads"),
        ({}, "no probabilities; set output = 'logits'"),
        ({"output": "logits", "labels": ["a", "b"]}, "2 labels for 5 outputs"),
        ({"output": "logits", "labels": "labels.text"}, "no such file"),
        ({"output": "logits", "size": [5, 6]}, "cannot classify a picture of 5x6 pixels"),
    ],
)
def test_options_that_do_not_fit_are_refused(tmp_path: Path, options: dict[str, Any], fault: str) -> None:
    path = dense_model(tmp_path / "dense.tflite", FLOATS, size=SIZE)
    with pytest.raises(ConfigError, match=fault):
        tflite_backend(path, **options)


def test_files_that_are_no_classifiers_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    with pytest.raises(ConfigError, match=r"model\.tflite: no such file"):
        tflite_backend(path)
    path.write_bytes(b"hello")
    with pytest.raises(ConfigError, match=r"model\.tflite: .*Flatbuffer"):
        tflite_backend(path)
    dense_model(path, FLOATS, size=SIZE, outputs=2)
    with pytest.raises(ConfigError, match=r"2 outputs \(scores 0, scores 1\), one"):
        tflite_backend(path)
    dense_model(path, INTEGERS.astype(np.int16), size=SIZE, kind="int16", quantisation=SHARP)
    with pytest.raises(ConfigError, match=r"takes int16 \[1, 4, 6, 3\]; one uint8, int8 or float32"):
        tflite_backend(path)


def test_a_missing_library_names_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = dense_model(tmp_path / "dense.tflite", FLOATS, size=SIZE)
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(ConfigError, match=r"pip install 'smoothing-proxy\[tflite\]'"):
        tflite_backend(path)


@pytest.mark.parametrize(
    ("model", "right"), [("mobilenet_v1_0.25_128_quant.tflite", 24), ("mobilenet_v2_1.0_224_quant.tflite", 33)]
)
def test_real_networks_recognise_real_pictures(shared_data: Path, model: str, right: int) -> None:
    """Of the first 40 pictures of the folder. Another JPEG decoder may move the count by a picture or two."""
    sample = shared_data / "imagenet-sample"
    with (sample / "labels.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))[:40]
    pictures = [np.asarray(Image.open(sample / row["file"]).convert("RGB")) for row in rows]
    labels = shared_data / "blackbox" / "imagenet_labels.txt"
    names = labels.read_text(encoding="utf-8").splitlines()
    backend = tflite_backend(shared_data / "blackbox" / model, labels=labels)
    answers = replies(backend, pictures)
    votes = [LabelMap().vote(answer) for answer in answers]
    found = sum(vote == names[int(row["class_index"]) + 1] for vote, row in zip(votes, rows, strict=True))
    assert abs(found - right) <= 2
    steps = [label.confidence * 256 for answer in answers for label in answer.labels]
    assert all(step == round(step) and 0 <= step <= 255 for step in steps)
    assert len(answers[0].labels) == 10
    assert one_by_one(backend, np.stack([picture[:200, :200] for picture in pictures[:5]])) == replies(
        backend, np.stack([picture[:200, :200] for picture in pictures[:5]])
    )
