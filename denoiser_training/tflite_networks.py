"""Quantised TensorFlow Lite classifiers as networks that may be differentiated: what is in the file, as reals.

A tensor of bytes q stands for scale * (q - zero) (Jacob et al. 2018, arXiv 1712.05877). Weights are read so; what
a layer gives is cut to the range that its bytes can hold, which is where such files keep their activations (ReLU6:
0 to 6). Rounding between layers is left out: it has no gradient, and changes few answers.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from smoothing_proxy.errors import ConfigError

__all__ = ["Dequantised", "read_tflite"]

CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D")
OTHERS = ("ADD", "AVERAGE_POOL_2D", "RESHAPE", "SOFTMAX")


@dataclass(frozen=True)
class _Step:
    """kind: the file's. inputs: numbers of the tensors that change. output: of what is made. least, most: of it.

    stride: of a convolution, whose weights are buffers named by `output`.
    """

    kind: str
    inputs: tuple[int, ...]
    output: int
    least: float
    most: float
    stride: int = 1


class Dequantised(nn.Module):
    """float32 [n, 3, side, side] on [0, 1] to logits [n, k]. side_px: of the pictures that the file is for."""

    def __init__(self, steps: list[_Step], weights: dict[str, Tensor], entry: int, side_px: int) -> None:
        super().__init__()
        self.side_px = side_px
        self._steps, self._entry = steps, entry
        for name, values in weights.items():
            self.register_buffer(name, values)

    def forward(self, pictures: Tensor) -> Tensor:
        """See the class."""
        found = {self._entry: (255 * pictures - 128) / 128}
        made = found[self._entry]
        for step in self._steps:
            made = self._made(step, [found[number] for number in step.inputs])
            found[step.output] = made
        return made

    def _made(self, step: _Step, inputs: list[Tensor]) -> Tensor:
        first = inputs[0]
        if step.kind == "SOFTMAX":
            return first
        if step.kind == "RESHAPE":
            return first.flatten(1)
        if step.kind == "AVERAGE_POOL_2D":
            return first.mean(dim=(2, 3), keepdim=True)
        made = first + inputs[1] if step.kind == "ADD" else self._convolved(step, first)
        return made.clamp(step.least, step.most)

    def _convolved(self, step: _Step, x: Tensor) -> Tensor:
        weight, bias = self.get_buffer(f"weight{step.output}"), self.get_buffer(f"bias{step.output}")
        groups = x.shape[1] if step.kind == "DEPTHWISE_CONV_2D" else 1
        return functional.conv2d(_same(x, weight.shape[2], step.stride), weight, bias, step.stride, groups=groups)


def read_tflite(path: Path) -> Dequantised:
    """The network of a file with convolutions, additions, a mean and a softmax, as MobileNets are.

    Raises ConfigError where there is no such file, it holds other layers, or ai-edge-litert is not installed.
    """
    if not path.is_file():
        raise ConfigError(f"{path}: no such file")
    interpreter = _opened(path)
    tensors = {int(one["index"]): one for one in interpreter.get_tensor_details()}
    entry = interpreter.get_input_details()[0]
    if len(entry["shape"]) != 4 or tuple(entry["quantization"]) != (1 / 128, 128):
        raise ConfigError(
            f"{path}: takes {list(entry['shape'])} at {entry['quantization']}, not pictures of bytes"
        )
    steps: list[_Step] = []
    weights: dict[str, Tensor] = {}
    for layer in interpreter._get_ops_details():  # noqa: SLF001 (there is no public way to a file's layers)
        kind, inputs, output = layer["op_name"], [int(i) for i in layer["inputs"]], int(layer["outputs"][0])
        if kind not in (*CONVOLUTIONS, *OTHERS):
            raise ConfigError(
                f"{path}: a layer {kind}, which is not read; only {', '.join((*CONVOLUTIONS, *OTHERS))}"
            )
        stride = 1
        if kind in CONVOLUTIONS:
            values, bias = (_reals(interpreter, tensors[number]) for number in inputs[1:3])
            weights[f"weight{output}"] = (
                values.permute(3, 0, 1, 2) if kind != "CONV_2D" else values.permute(0, 3, 1, 2)
            )
            weights[f"bias{output}"] = bias
            stride = -(-int(tensors[inputs[0]]["shape"][1]) // int(tensors[output]["shape"][1]))
        changing = inputs if kind == "ADD" else inputs[:1]
        steps.append(_Step(kind, tuple(changing), output, *_range(tensors[output]), stride=stride))
    return Dequantised(steps, weights, int(entry["index"]), int(entry["shape"][1]))


def _opened(path: Path) -> Any:
    try:
        runtime = importlib.import_module("ai_edge_litert.interpreter")
    except ImportError as error:
        raise ConfigError(f"{path}: pip install 'smoothing-proxy[tflite]' ({error})") from error
    plain = runtime.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES  # a delegate hides the layers
    try:
        made = runtime.Interpreter(model_path=str(path), num_threads=1, experimental_op_resolver_type=plain)
        made.allocate_tensors()
    except (RuntimeError, ValueError) as error:
        raise ConfigError(f"{path}: {error}") from error
    return made


def _reals(interpreter: Any, tensor: dict[str, Any]) -> Tensor:
    scale, zero = tensor["quantization"]
    values = interpreter.get_tensor(tensor["index"]).astype(np.float64)
    return torch.from_numpy((scale * (values - zero)).astype(np.float32))


def _range(tensor: dict[str, Any]) -> tuple[float, float]:
    scale, zero = tensor["quantization"]
    return scale * (0 - zero), scale * (255 - zero)


def _same(x: Tensor, kernel: int, stride: int) -> Tensor:
    """TensorFlow's padding: as little as gives ceil(side / stride), the odd pixel below and on the right."""
    pads = []
    for side in (x.shape[3], x.shape[2]):
        total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
        pads += [total // 2, total - total // 2]
    return functional.pad(x, pads)
