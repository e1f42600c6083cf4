"""Small classifiers of known shape: those whose weights can be had, and those that are trained here.

Every forward takes float [n, 3, h, w] on [0, 1] and returns logits [n, classes]; a network normalises by itself.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from itertools import chain

import torch
from pydantic import JsonValue
from torch import Tensor, nn
from torch.nn import functional

from smoothing_proxy.errors import ConfigError, nearest

__all__ = ["OURS", "CifarResNet", "CifarResNet18", "Mlp", "MobileNetV1", "SmallCnn", "fresh", "from_weights"]

OURS = ("cifar-resnet", "cifar-resnet18", "mlp", "mobilenet-v1", "small-cnn")


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


class CifarResNet18(nn.Module):
    """torchvision's resnet18 (11 million weights) for small pictures: a 3x3 stem at full size and no pooling."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        from torchvision.models import resnet18  # type: ignore[import-untyped]

        self.body = resnet18(weights=None, num_classes=classes)
        self.body.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        self.body.maxpool = nn.Identity()

    def forward(self, pictures: Tensor) -> Tensor:
        """Float [n, 3, h, w] on [0, 1], best 32x32, to logits [n, classes]."""
        logits: Tensor = self.body(4 * pictures - 2)
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


def from_weights(
    network: str, weights: Mapping[str, Tensor], *, source: str, classes: int | None = None
) -> nn.Module:
    """A network of ours, its size read off the tensors, which are loaded as float32.

    network: one of OURS. classes: another number of them leaves the last layer at random weights; None keeps the
    file's. Raises ConfigError when they do not fit.
    """
    try:
        module = _sized(network, weights, classes)
        head = _HEADS[network] + "."
        other = classes is not None and len(weights[f"{head}weight"]) != classes
        own = {key: t for key, t in module.state_dict().items() if other and key.startswith(head)}
        kept = {key: t.float() for key, t in weights.items() if key not in own}
        module.load_state_dict({**_counters(module), **kept, **own})
    except (KeyError, RuntimeError, ValueError) as error:
        raise ConfigError(f"{source}: these are not the weights of a {network}: {error}") from error
    return module


def fresh(network: str, classes: int, side: int, options: Mapping[str, JsonValue] | None = None) -> nn.Module:
    """A network of ours with random weights, for pictures of side x side.

    options: "depth" of a cifar-resnet (6 k + 2; 20 by default), "widths" of a small-cnn, "width" of a mlp.
    Raises ConfigError for one that is not trained here, or has no such option.
    """
    makers: dict[str, Callable[..., nn.Module]] = {
        "cifar-resnet": lambda depth=20: CifarResNet(_blocks(depth), classes),
        "cifar-resnet18": lambda: CifarResNet18(classes),
        "mlp": lambda width=128: Mlp(classes, side, width),
        "small-cnn": lambda widths=(32, 64): SmallCnn(classes, widths),
    }
    if network not in makers:
        raise ConfigError(f"network {network!r} cannot be trained from random weights{nearest(network, makers)}")
    known = inspect.signature(makers[network]).parameters
    for key in options or {}:
        if key not in known:
            raise ConfigError(f"network {network!r} has no option {key!r}{nearest(key, known)}")
    try:
        return makers[network](**(options or {}))
    except (TypeError, ValueError, RuntimeError, IndexError) as error:
        raise ConfigError(f"network {network!r} with {dict(options or {})}: {error}") from error


_HEADS = {
    "cifar-resnet": "linear",
    "cifar-resnet18": "body.fc",
    "mlp": "layers.4",
    "mobilenet-v1": "classifier",
    "small-cnn": "linear",
}
"""The last layer of each, which has one row per class."""


def _blocks(depth: int) -> int:
    if depth < 8 or (depth - 2) % 6:
        raise ValueError(f"depth {depth} is not 6 k + 2 with k >= 1")
    return (depth - 2) // 6


def _sized(network: str, weights: Mapping[str, Tensor], classes: int | None) -> nn.Module:
    count = classes or len(weights[f"{_HEADS[network]}.weight"])
    if network == "cifar-resnet":
        return CifarResNet(len({key.split(".")[1] for key in weights if key.startswith("layer1.")}), count)
    if network == "cifar-resnet18":
        return CifarResNet18(count)
    if network == "mobilenet-v1":
        return MobileNetV1(len(weights["stem.weight"]), count)
    if network == "small-cnn":
        kernels = sorted(
            (int(key.split(".")[1]), len(tensor))
            for key, tensor in weights.items()
            if key.startswith("features.") and tensor.ndim == 4
        )
        return SmallCnn(count, [width for _, width in kernels])
    hidden, pixels = weights["layers.0.weight"].shape
    return Mlp(count, round((pixels / 3) ** 0.5), hidden)


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
