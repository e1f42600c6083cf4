from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skops.io
import torch
from sklearn.naive_bayes import GaussianNB

from smoothing_proxy.backends.base import Backend
from smoothing_proxy.backends.registry import backend, backend_names
from smoothing_proxy.errors import ConfigError
from smoothing_proxy.types import ScoredLabel
from tests.backends.backend_asking import noise_pictures, replies
from tests.backends.tflite_files import dense_model

PICTURES = noise_pictures(2, 4, 6)
ESTIMATOR = GaussianNB().fit(np.random.default_rng(0).random((20, 72)), np.arange(20) % 2)
NETWORK = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())


def darkness(pixels: Any) -> list[str]:
    return ["dark" if picture.mean() < 128 else "light" for picture in pixels]


@pytest.mark.parametrize(
    ("source", "options", "name"),
    [
        ("scripted", {"answers": ["a", "b"]}, "scripted"),
        (
            "local:tests.backends.test_backend_registry:darkness",
            {},
            "local:tests.backends.test_backend_registry:darkness",
        ),
        (darkness, {}, "local:darkness"),
        (darkness, {"name": "local:mine", "batch_size": 3}, "local:mine"),
        (ESTIMATOR, {"size": [4, 6], "labels": ["a", "b"]}, "local:GaussianNB"),
        (NETWORK, {"size": [4, 6], "labels": ["r", "g", "b"]}, "local:Sequential"),
    ],
)
def test_a_backend_is_made_from(source: object, options: dict[str, Any], name: str) -> None:
    made = backend(source, **options)
    assert isinstance(made, Backend)
    assert made.name == name
    assert all(answer.labels for answer in replies(made, PICTURES))


def test_a_file_is_opened_by_its_suffix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    dense_model(Path("dense.tflite"), np.ones((2, 72), np.float32), size=(4, 6))
    skops.io.dump(ESTIMATOR, "bayes.skops")
    for file, options in (("dense.tflite", {"output": "logits"}), ("bayes.skops", {"size": (4, 6)})):
        made = backend(f"local:{file}", **options)
        assert made.name == made.fingerprint["name"] == f"local:{file}"
        assert len(made.fingerprint["sha256"]) == 64
        assert len(replies(made, PICTURES)) == 2


@pytest.mark.parametrize(
    ("source", "options", "fault"),
    [
        ("locale:model.tflite", {}, "no backend is named 'locale'; did you mean 'local'"),
        ("", {}, "no backend is named ''; known: .*local, .*scripted"),
        ("local", {}, "local: missing a required argument: 'target'"),
        ("local:", {}, "names no classifier; write local:torchvision/NAME"),
        ("local:model.tflit", {}, r"with a FILE of .*\.tflite"),
        ("local:model.h5", {}, r"with a FILE of \.joblib \.onnx"),
        ("local::function", {}, "names no classifier"),
        ("local:missing.tflite", {}, "missing.tflite: no such file"),
        ("local:missing.onnx", {}, "missing.onnx: no such file"),
        ("local:missing.pt2", {}, "missing.pt2: no such file"),
        ("local:missing.pt", {}, "missing.pt: no such file"),
        ("local:missing.skops", {}, "missing.skops: no such file"),
        ("local:torchvision/resnet81", {}, "did you mean 'resnet18'"),
        (
            "local:missing.tflite",
            {"thread": 1},
            "local:missing.tflite: thread: unknown key; did you mean 'threads'",
        ),
        ("scripted", {}, "scripted: missing a required argument: 'answers'"),
        ("scripted", {"answer": "cat"}, "scripted: answer: unknown key; did you mean 'answers'"),
        (object(), {}, "a object is no classifier"),
    ],
)
def test_what_names_no_classifier_is_refused(source: object, options: dict[str, Any], fault: str) -> None:
    with pytest.raises(ConfigError, match=fault):
        backend(source, **options)


PLUGIN = """
from smoothing_proxy.backends.scripted import ScriptedBackend

def made(region="nowhere", *, timeout_s=1.0):
    return ScriptedBackend(f"{region} {timeout_s}", name=f"plugin:{region}")

def broken():
    return 7
"""
ENTRY_POINTS = """[smoothing_proxy.backends]
plugin = my_plugin:made
useless = my_plugin:broken
gone = my_plugin:gone
local = my_plugin:broken
"""


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another distribution, as if it were installed."""
    (tmp_path / "my_plugin.py").write_text(PLUGIN)
    info = tmp_path / "my_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.usefixtures("plugin")
@pytest.mark.parametrize(
    ("source", "options", "answer"),
    [("plugin", {}, "nowhere 1.0"), ("plugin:eu-west", {"timeout_s": 5}, "eu-west 5")],
)
def test_other_distributions_offer_backends(source: str, options: dict[str, Any], answer: str) -> None:
    assert {"local", "scripted", "plugin"} <= set(backend_names())
    made = backend(source, **options)
    assert replies(made, PICTURES)[0].labels == (ScoredLabel(answer, 1.0),)


@pytest.mark.usefixtures("plugin")
@pytest.mark.parametrize(
    ("source", "options", "fault"),
    [
        ("plugin", {"timeout": 5}, "plugin: timeout: unknown key; did you mean 'timeout_s'"),
        ("useless", {}, "its factory makes a int, which is no backend"),
        ("gone", {}, r"'gone' \(my_plugin:gone\) cannot be loaded"),
        ("local:x", {}, "names no classifier"),
        ("plug-in", {}, "did you mean 'plugin'"),
    ],
)
def test_an_offer_that_does_not_hold_is_refused(source: str, options: dict[str, Any], fault: str) -> None:
    with pytest.raises(ConfigError, match=fault):
        backend(source, **options)


def test_the_names_are_sorted() -> None:
    names = backend_names()
    assert list(names) == sorted(names)
    assert {"local", "scripted"} <= set(names)


def test_the_registry_loads_no_heavy_library() -> None:
    heavy = ["torch", "torchvision", "onnxruntime", "ai_edge_litert", "sklearn", "skops", "joblib"]
    code = (
        "import sys; from smoothing_proxy.backends import labels, scripted; "
        "from smoothing_proxy.backends.registry import backend; "
        "backend('scripted', answers='cat'); backend(lambda pixels: ['cat']); "
        f"sys.exit(', '.join(sorted(set(sys.modules) & set({heavy!r}))))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("json-api", {"url": 7}, "url: Input should be a valid string, not 7"),
        ("scripted", {"answers": "cat", "batch_size": "16"}, "batch_size: expected a number, not the text '16'"),
        ("scripted", {"answers": "cat", "latency_s": [1]}, "latency_s"),
    ],
)
def test_an_option_of_the_wrong_type_is_named(source: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        backend(source, **options)
