"""Saved PyTorch programs: torch.export (.pt2) and TorchScript (.pt). Pickled modules are refused."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.export.passes import move_to_device_pass

from smoothing_proxy.backends.local.batches import BatchLimits
from smoothing_proxy.backends.local.loading import existing_file, sha256_of
from smoothing_proxy.backends.local.local_backend import LocalBackend
from smoothing_proxy.backends.local.scores import ScoredClasses
from smoothing_proxy.backends.local.torch_module import TorchOptions, TorchScorer, torch_device
from smoothing_proxy.errors import ConfigError
from smoothing_proxy.settings_file import parse_settings

__all__ = ["exported_scorer", "script_scorer", "torch_file_backend"]

UNBOUNDED = 2**31
"""Batch sizes from here on stand for "any" in an exported program."""


def torch_file_backend(path: str | Path, *, name: str = "", **options: object) -> LocalBackend:
    """The classifier in a .pt2 or .pt file; `options` as in TorchOptions. Raises ConfigError.

    It takes float32 [n, channels, height, width]. Of a TorchScript file the size is not known: set `size`, or
    pictures go in as they are.
    """
    name = name or f"local:{path}"
    settings = parse_settings(TorchOptions, options, source=name)
    file = existing_file(path)
    scorer = (exported_scorer if file.suffix == ".pt2" else script_scorer)(file, settings)
    classes = ScoredClasses(name, scorer, settings, output=settings.output)
    return LocalBackend(name, classes, settings, sha256=sha256_of(file))


def script_scorer(path: Path, options: TorchOptions) -> TorchScorer:
    """A TorchScript file in evaluation mode. Raises ConfigError for a file of another kind."""
    device = torch_device(options.device)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`torch.jit.load` is deprecated", FutureWarning)
            module = torch.jit.load(str(path), map_location=device)  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError) as error:
        raise ConfigError(
            f"{path}: is no TorchScript file; save the network with torch.export.save as .pt2 (pickled modules "
            f"and bare weights are not loaded): {str(error).splitlines()[0]}"
        ) from error
    return TorchScorer(module.eval(), options, device=device)


def exported_scorer(path: Path, options: TorchOptions) -> TorchScorer:
    """A torch.export file, with the size, channels and batch that it was exported for. Raises ConfigError."""
    device = torch_device(options.device)
    try:
        with _quiet():
            program = torch.export.load(path)
    except Exception as error:  # a zip, JSON or PyTorch error, none of which is declared
        raise ConfigError(f"{path}: is no file of torch.export.save: {type(error).__name__}: {error}") from error
    shape = _input_shape(path, program)
    height, width = shape[2:]
    preprocess = options.filled(
        size=(height, width) if isinstance(height, int) and isinstance(width, int) else None,
        channels=shape[1] if isinstance(shape[1], int) else None,
    )
    limits = _batch_limits(program, shape[0])
    network = move_to_device_pass(program, device).module()
    return TorchScorer(network, preprocess, device=device, limits=limits)


def _input_shape(path: Path, program: torch.export.ExportedProgram) -> tuple[Any, ...]:
    """Sides of the only input: an int where it is fixed."""
    names = program.graph_signature.user_inputs
    values = [node.meta["val"] for node in program.graph.nodes if node.op == "placeholder" and node.name in names]
    shapes = [tuple(value.shape) for value in values if isinstance(value, torch.Tensor)]
    if len(shapes) != 1 or len(names) != 1 or len(shapes[0]) != 4:
        raise ConfigError(f"{path}: takes {list(names)}, one tensor [n, channels, height, width] is needed")
    return shapes[0]


def _batch_limits(program: torch.export.ExportedProgram, batch: Any) -> BatchLimits:
    if isinstance(batch, int):
        return BatchLimits(batch, batch)
    bounds = program.range_constraints.get(batch.node.expr)
    if bounds is None:
        return BatchLimits()
    most = int(bounds.upper) if bounds.upper < UNBOUNDED else None
    return BatchLimits(max(int(bounds.lower), 1), most)


@contextmanager
def _quiet() -> Iterator[None]:
    """PyTorch logs a traceback for a file that it cannot read, before it raises."""
    logger = logging.getLogger("torch.export")
    before = logger.disabled
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = before
