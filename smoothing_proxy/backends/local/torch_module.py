"""PyTorch networks: what a module, an exported program and a TorchScript file have in common."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, TypeAlias, final

import numpy as np
import numpy.typing as npt
import torch

from smoothing_proxy.backends.local.batches import BatchLimits
from smoothing_proxy.backends.local.local_backend import LocalBackend
from smoothing_proxy.backends.local.preprocess import Preprocess
from smoothing_proxy.backends.local.scores import ScoredClasses, ScoredOptions
from smoothing_proxy.errors import ConfigError
from smoothing_proxy.settings_file import parse_settings

__all__ = ["TorchOptions", "TorchScorer", "module_backend", "torch_device", "weights_sha256"]

UInt8: TypeAlias = npt.NDArray[np.uint8]


class TorchOptions(Preprocess, ScoredOptions):
    """device: "cpu", "cuda", "cuda:1", "mps"."""

    device: str = "cpu"


@final
class TorchScorer:
    """A network float32 [n, c, h, w] -> logits or probabilities [n, k], on its device already."""

    def __init__(
        self,
        network: Callable[[torch.Tensor], Any],
        preprocess: Preprocess,
        *,
        device: torch.device,
        limits: BatchLimits = BatchLimits(),  # noqa: B008 (frozen)
    ) -> None:
        self.network = network
        self.preprocess = preprocess
        self.device = device
        self.limits = limits

    @property
    def picture_size(self) -> tuple[int, int] | None:
        """Height and width of the network's input, px; None where they are not known."""
        return self.preprocess.size

    def scores(self, pixels: UInt8) -> npt.NDArray[Any]:
        """uint8 [n, h, w, 3] to outputs, float32 [n, k]."""
        inputs = self.preprocess.normalise(pixels).transpose(0, 3, 1, 2)
        return self.limits.call(self._run, np.ascontiguousarray(inputs))

    @torch.inference_mode()
    def _run(self, inputs: npt.NDArray[Any]) -> npt.NDArray[Any]:
        outputs = self.network(torch.from_numpy(inputs).to(self.device))
        if not isinstance(outputs, torch.Tensor):
            raise TypeError(f"the network answers a {type(outputs).__name__}, a tensor of scores is needed")
        return outputs.float().cpu().numpy()


def module_backend(module: torch.nn.Module, *, name: str = "", **options: object) -> LocalBackend:
    """A network made in Python, put in evaluation mode; `options` as in TorchOptions. Raises ConfigError."""
    name = name or f"local:{type(module).__name__}"
    settings = parse_settings(TorchOptions, options, source=name)
    device = torch_device(settings.device)
    scorer = TorchScorer(module.eval().to(device), settings, device=device)
    classes = ScoredClasses(name, scorer, settings, output=settings.output)
    return LocalBackend(name, classes, settings, sha256=weights_sha256(module))


def torch_device(name: str) -> torch.device:
    """The device. Raises ConfigError for one that this machine or this build of PyTorch does not have."""
    try:
        torch.empty(0, device=name)
        return torch.device(name)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device {name!r}: {str(error).splitlines()[0]}") from error


def weights_sha256(module: torch.nn.Module) -> str:
    """Sha256 of all weights and buffers by name, in hex."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
