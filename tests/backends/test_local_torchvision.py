from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torchvision import models  # type: ignore[import-untyped]
from torchvision.transforms import functional  # type: ignore[import-untyped]

from smoothing_proxy.backends.local.torchvision import torchvision_backend
from smoothing_proxy.errors import ConfigError
from tests.backends.backend_asking import noise_pictures, one_by_one, replies, table

MODEL = "mobilenet_v3_small"
WEIGHTS = models.get_model_weights(MODEL).DEFAULT
NAMES = ["a", "b", "c", "d"]


@cache
def network(labels: int) -> Any:
    """Random weights, with a last layer that makes its answers differ between labels and pictures."""
    torch.manual_seed(0)
    module = models.get_model(MODEL, weights=None, num_classes=labels).eval()
    with torch.no_grad():
        outputs = module(torch.randn(4, 3, 96, 96))
        module.classifier[-1].weight.mul_(2.0 / outputs.std())
    return module


def checkpoint(path: Path, module: Any) -> Path:
    save_file(module.state_dict(), path)
    return path


def confidences(module: Any, inputs: torch.Tensor) -> Any:
    with torch.inference_mode():
        return module(inputs).softmax(dim=1).numpy()


def test_a_model_answers_as_torchvision_evaluates_it(tmp_path: Path) -> None:
    module = network(4)
    backend = torchvision_backend(
        MODEL, checkpoint=checkpoint(tmp_path / "four.safetensors", module), labels=NAMES
    )
    pictures = noise_pictures(2, 260, 330)
    preset = WEIGHTS.transforms()
    inputs = torch.stack([preset(Image.fromarray(picture)) for picture in pictures])
    together = table(replies(backend, pictures), NAMES)
    np.testing.assert_allclose(together, confidences(module, inputs), rtol=1e-4)
    apart = table(one_by_one(backend, pictures), NAMES)
    np.testing.assert_allclose(together, apart, rtol=1e-4)
    np.testing.assert_array_equal(together.argmax(axis=1), apart.argmax(axis=1))


def test_a_picture_of_the_models_size_is_only_normalised(tmp_path: Path) -> None:
    module = network(4)
    backend = torchvision_backend(
        MODEL, checkpoint=checkpoint(tmp_path / "four.safetensors", module), labels=NAMES
    )
    picture = noise_pictures(1, 224, 224)
    preset = WEIGHTS.transforms()
    inputs = functional.normalize(functional.to_tensor(picture[0]), preset.mean, preset.std)[None]
    np.testing.assert_allclose(table(replies(backend, picture), NAMES), confidences(module, inputs), rtol=1e-4)


def test_the_labels_are_the_categories_of_the_weights(tmp_path: Path) -> None:
    module = network(1000)
    backend = torchvision_backend(MODEL, checkpoint=checkpoint(tmp_path / "all.safetensors", module))
    picture = noise_pictures(1, 224, 224)
    preset = WEIGHTS.transforms()
    inputs = functional.normalize(functional.to_tensor(picture[0]), preset.mean, preset.std)[None]
    best = confidences(module, inputs)[0].argsort()[::-1][:10]
    answer = replies(backend, picture)[0]
    assert {label.name for label in answer.labels} == {WEIGHTS.meta["categories"][i] for i in best}
    assert backend.name == "local:torchvision/mobilenet_v3_small"
    assert len(answer.model_version) == 16


@pytest.mark.parametrize(
    ("model", "options", "fault"),
    [
        ("resnet81", {}, "no classifier 'resnet81'; did you mean 'resnet18'"),
        ("raft_large", {}, "no classifier 'raft_large'"),
        (MODEL, {"weights": "IMAGENET1K_V7"}, "no weights 'IMAGENET1K_V7'; did you mean 'IMAGENET1K_V1'"),
        (MODEL, {"weigths": "DEFAULT"}, "weigths: unknown key; did you mean 'weights'"),
        (MODEL, {"checkpoint": "missing.safetensors"}, "missing.safetensors: no such file"),
    ],
)
def test_what_torchvision_does_not_have_is_refused(model: str, options: dict[str, Any], fault: str) -> None:
    with pytest.raises(ConfigError, match=fault):
        torchvision_backend(model, **options)


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "four.safetensors", network(4))
    with pytest.raises(ConfigError, match="is no checkpoint of mobilenet_v3_small with these labels"):
        torchvision_backend(MODEL, checkpoint=path)
    path.write_bytes(b"hello")
    with pytest.raises(ConfigError, match="is no checkpoint"):
        torchvision_backend(MODEL, checkpoint=path, labels=NAMES)


def test_a_download_that_fails_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    with pytest.raises(
        ConfigError, match=r"cannot be fetched from https://.*load a \.safetensors file with `checkpoint`"
    ):
        torchvision_backend(MODEL)
