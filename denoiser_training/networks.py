"""Small classifiers of known shape: those whose weights can be had, and those that are trained here.

Every forward takes float [n, 3, h, w] on [0, 1] and returns logits [n, classes]; a network normalises by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain

import torch
from torch import Tensor, nn
from torch.nn import functional

from smoothing_proxy.errors import ConfigError, nearest

__all__ = ["CifarResNet", "Mlp", "MobileNetV1", "SmallCnn", "fresh", "from_weights"]


class CifarResNet(nn.Module):
    """He et al. 2015 (arXiv 1512.03385), section 4.2, shortcut option A; depth is 6 * blocks + 2.

    blocks: per stage, >= 1. Pictures of 32x32; normalised with the ImageNet mean and standard deviation.
    """

    MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

    def __init__(self, blocks: int, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _stage(16, 16, 1, blocks)
        self.layer2 = _stage(16, 32, 2, blocks)
        self.layer3 = _stage(32, 64, 2, blocks)
        self.linear = nn.Linear(64, classes)
        self.register_buffer("mean", torch.tensor(self.MEAN).reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(self.STD).reshape(1, 3, 1, 1), persistent=False)

    def forward(self, pictures: Tensor) -> Tensor:
        """Float [n, 3, 32, 32] on [0, 1] to logits [n, classes]."""
        x = (pictures - self.get_buffer("mean")) / self.get_buffer("std")
        x = functional.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.linear(x.mean(dim=(2, 3)))
        return logits


class MobileNetV1(nn.Module):
    """Howard et al. 2017 (arXiv 1704.04861) with folded batch norm and TensorFlow's "SAME" padding.

    width: channels of the stem; the pointwise layers have width * 2, 4, 4, 8, ... Output 0 is "background".
    """

    STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)
    FACTORS = (2, 4, 4, 8, 8, 16, 16, 16, 16, 16, 16, 32, 32)

    def __init__(self, width: int, classes: int = 1001) -> None:
        super().__init__()
        channels = [width, *(width * factor for factor in self.FACTORS)]
        self.stem = nn.Conv2d(3, width, 3, stride=2)
        for number, (inner, outer, stride) in enumerate(
            zip(channels, channels[1:], self.STRIDES, strict=False), 1
        ):
            dw = nn.Conv2d(inner, inner, 3, stride=stride, groups=inner)
            self.add_module(f"block{number}", nn.ModuleDict({"dw": dw, "pw": nn.Conv2d(inner, outer, 1)}))
        self.classifier = nn.Linear(channels[-1], classes)

    def forward(self, pictures: Tensor) -> Tensor:
        """Float [n, 3, size, size] on [0, 1] to logits [n, classes]."""
        x = functional.relu6(_same_convolution(self.stem, (255 * pictures - 128) / 128))
        for number in range(1, len(self.STRIDES) + 1):
            block = self.get_submodule(f"block{number}")
            x = functional.relu6(_same_convolution(block.get_submodule("dw"), x))
            x = functional.relu6(block.get_submodule("pw")(x))
        logits: Tensor = self.classifier(x.mean(dim=(2, 3)))
        return logits


class SmallCnn(nn.Module):
    """Stages of a 3x3 convolution, batch norm and ReLU, each after the first at half the size; then the mean.

    widths: features per stage, finest first.
    """

    def __init__(self, classes: int, widths: Sequence[int] = (32, 64)) -> None:
        super().__init__()
        sizes = list(zip((3, *widths), widths, strict=False))
        stages = (_convolution(inner, outer, 2 if i else 1) for i, (inner, outer) in enumerate(sizes))
        self.features = nn.Sequential(*chain.from_iterable(stages))
        self.linear = nn.Linear(widths[-1], classes)

    def forward(self, pictures: Tensor) -> Tensor:
        """Float [n, 3, h, w] on [0, 1] to logits [n, classes]."""
        logits: Tensor = self.linear(self.features(2 * pictures - 1).mean(dim=(2, 3)))
        return logits


class Mlp(nn.Module):
    """Two hidden layers on the pixels of pictures of one size, side x side."""

    def __init__(self, classes: int, side: int, width: int = 128) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(3 * side * side, width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Linear(width, classes),
        )

    def forward(self, pictures: Tensor) -> Tensor:
        """Float [n, 3, side, side] on [0, 1] to logits [n, classes]."""
        logits: Tensor = self.layers((2 * pictures - 1).flatten(1))
        return logits


def from_weights(network: str, weights: Mapping[str, Tensor], *, source: str) -> nn.Module:
    """A network of ours, its size read off the tensors, which are loaded as float32.

    network: "cifar-resnet", "mobilenet-v1", "small-cnn" or "mlp". Raises ConfigError when they do not fit.
    """
    try:
        module = _sized(network, weights)
        module.load_state_dict({**_counters(module), **{key: tensor.float() for key, tensor in weights.items()}})
    except (KeyError, RuntimeError, ValueError) as error:
        raise ConfigError(f"{source}: these are not the weights of a {network}: {error}") from error
    return module


def fresh(network: str, classes: int, side: int) -> nn.Module:
    """A network of ours with random weights, for pictures of side x side; "cifar-resnet" has depth 20.

    Raises ConfigError for one that is not trained here.
    """
    makers: dict[str, Callable[[], nn.Module]] = {
        "cifar-resnet": lambda: CifarResNet(3, classes),
        "mlp": lambda: Mlp(classes, side),
        "small-cnn": lambda: SmallCnn(classes),
    }
    if network not in makers:
        raise ConfigError(f"network {network!r} cannot be trained from random weights{nearest(network, makers)}")
    return makers[network]()


def _sized(network: str, weights: Mapping[str, Tensor]) -> nn.Module:
    if network == "cifar-resnet":
        blocks = {key.split(".")[1] for key in weights if key.startswith("layer1.")}
        return CifarResNet(len(blocks), len(weights["linear.weight"]))
    if network == "mobilenet-v1":
        return MobileNetV1(len(weights["stem.weight"]), len(weights["classifier.weight"]))
    if network == "small-cnn":
        widths = [
            len(tensor) for key, tensor in weights.items() if key.startswith("features.") and tensor.ndim == 4
        ]
        return SmallCnn(len(weights["linear.weight"]), sorted(widths))
    hidden, pixels = weights["layers.0.weight"].shape
    return Mlp(len(weights["layers.4.weight"]), round((pixels / 3) ** 0.5), hidden)


def _counters(module: nn.Module) -> dict[str, Tensor]:
    """Batch norm's step counters, which files of weights leave out."""
    return {key: tensor for key, tensor in module.state_dict().items() if key.endswith("num_batches_tracked")}


