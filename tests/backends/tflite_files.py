"""Small TensorFlow Lite files: one fully connected layer, float or quantised, written without TensorFlow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import flatbuffers  # type: ignore[import-untyped]
import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as schema

TYPES = {"float32": 0, "int32": 2, "uint8": 3, "int8": 9, "int16": 7}
FULLY_CONNECTED = 9


def dense_model(
    path: Path,
    weights: npt.NDArray[Any],
    *,
    size: tuple[int, int],
    kind: str = "float32",
    quantisation: tuple[tuple[float, int], tuple[float, int]] | None = None,
    weight_scale: float = 1.0,
    free_size: bool = False,
    outputs: int = 1,
) -> Path:
    """Writes pictures [1, *size, c] @ weights.T, where weights are [k, h * w * c] of type `kind`.

    quantisation: (scale, zero point) of input and of output.
    """
    classes, features = weights.shape
    channels = features // (size[0] * size[1])
    into, out = quantisation or (None, None)
    picture = _tensor("picture", [1, *size, channels], kind, into)
    if free_size:
        picture.shapeSignature = [1, -1, -1, channels]
    matrix = _tensor("weights", [classes, features], kind, (weight_scale, 0) if quantisation else None, buffer=1)
    scores = [_tensor(f"scores {i}", [1, classes], kind, out) for i in range(outputs)]
    graph = schema.SubGraphT()
    graph.tensors = [picture, matrix, *scores]
    graph.inputs = [0]
    graph.outputs = [2 + i for i in range(outputs)]
    graph.operators = [_layer([0, 1, -1], [2 + i]) for i in range(outputs)]
    path.write_bytes(_packed(graph, weights))
    return path


def _tensor(
    name: str, shape: list[int], kind: str, quantisation: tuple[float, int] | None, buffer: int = 0
) -> Any:
    tensor = schema.TensorT()
    tensor.name, tensor.shape, tensor.type, tensor.buffer = name, shape, TYPES[kind], buffer
    if quantisation is not None:
        tensor.quantization = schema.QuantizationParametersT()
        tensor.quantization.scale = [quantisation[0]]
        tensor.quantization.zeroPoint = [quantisation[1]]
    return tensor


def _layer(inputs: list[int], outputs: list[int]) -> Any:
    layer = schema.OperatorT()
    layer.opcodeIndex, layer.inputs, layer.outputs = 0, inputs, outputs
    layer.builtinOptionsType = schema.BuiltinOptions.FullyConnectedOptions
    layer.builtinOptions = schema.FullyConnectedOptionsT()
    return layer


def _packed(graph: Any, weights: npt.NDArray[Any]) -> bytes:
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = FULLY_CONNECTED
    code.version = 4
    empty, data = schema.BufferT(), schema.BufferT()
    data.data = np.frombuffer(weights.tobytes(), np.uint8)
    model = schema.ModelT()
    model.version, model.operatorCodes, model.subgraphs, model.buffers = 3, [code], [graph], [empty, data]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())
