from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn

from smoothing_proxy.backends.local.torch_file import torch_file_backend
from smoothing_proxy.backends.local.torch_module import module_backend, weights_sha256
from smoothing_proxy.errors import ConfigError
from tests.backends.backend_asking import noise_pictures, one_by_one, replies, table

SIZE = (12, 10)
TINTS = np.random.default_rng(0).random((5, 1, 1, 3))
PICTURES = (noise_pictures(5, *SIZE) * TINTS).astype(np.uint8)
NAMES = ["a", "b", "c", "d"]
Writer = Callable[[nn.Module, Path], Path]


def network(*last: nn.Module, channels: int = 3) -> nn.Module:
    torch.manual_seed(0)
    head: list[nn.Module] = [nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 4), *last]
    module = nn.Sequential(nn.Conv2d(channels, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), *head)
    with torch.no_grad():
        module.train()(torch.rand(64, channels, *SIZE))
        head[2].weight.mul_(20.0)  # type: ignore[operator]
    return module.eval()


def exported(batch: int | None = None, least: int = 1, most: int | None = None) -> Writer:
    def write(module: nn.Module, folder: Path) -> Path:
        path = folder / "model.pt2"
        channels = next(module.parameters()).shape[1]
        example = (torch.rand(batch or 2 * least, channels, *SIZE),)
        shapes = None if batch else ({0: torch.export.Dim("n", min=least, max=most)},)
        torch.export.save(torch.export.export(module, example, dynamic_shapes=shapes), path)
        return path

    return write


def scripted(module: nn.Module, folder: Path) -> Path:
    path = folder / "model.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        torch.jit.save(torch.jit.script(module), path)
    return path


def by_hand(module: nn.Module, pictures: npt.NDArray[np.uint8], mean: float = 0.0) -> npt.NDArray[Any]:
    inputs = torch.from_numpy(pictures).permute(0, 3, 1, 2).float().div(255.0).sub(mean)
    with torch.inference_mode():
        return np.asarray(module(inputs).softmax(dim=1))


@pytest.mark.parametrize(
    "write",
    [scripted, exported(), exported(1), exported(3), exported(least=2, most=4)],
    ids=["script", "any batch", "one", "three", "two to four"],
)
def test_a_saved_program_answers_as_its_network_does(tmp_path: Path, write: Writer) -> None:
    module = network()
    backend = torch_file_backend(write(module, tmp_path), size=SIZE, mean=0.25, labels=NAMES)
    together = table(replies(backend, PICTURES), NAMES)
    np.testing.assert_allclose(together, by_hand(module, PICTURES, mean=0.25), rtol=1e-4)
    apart = table(one_by_one(backend, PICTURES), NAMES)
    np.testing.assert_allclose(together, apart, rtol=1e-4)
    np.testing.assert_array_equal(together.argmax(axis=1), apart.argmax(axis=1))
    assert len(set(together.argmax(axis=1))) > 1


@pytest.mark.parametrize("channels", [1, 3])
def test_size_and_channels_are_read_from_an_exported_program(tmp_path: Path, channels: int) -> None:
    backend = torch_file_backend(exported()(network(channels=channels), tmp_path))
    assert len(replies(backend, noise_pictures(2, 40, 50))) == 2


def test_a_network_may_give_probabilities_itself(tmp_path: Path) -> None:
    module = network(nn.Softmax(dim=1))
    assert isinstance(module, nn.Sequential)
    backend = torch_file_backend(exported()(module, tmp_path), output="probabilities", labels=NAMES)
    np.testing.assert_allclose(table(replies(backend, PICTURES), NAMES), by_hand(module[:-1], PICTURES), rtol=1e-4)


def test_a_module_is_put_in_evaluation_mode() -> None:
    module = network()
    backend = module_backend(module.train(), size=SIZE, labels=NAMES)
    assert backend.name == "local:Sequential"
    np.testing.assert_allclose(
        table(replies(backend, PICTURES), NAMES), by_hand(module.eval(), PICTURES), rtol=1e-4
    )


def test_the_hash_of_a_module_follows_its_weights() -> None:
    module = network()
    before = weights_sha256(module)
    assert weights_sha256(network()) == before
    with torch.no_grad():
        next(module.parameters()).view(-1)[0] += 1e-3
    assert weights_sha256(module) != before


class Pair(nn.Module):
    def forward(self, pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return pictures.mean(dim=(2, 3)), pictures


@pytest.mark.parametrize(
    ("module", "options", "fault"),
    [
        (network(), {"labels": ["a", "b"]}, "2 labels for 4 outputs"),
        (network(), {"output": "probabilities"}, "set output = 'logits'"),
        (network(), {"devise": "cpu"}, "devise: unknown key; did you mean 'device'"),
        (network(), {"device": "gpu"}, "device 'gpu'"),
        (network(), {"size": 2}, "cannot classify a picture of 2x2 pixels: RuntimeError"),
        (network(), {"channels": 1}, "cannot classify a picture"),
        (Pair(), {}, "answers a tuple, a tensor of scores is needed"),
        (nn.Flatten(0), {"output": "probabilities"}, r"to two pictures, \(2, number of labels\) is needed"),
    ],
)
def test_a_network_that_does_not_fit_is_refused(module: nn.Module, options: dict[str, Any], fault: str) -> None:
    with pytest.raises(ConfigError, match=fault):
        module_backend(module, **{"size": SIZE, **options})


@pytest.mark.parametrize("write", [scripted, exported()], ids=["script", "export"])
def test_a_network_saved_in_training_mode_is_caught(tmp_path: Path, write: Writer) -> None:
    module = network(nn.BatchNorm1d(4), nn.Dropout(0.5))
    if write is scripted:
        module = nn.Sequential(module, AlwaysCoupled())
    with pytest.raises(ConfigError, match="depends on the other pictures of the request"):
        torch_file_backend(write(module.train(), tmp_path), size=SIZE)


class AlwaysCoupled(nn.Module):
    def forward(self, scores: torch.Tensor) -> torch.Tensor:
        return scores - scores.mean(dim=0)


@pytest.mark.parametrize(
    ("name", "fault"),
    [("model.pt", "no TorchScript file; save the network with torch.export.save"), ("model.pt2", "no file of")],
)
@pytest.mark.parametrize("content", [b"hello", b"", "pickle"])
def test_files_of_another_kind_are_refused(
    tmp_path: Path, name: str, fault: str, content: bytes | str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(network(), path)
    with pytest.raises(ConfigError, match=rf"{name}: is {fault}"):
        torch_file_backend(path)
    assert not caplog.records


def test_an_exported_program_of_another_input_is_refused(tmp_path: Path) -> None:
    program = torch.export.export(nn.Linear(3, 4), (torch.rand(2, 3),))
    torch.export.save(program, tmp_path / "model.pt2")
    with pytest.raises(ConfigError, match=r"one tensor \[n, channels, height, width\] is needed"):
        torch_file_backend(tmp_path / "model.pt2")
