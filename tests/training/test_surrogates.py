from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from denoiser_training.batches import centre_crops, to_unit
from denoiser_training.config import SurrogateSettings
from denoiser_training.data import load_pictures
from denoiser_training.data_settings import DataSettings
from denoiser_training.errors import TrainingError
from denoiser_training.faults import memory_told
from denoiser_training.networks import CifarResNet, CifarResNet18, Mlp, MobileNetV1, SmallCnn, fresh, from_weights
from denoiser_training.surrogates import Surrogate, in_turn, load_surrogate
from smoothing_proxy.errors import ConfigError


def accuracy(surrogate: Surrogate, crops: Tensor, labels: Tensor) -> float:
    with torch.no_grad():
        answers = torch.cat([surrogate(to_unit(batch)).argmax(1) for batch in torch.split(crops, 100)])
    return 100 * float((answers == labels).float().mean())


@pytest.mark.parametrize(("name", "known"), [("resnet20", 81.03), ("resnet56", 83.20)])
def test_a_cifar_resnet_is_as_accurate_as_its_source_says(shared_data: Path, name: str, known: float) -> None:
    source = str(shared_data / "cifar10-jpeg/test.zip")
    pictures = load_pictures(DataSettings(source=source, license="-", crop_px=32, limit=500))
    weights = shared_data / f"cifar10-classifiers/{name}.safetensors"
    surrogate = load_surrogate(SurrogateSettings(name=name, network="cifar-resnet", weights=weights))
    assert pictures.labels is not None
    assert accuracy(surrogate, centre_crops(pictures, 32), pictures.labels) == pytest.approx(known, abs=5)


@pytest.mark.parametrize(
    ("file", "size", "known"),
    [("mobilenet_v1_0.5_160_float", 160, 67.7), ("mobilenet_v1_0.75_192_float", 192, 80.5)],
)
def test_a_mobilenet_is_as_accurate_as_its_source_says(
    shared_data: Path, file: str, size: int, known: float
) -> None:
    working_size = f"shorter={round(256 * size / 224)},crop={size}"
    source = str(shared_data / "imagenet-sample")
    data = DataSettings(source=source, license="-", crop_px=size, working_size=working_size, limit=200)
    pictures = load_pictures(data)
    rows = np.loadtxt(shared_data / "imagenet-sample/labels.csv", str, delimiter=",", skiprows=1, usecols=(0, 2))
    classes: Mapping[str, int] = {name: int(index) for name, index in rows}
    labels = torch.tensor([1 + classes[name] for name in pictures.names])
    weights = shared_data / f"surrogates/{file}.safetensors"
    surrogate = load_surrogate(SurrogateSettings(name="m", network="mobilenet-v1", weights=weights, input_px=size))
    assert surrogate.classes(64) == 1001
    assert accuracy(surrogate, centre_crops(pictures, size), labels) == pytest.approx(known, abs=7)


@pytest.mark.parametrize(
    "network",
    [CifarResNet(2, 7), CifarResNet18(7), MobileNetV1(8, 7), SmallCnn(7, (4, 8, 6)), Mlp(7, 8, 12)],
    ids=lambda network: type(network).__name__,
)
def test_a_network_is_rebuilt_from_its_weights_alone(network: nn.Module, tmp_path: Path) -> None:
    kinds: dict[type[nn.Module], str] = {
        CifarResNet: "cifar-resnet",
        CifarResNet18: "cifar-resnet18",
        MobileNetV1: "mobilenet-v1",
        SmallCnn: "small-cnn",
        Mlp: "mlp",
    }
    kind = kinds[type(network)]
    kept = {key: t for key, t in network.state_dict().items() if not key.endswith("num_batches_tracked")}
    safetensors.torch.save_file(kept, tmp_path / "w.safetensors")
    pictures = torch.rand(3, 3, 8, 8)
    again = load_surrogate(SurrogateSettings(name="s", network=kind, weights=tmp_path / "w.safetensors"))
    assert torch.equal(again(pictures), network.eval()(pictures))
    with pytest.raises(ConfigError, match=f"not the weights of a {kind}"):
        from_weights(kind, {"other": torch.zeros(1)}, source="w")


def test_weights_for_other_classes_give_all_but_the_last_layer() -> None:
    network = CifarResNet(1, 7)
    other = from_weights("cifar-resnet", network.state_dict(), source="w", classes=3)
    same = {key for key, t in network.state_dict().items() if torch.equal(t, other.state_dict()[key])}
    assert network.state_dict().keys() - same == {"linear.weight", "linear.bias"}
    assert other(torch.rand(1, 3, 32, 32)).shape == (1, 3)


