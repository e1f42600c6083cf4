"""TensorFlow Lite files through ai-edge-litert: quantised (uint8, int8) and float."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, TypeAlias, final

import numpy as np
import numpy.typing as npt
from pydantic import Field

from smoothing_proxy.backends.local.loading import existing_file, optional_import, sha256_of
from smoothing_proxy.backends.local.local_backend import LocalBackend
from smoothing_proxy.backends.local.preprocess import Preprocess
from smoothing_proxy.backends.local.scores import Output, ScoredClasses, ScoredOptions
from smoothing_proxy.errors import ConfigError
from smoothing_proxy.settings_file import parse_settings

__all__ = ["TfliteOptions", "TfliteScorer", "tflite_backend"]

UInt8: TypeAlias = npt.NDArray[np.uint8]

INPUT_TYPES = (np.uint8, np.int8, np.float32)


class TfliteOptions(Preprocess, ScoredOptions):
    """threads: of the interpreter; left out, one per processor, at most 4.

    A quantised network is fed the pixels' own bytes (int8: minus 128), as such networks are made for, unless
    `scale`, `mean` or `std` is set: then what they give is quantised as the file says.
    """

    output: Output = "probabilities"
    threads: int | None = Field(default=None, ge=1, exclude=True)


def tflite_backend(path: str | Path, *, name: str = "", **options: object) -> LocalBackend:
    """The classifier in a .tflite file; `options` as in TfliteOptions. Raises ConfigError."""
    name = name or f"local:{path}"
    settings = parse_settings(TfliteOptions, options, source=name)
    file = existing_file(path)
    classes = ScoredClasses(name, TfliteScorer(file, settings), settings, output=settings.output)
    return LocalBackend(name, classes, settings, sha256=sha256_of(file))


@final
class TfliteScorer:
    """One interpreter, called for one picture at a time: the answer is exactly the same in any request.

    Raises ConfigError for a file that is no classifier of pictures.
    """

    def __init__(self, path: Path, options: TfliteOptions) -> None:
        runtime = optional_import("ai_edge_litert.interpreter", "tflite")
        threads = options.threads or min(4, os.cpu_count() or 1)
        try:
            self._interpreter = runtime.Interpreter(model_path=str(path), num_threads=threads)
            self._input = _input(path, self._interpreter, options.size)
            self._interpreter.allocate_tensors()
        except (RuntimeError, ValueError) as error:
            raise ConfigError(f"{path}: {error}") from error
        self._output = _output(path, self._interpreter)
        _, height, width, channels = self._input["shape"]
        self._preprocess = options.filled(size=(int(height), int(width)), channels=int(channels))

    @property
    def picture_size(self) -> tuple[int, int] | None:
        """Height and width of the network's input, px."""
        return self._preprocess.size

    def scores(self, pixels: UInt8) -> npt.NDArray[np.float64]:
        """uint8 [n, h, w, 3] to dequantised outputs, float64 [n, k]."""
        return np.stack([self._one(picture) for picture in self._quantised(pixels)])

    def _one(self, picture: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        self._interpreter.set_tensor(self._input["index"], picture[np.newaxis])
        self._interpreter.invoke()
        outputs = self._interpreter.get_tensor(self._output["index"]).reshape(-1).astype(np.float64)
        scale, zero = self._output["quantization"]
        return np.asarray((outputs - zero) * scale if scale else outputs)

    def _quantised(self, pixels: UInt8) -> npt.NDArray[Any]:
        kind = self._input["dtype"]
        if kind == np.float32:
            return self._preprocess.normalise(pixels)
        if not {"scale", "mean", "std"} & self._preprocess.model_fields_set:
            fitted = self._preprocess.fit(pixels)
            return fitted if kind == np.uint8 else (fitted.astype(np.int16) - 128).astype(np.int8)
        scale, zero = self._input["quantization"]
        limits = np.iinfo(kind)
        values = np.rint(self._preprocess.normalise(pixels) / scale) + zero
        return np.asarray(values.clip(limits.min, limits.max), kind)


def _input(path: Path, interpreter: Any, size: tuple[int, int] | None) -> Any:
    details = interpreter.get_input_details()
    shape = [int(side) for side in details[0]["shape_signature"]]
    if len(details) != 1 or len(shape) != 4 or details[0]["dtype"] not in INPUT_TYPES:
        kinds = ", ".join(f"{d['dtype'].__name__} {d['shape'].tolist()}" for d in details)
        raise ConfigError(
            f"{path}: takes {kinds}; one uint8, int8 or float32 [1, height, width, channels] is needed"
        )
    if -1 in shape[1:3] and size is None:
        raise ConfigError(f"{path}: takes pictures of any size, say which with `size`")
    if -1 in shape:
        interpreter.resize_tensor_input(details[0]["index"], [1, *(size or shape[1:3]), shape[3]])
    return interpreter.get_input_details()[0]


def _output(path: Path, interpreter: Any) -> Any:
    details = interpreter.get_output_details()
    if len(details) != 1:
        names = ", ".join(str(detail["name"]) for detail in details)
        raise ConfigError(f"{path}: has {len(details)} outputs ({names}), one with the scores is needed")
    return details[0]
