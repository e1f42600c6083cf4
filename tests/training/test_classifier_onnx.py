from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from denoiser_training.classifier_card import read_classifier_card
from denoiser_training.classifier_networks import load_network
from denoiser_training.classifier_onnx import check_classifier_onnx, export_classifier_onnx
from denoiser_training.config import SurrogateSettings
from denoiser_training.export_onnx import main
from smoothing_proxy.backends.local.onnx_file import onnx_backend
from smoothing_proxy.errors import ConfigError
from tests.backends.backend_asking import replies
from tests.training.classifier_files import saved

pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cifar-resnet with random weights, for 8x8 pictures of three classes, as its card and its ONNX file."""
    path = saved(tmp_path_factory.mktemp("onnx"))
    assert main([str(path)]) == 0
    return path


def test_the_proxy_takes_the_file_for_a_black_box_that_answers_as_torch_does(card: Path) -> None:
    labels = card.with_suffix(".labels.txt")
    network = load_network(SurrogateSettings(name="s", network="card", weights=card)).eval()
    pictures = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
    with torch.no_grad():
        expected = network(torch.from_numpy(pictures).permute(0, 3, 1, 2) / 255).softmax(1)
    backend = onnx_backend(card.with_suffix(".onnx"), labels=labels)
    for reply, row in zip(replies(backend, pictures), expected, strict=True):
        found = {label.name: label.confidence for label in reply.labels}
        assert list(found) == [("cat", "dog", "eel")[i] for i in row.argsort(descending=True)]
        assert [found[name] for name in ("cat", "dog", "eel")] == pytest.approx(row.tolist(), abs=1e-5)


def test_a_file_that_disagrees_with_torch_is_refused(card: Path) -> None:
    facts, _ = read_classifier_card(card)
    network = load_network(SurrogateSettings(name="s", network="card", weights=card)).eval()
    with torch.no_grad():
        network.get_parameter("linear.bias").add_(0.1)
    with pytest.raises(ConfigError, match="'animals' as ONNX differs from torch"):
        check_classifier_onnx(card.with_suffix(".onnx").read_bytes(), facts, network)


def test_what_stands_in_the_way_is_named(
    card: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert main([str(card), "--out", str(tmp_path / "file" / "net.onnx")]) == 2
    assert "cannot write it" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ConfigError, match="needs onnxscript: pip install"):
        export_classifier_onnx(card, tmp_path / "net.onnx")