@pytest.mark.parametrize(
    ("network", "options", "says"),
    [
        ("cifar-resnet", {"depth": 21}, "depth 21 is not 6 k + 2"),
        ("cifar-resnet", {"dept": 20}, "no option 'dept'; did you mean 'depth'"),
        ("small-cnn", {"widths": []}, "network 'small-cnn' with"),
        ("mlp", {"width": "wide"}, "network 'mlp' with"),
        ("mobilenet-v1", {}, "cannot be trained from random weights"),
    ],
)
def test_a_network_that_cannot_be_made_is_named(network: str, options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as error:
        fresh(network, 10, 32, options)
    assert says in str(error.value)


def test_a_networks_size_follows_its_options() -> None:
    deep = fresh("cifar-resnet", 4, 32, {"depth": 14})
    assert [type(part).__name__ for part in deep.get_submodule("layer1").children()] == ["_ResNetBlock"] * 2
    wide = fresh("small-cnn", 4, 8, {"widths": [5, 9, 3]})
    assert wide.get_parameter("linear.weight").shape == (4, 3)
    assert fresh("mlp", 4, 8, {"width": 6})(torch.rand(2, 3, 8, 8)).shape == (2, 4)


def test_tensorflow_pads_at_the_bottom_and_the_right() -> None:
    network = MobileNetV1(1, 2)
    with torch.no_grad():
        network.stem.weight.zero_()[0, 0, 0, 0] = 1
        network.stem.bias.zero_()  # type: ignore[union-attr]
    seen: list[Tensor] = []
    network.stem.register_forward_hook(lambda _, __, out: seen.append(out))
    ramp = torch.arange(64.0).reshape(1, 1, 8, 8).expand(1, 3, 8, 8) / 255
    network(ramp)
    assert torch.allclose(seen[0][0, 0] * 128 + 128, torch.arange(64.0).reshape(8, 8)[::2, ::2], atol=1e-4)


def test_a_surrogate_stays_frozen_in_eval_mode_and_clips() -> None:
    surrogate = Surrogate("s", fresh("small-cnn", 10, 8))
    surrogate.train()
    assert not any(module.training for module in surrogate.modules())
    assert not any(parameter.requires_grad for parameter in surrogate.parameters())
    wild = torch.randn(4, 3, 8, 8)
    assert torch.equal(surrogate(wild), surrogate(wild.clamp(0, 1)))


def test_pictures_are_resized_to_the_surrogate() -> None:
    surrogate = Surrogate("s", fresh("mlp", 10, 8), input_px=8)
    pictures = torch.rand(2, 3, 24, 24, requires_grad=True)
    surrogate(pictures).sum().backward()
    assert pictures.grad is not None
    assert surrogate.classes(24) == 10
    with pytest.raises(ConfigError, match="cannot take pictures of 24x24 px"):
        Surrogate("s", fresh("mlp", 10, 8)).classes(24)


@pytest.mark.parametrize(
    ("per_step", "rows"), [(1, ["a", "b", "c", "a"]), (2, ["ab", "ca", "bc"]), (0, ["abc"] * 2)]
)
def test_surrogates_take_turns(per_step: int, rows: list[str]) -> None:
    all_three = [Surrogate(name, nn.Flatten()) for name in "abc"]
    assert ["".join(s.name for s in in_turn(all_three, per_step, step)) for step in range(len(rows))] == rows


def doubled() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 5))


def refusing() -> nn.Module:
    raise ValueError("not like this")


class Starving(nn.Module):
    """Finds no memory."""

    def forward(self, pictures: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")


def test_no_memory_is_not_mistaken_for_a_surrogate_of_another_size() -> None:
    with pytest.raises(TrainingError, match=r"^mine: out of memory; buy some$"), memory_told("mine", "buy some"):
        Surrogate("s", Starving()).classes(8)


def test_a_factory_and_a_torchvision_checkpoint_load(tmp_path: Path) -> None:
    network = doubled()
    torch.save(network.state_dict(), tmp_path / "w.pt")
    settings = SurrogateSettings(name="mine", network=f"{__name__}:doubled", weights=tmp_path / "w.pt")
    pictures = torch.rand(2, 3, 8, 8)
    assert torch.equal(load_surrogate(settings)(pictures), network(pictures))

    from torchvision import models  # type: ignore[import-untyped]

    torch.save(models.squeezenet1_1().state_dict(), tmp_path / "v.pt")
    vision = SurrogateSettings(
        name="v", network="torchvision:squeezenet1_1", weights=tmp_path / "v.pt", input_px=64
    )
    assert load_surrogate(vision)(pictures).shape == (2, 1000)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"network": "cifar-resnt"}, "did you mean 'cifar-resnet'"),
        ({"network": "mlp"}, "weights are missing"),
        ({"network": "mlp", "weights": Path("nowhere.safetensors")}, "nowhere.safetensors"),
        ({"network": "torchvision:resnet81"}, "did you mean 'resnet18'"),
        ({"network": "no_such_module:make"}, "no_such_module"),
        ({"network": "math:sqrt"}, "math:sqrt"),
        ({"network": "builtins:dict"}, "returned dict, not a Module"),
        ({"network": f"{__name__}:refusing"}, "ValueError: not like this"),
        ({"network": "no_python:make"}, "SyntaxError"),
        ({"network": "torchvision:squeezenet1_1"}, "torchvision's weights of 'squeezenet1_1' cannot be had"),
    ],
)
def test_a_surrogate_that_cannot_be_had_is_named(
    fields: dict[str, Any], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "no_python.py").write_text("no python", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # where nobody listens
    with pytest.raises(ConfigError) as error:
        load_surrogate(SurrogateSettings(name="s", **fields))
    assert "'s'" in str(error.value)
    assert says in str(error.value)
