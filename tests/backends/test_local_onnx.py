from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import scipy.special
from onnx import TensorProto, helper, numpy_helper

from smoothing_proxy.backends.local.onnx_file import onnx_backend
from smoothing_proxy.errors import ConfigError
from tests.backends.backend_asking import noise_pictures, one_by_one, replies, table

SIZE = (4, 6)
PICTURES = noise_pictures(5, *SIZE)
NAMES = ["a", "b", "c", "d", "e"]
WEIGHTS = np.random.default_rng(0).normal(size=(5, 4, 6, 3)).astype(np.float32)


def dense_model(
    path: Path,
    shape: Sequence[int | str],
    *,
    kind: int = TensorProto.FLOAT,
    divisor: float = 1.0,
    outputs: Sequence[str] = ("scores",),
) -> Path:
    """Writes pictures / divisor @ WEIGHTS; the weights follow the layout that `shape` has."""
    nchw = shape[1] == 3
    matrix = (WEIGHTS.transpose(0, 3, 1, 2) if nchw else WEIGHTS).reshape(5, -1).T / np.float32(divisor)
    nodes = [
        helper.make_node("Cast", ["picture"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["floats"], ["rows"]),
        *(helper.make_node("MatMul", ["rows", "matrix"], [name]) for name in outputs),
    ]
    graph = helper.make_graph(
        nodes,
        "dense",
        [helper.make_tensor_value_info("picture", kind, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [shape[0], 5]) for name in outputs],
        [numpy_helper.from_array(np.ascontiguousarray(matrix), "matrix")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


@pytest.mark.parametrize(
    ("shape", "kind"),
    [
        (("n", 3, 4, 6), TensorProto.FLOAT),
        (("n", 4, 6, 3), TensorProto.FLOAT),
        ((1, 3, 4, 6), TensorProto.FLOAT),
        ((3, 4, 6, 3), TensorProto.FLOAT),
        (("n", 3, 4, 6), TensorProto.FLOAT16),
        (("n", 3, 4, 6), TensorProto.UINT8),
        ((2, 4, 6, 3), TensorProto.UINT8),
        (("n", 3, "h", "w"), TensorProto.FLOAT),
    ],
)
def test_layout_type_and_batch_are_read_from_the_file(
    tmp_path: Path, shape: Sequence[int | str], kind: int
) -> None:
    raw = kind == TensorProto.UINT8
    path = dense_model(tmp_path / "dense.onnx", shape, kind=kind, divisor=255.0 if raw else 1.0)
    options: dict[str, Any] = {} if isinstance(shape[2], int) else {"size": SIZE}
    backend = onnx_backend(path, labels=NAMES, **options)
    expected = scipy.special.softmax((PICTURES / 255.0).reshape(5, -1) @ WEIGHTS.reshape(5, -1).T, axis=1)
    tolerance = 3e-2 if kind == TensorProto.FLOAT16 else 1e-4
    together = table(replies(backend, PICTURES), NAMES)
    np.testing.assert_allclose(together, expected, rtol=tolerance, atol=1e-7)
    np.testing.assert_allclose(together, table(one_by_one(backend, PICTURES), NAMES), rtol=1e-5)


def test_mean_std_and_layout_are_taken_from_the_options(tmp_path: Path) -> None:
    path = dense_model(tmp_path / "dense.onnx", ("n", "h", "w", "c"))
    backend = onnx_backend(path, labels=NAMES, size=SIZE, layout="nhwc", mean=0.5, std=[0.1, 0.2, 0.3])
    inputs = (PICTURES / 255.0 - 0.5) / [0.1, 0.2, 0.3]
    expected = scipy.special.softmax(inputs.reshape(5, -1) @ WEIGHTS.reshape(5, -1).T, axis=1)
    np.testing.assert_allclose(table(replies(backend, PICTURES), NAMES), expected, rtol=1e-4, atol=1e-7)


def test_one_of_several_outputs_is_chosen_by_name(tmp_path: Path) -> None:
    path = dense_model(tmp_path / "dense.onnx", ("n", 3, 4, 6), outputs=["scores", "features"])
    with pytest.raises(ConfigError, match=r"2 outputs \(scores, features\), choose one with `output_name`"):
        onnx_backend(path)
    with pytest.raises(ConfigError, match="no output 'score'; did you mean 'scores'"):
        onnx_backend(path, output_name="score")
    assert len(replies(onnx_backend(path, output_name="scores", threads=1), PICTURES)) == 5


@pytest.mark.parametrize(
    ("shape", "kind", "options", "fault"),
    [
        (("n", 3, "h", 3), TensorProto.FLOAT, {}, "cannot tell channels from sides"),
        (("n", "c", "h", "w"), TensorProto.FLOAT, {}, "set layout to 'nchw' or 'nhwc'"),
        (("n", 72), TensorProto.FLOAT, {}, "one float or uint8 tensor of pictures"),
        (("n", 3, 4, 6), TensorProto.INT64, {}, r"takes tensor\(int64\)"),
        (("n", 3, 4, 6), TensorProto.FLOAT, {"labels": ["a"]}, "1 labels for 5 outputs"),
        (("n", 3, 4, 6), TensorProto.FLOAT, {"output": "probabilities"}, "set output = 'logits'"),
        (("n", 3, 4, 6), TensorProto.FLOAT, {"channels": 1}, "cannot classify a picture"),
        (("n", 3, "h", "w"), TensorProto.FLOAT, {}, r"224x224 pixels \(if it takes another size, set `size`\)"),
        (("n", 3, 4, 6), TensorProto.FLOAT, {"provider": ["x"]}, "did you mean 'providers'"),
        (("n", 3, 4, 6), TensorProto.FLOAT, {"providers": ["CPUExecutor"]}, "mean 'CPUExecutionProvider'"),
    ],
)
def test_what_does_not_fit_is_refused(
    tmp_path: Path, shape: Sequence[int | str], kind: int, options: dict[str, Any], fault: str
) -> None:
    with pytest.raises(ConfigError, match=fault):
        onnx_backend(dense_model(tmp_path / "dense.onnx", shape, kind=kind), **options)


@pytest.mark.parametrize("content", [b"hello", b"", b"\x08\x01"])
def test_a_file_that_is_no_onnx_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"model\.onnx: "):
        onnx_backend(path)
    path.rename(tmp_path / "model2.onnx")
    with pytest.raises(ConfigError, match=r"model\.onnx: no such file; did you mean 'model2\.onnx'"):
        onnx_backend(path)


def test_a_missing_library_names_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ConfigError, match=r"pip install 'smoothing-proxy\[onnx\]'"):
        onnx_backend(dense_model(tmp_path / "dense.onnx", ("n", 3, 4, 6)))
