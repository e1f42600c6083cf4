"""ONNX files through onnxruntime: NCHW or NHWC, float32 or uint8, fixed or free batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, TypeAlias, final

import numpy as np
import numpy.typing as npt
from pydantic import Field

from smoothing_proxy.backends.local.batches import BatchLimits
from smoothing_proxy.backends.local.loading import existing_file, optional_import, sha256_of
from smoothing_proxy.backends.local.local_backend import LocalBackend
from smoothing_proxy.backends.local.preprocess import Preprocess
from smoothing_proxy.backends.local.scores import ScoredClasses, ScoredOptions
from smoothing_proxy.errors import ConfigError, nearest
from smoothing_proxy.settings_file import parse_settings

__all__ = ["OnnxOptions", "OnnxScorer", "onnx_backend"]

UInt8: TypeAlias = npt.NDArray[np.uint8]
Layout: TypeAlias = Literal["nchw", "nhwc"]

INPUT_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(uint8)": np.uint8}


class OnnxOptions(Preprocess, ScoredOptions):
    """layout: of the input; left out, told by where the file has 3 or 1 channels. output_name: of several.

    threads: of one call; left out, onnxruntime decides. providers: onnxruntime's, in order of preference.
    A uint8 network is fed the pixels themselves: `scale`, `mean` and `std` are not for it.
    """

    layout: Layout | None = None
    output_name: str = ""
    threads: int | None = Field(default=None, ge=1, exclude=True)
    providers: tuple[str, ...] = ("CPUExecutionProvider",)


def onnx_backend(path: str | Path, *, name: str = "", **options: object) -> LocalBackend:
    """The classifier in an .onnx file; `options` as in OnnxOptions. Raises ConfigError."""
    name = name or f"local:{path}"
    settings = parse_settings(OnnxOptions, options, source=name)
    file = existing_file(path)
    classes = ScoredClasses(name, OnnxScorer(file, settings), settings, output=settings.output)
    return LocalBackend(name, classes, settings, sha256=sha256_of(file))


@final
class OnnxScorer:
    """A session and what its file says of its input. Raises ConfigError for a file that is no classifier."""

    def __init__(self, path: Path, options: OnnxOptions) -> None:
        self._session = _session(path, options)
        self._output = _output(path, self._session, options.output_name)
        self._input = _input(path, self._session)
        batch, *sides = self._input.shape
        self._layout = options.layout or _layout(path, sides)
        height, width, channels = sides if self._layout == "nhwc" else (*sides[1:], sides[0])
        size = (height, width) if isinstance(height, int) and isinstance(width, int) else None
        self._preprocess = options.filled(size=size, channels=channels if isinstance(channels, int) else None)
        self._limits = BatchLimits(batch, batch) if isinstance(batch, int) else BatchLimits()

    @property
    def picture_size(self) -> tuple[int, int] | None:
        """Height and width of the network's input, px; None where the file leaves them free."""
        return self._preprocess.size

    def scores(self, pixels: UInt8) -> npt.NDArray[Any]:
        """uint8 [n, h, w, 3] to outputs, [n, k]."""
        kind = INPUT_TYPES[self._input.type]
        inputs = (
            self._preprocess.fit(pixels) if kind is np.uint8 else self._preprocess.normalise(pixels).astype(kind)
        )
        if self._layout == "nchw":
            inputs = np.ascontiguousarray(inputs.transpose(0, 3, 1, 2))
        return self._limits.call(self._run, inputs)

    def _run(self, inputs: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return np.asarray(self._session.run([self._output], {self._input.name: inputs})[0])


def _session(path: Path, options: OnnxOptions) -> Any:
    runtime = optional_import("onnxruntime", "onnx")
    settings = runtime.SessionOptions()
    if options.threads is not None:
        settings.intra_op_num_threads = options.threads
    for provider in options.providers:
        if provider not in runtime.get_available_providers():
            raise ConfigError(
                f"onnxruntime has no {provider!r}{nearest(provider, runtime.get_available_providers())}"
            )
    try:
        return runtime.InferenceSession(str(path), settings, providers=list(options.providers))
    except Exception as error:  # onnxruntime's errors have no common base
        raise ConfigError(f"{path}: {error}") from error


def _input(path: Path, session: Any) -> Any:
    inputs = session.get_inputs()
    if len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].type not in INPUT_TYPES:
        kinds = ", ".join(f"{i.type} {i.shape}" for i in inputs)
        raise ConfigError(f"{path}: takes {kinds}; one float or uint8 tensor of pictures is needed")
    return inputs[0]


def _output(path: Path, session: Any, wanted: str) -> str:
    names = [output.name for output in session.get_outputs()]
    if wanted and wanted not in names:
        raise ConfigError(f"{path}: has no output {wanted!r}{nearest(wanted, names)}")
    if not wanted and len(names) != 1:
        raise ConfigError(f"{path}: has {len(names)} outputs ({', '.join(names)}), choose one with `output_name`")
    return wanted or names[0]


def _layout(path: Path, sides: list[object]) -> Layout:
    first, last = sides[0] in {1, 3}, sides[2] in {1, 3}
    if first == last:
        raise ConfigError(f"{path}: cannot tell channels from sides in {sides}, set layout to 'nchw' or 'nhwc'")
    return "nchw" if first else "nhwc"