class _ResNetBlock(nn.Module):
    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inner, outer, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outer)
        self.conv2 = nn.Conv2d(outer, outer, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outer)
        self.stride, self.pad = stride, outer // 4

    def forward(self, x: Tensor) -> Tensor:
        change = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        if self.stride == 2:
            x = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.pad, self.pad))
        return functional.relu(change + x)


def _stage(inner: int, outer: int, stride: int, blocks: int) -> nn.Sequential:
    first = _ResNetBlock(inner, outer, stride)
    return nn.Sequential(first, *(_ResNetBlock(outer, outer, 1) for _ in range(blocks - 1)))


def _convolution(inner: int, outer: int, stride: int) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(inner, outer, 3, stride=stride, padding=1, bias=False)
    return convolution, nn.BatchNorm2d(outer), nn.ReLU()


def _same_convolution(layer: nn.Module, x: Tensor) -> Tensor:
    """TensorFlow's "SAME": the odd pixel of padding goes to the bottom and the right."""
    assert isinstance(layer, nn.Conv2d)
    stride, edge = layer.stride[0], []
    for n in (x.shape[3], x.shape[2]):
        total = max((-(-n // stride) - 1) * stride + 3 - n, 0)
        edge += [total // 2, total - total // 2]
    out: Tensor = layer(functional.pad(x, edge))
    return out
