"""Runs any network as a Denoiser: in batches, on any device, with f(batch) equal to f(one by one).

oneDNN's float32 convolutions round differently for one picture than for several (up to 4e-7 on an AVX-512 CPU),
while a picture's place in a batch and its neighbours change no bit. So every call computes a batch of one fixed
shape for its picture size, filled up with zeros where there are fewer pictures: a lone picture costs as much as a
full batch. Who asks for a few pictures at a time gives a small `batch_size`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeAlias, get_args

import numpy as np
import torch
from torch import Tensor, nn

from smoothing_proxy.denoisers.batches import Pictures, check_pictures, in_parts, rows_within
from smoothing_proxy.denoisers.shipped import covering
from smoothing_proxy.denoisers.weights import load
from smoothing_proxy.errors import ConfigError, DenoiserError, nearest

__all__ = ["Precision", "TorchDenoiser", "load_denoiser"]

Precision: TypeAlias = Literal["auto", "float32", "bfloat16", "float16"]

MOST_ROWS = {"cpu": 32, "cuda": 256, "mps": 64}
"""On a CPU, larger batches than 32 gain less than a tenth at 32x32 and cost short batches their padding."""

PART_PIXELS = {"cpu": 2**15, "cuda": 2**22, "mps": 2**20}
"""Pixels in one batch: on a CPU what was fastest (one picture of 224x224), on a GPU what fits in memory."""


class TorchDenoiser:
    """A network that takes (noisy: float [n, 3, h, w], sigma: float) and returns the same shape.

    module: in eval mode; it is moved to the device and must depend on one picture at a time.
    name, fingerprint: as Denoiser says; precision and device are added to the fingerprint.
    sigma_min, sigma_max: the noise levels it was trained for, ends included. min_side_px: least height and width.
    device: "auto" (cuda, else mps, else cpu), or as torch writes it ("cuda:1").
    precision: of the convolutions; input and output stay float32. "auto" takes bfloat16 on a GPU that has it and
    on a CPU with its instructions (2.2 to 2.6 times as fast for the U-Net at 32x32 and 224x224), else float32.
    batch_size: pictures computed at once, >= 1; None fits it to the picture's size and the device. Memory is
    bounded by it, whatever n is.

    Raises DenoiserError for a module in train mode, ConfigError for a device that is not there or an unknown
    precision. One caller at a time.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        name: str,
        fingerprint: str,
        sigma_min: float,
        sigma_max: float,
        min_side_px: int = 1,
        device: str = "auto",
        precision: Precision = "auto",
        batch_size: int | None = None,
    ) -> None:
        _check_eval(name, module)
        if batch_size is not None and (type(batch_size) is not int or batch_size < 1):
            raise ConfigError(f"{name}: batch_size is {batch_size!r}; expected a whole number >= 1")
        self.device = _device(device)
        self.dtype = _dtype(precision, self.device)
        self.module = module.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.sigma_min, self.sigma_max, self.min_side_px = sigma_min, sigma_max, min_side_px
        self._name, self._fingerprint = name, fingerprint
        self._asked_rows = batch_size

    @property
    def name(self) -> str:
        """As the user would write it."""
        return self._name

    @property
    def fingerprint(self) -> str:
        """What was given for the weights, the precision, and the kind of device where it is not the CPU.

        Each kind rounds in its own way, so that a picture begun on one is not finished on another. The batch size
        changes less, and is left out.
        """
        device = "" if self.device.type == "cpu" else f",device={self.device.type}"
        return f"{self._fingerprint},precision={str(self.dtype).removeprefix('torch.')}{device}"

    @property
    def batch_size(self) -> int:
        """Pictures per call at best; large ones are computed fewer at a time unless it was set."""
        return self._asked_rows or MOST_ROWS[self.device.type]

    def rows(self, height: int, width: int) -> int:
        """Pictures of this size in one batch: the fixed shape that every call is filled up to."""
        pixels = PART_PIXELS[self.device.type]
        return self._asked_rows or rows_within(height, width, most=self.batch_size, pixels=pixels)

    def check(self, sigma: float, height: int, width: int) -> None:
        """Raises DenoiserError outside of the trained sigmas or below the least side, and says what would do."""
        if not self.sigma_min <= sigma <= self.sigma_max:
            others = [repr(other) for other in covering(sigma) if other != self.name]
            raise DenoiserError(
                f"{self.name}: trained for sigma {self.sigma_min:g} to {self.sigma_max:g}, not for {sigma:g}; "
                f"for that: {', '.join([*others, repr('wavelet:haar')])}"
            )
        if min(height, width) < self.min_side_px:
            raise DenoiserError(
                f"{self.name}: a picture of {height}x{width} is too small; sides from {self.min_side_px} pixels"
            )

    def denoise(self, noisy: Pictures, sigma: float) -> Pictures:
        """As Denoiser says.

        Raises DenoiserError for another dtype or shape, as `check`, when the module is in train mode again, when
        it fails, changes the shape or answers NaN, and when memory runs out.
        """
        check_pictures(self.name, noisy)
        height, width = noisy.shape[1:3]
        self.check(sigma, height, width)
        _check_eval(self.name, self.module)
        rows = self.rows(height, width)
        return in_parts(noisy, rows, lambda part: self._part(part, rows, sigma))

    def _part(self, noisy: Pictures, rows: int, sigma: float) -> Pictures:
        """`noisy` in a batch of `rows`. NHWC in memory is channels_last, so that the permutation costs nothing."""
        batch = np.zeros((rows, *noisy.shape[1:]), np.float32)
        batch[: len(noisy)] = noisy
        pictures = torch.from_numpy(batch).to(self.device).permute(0, 3, 1, 2)
        denoised = self._run(pictures, sigma)[: len(noisy)]
        if not bool(torch.isfinite(denoised).all()):
            raise DenoiserError(
                f"{self.name}: NaN or infinity in its output at sigma {sigma:g} ({self.dtype} on {self.device})"
            )
        return denoised.permute(0, 2, 3, 1).float().cpu().numpy()

    def _run(self, pictures: Tensor, sigma: float) -> Tensor:
        rows, _, height, width = pictures.shape
        kind, mixed = self.device.type, self.dtype != torch.float32
        try:
            with (
                torch.inference_mode(),
                torch.autocast(kind, self.dtype if mixed else None, enabled=mixed),
                torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False),
            ):
                denoised: Tensor = self.module(pictures, sigma)
        except (RuntimeError, TypeError, ValueError) as error:
            raise self._failure(error, f"{rows} pictures of {height}x{width}") from error
        if denoised.shape != pictures.shape:
            raise DenoiserError(
                f"{self.name}: {list(pictures.shape)} in, {list(denoised.shape)} out; expected equal"
            )
        return denoised

    def _failure(self, error: Exception, what: str) -> DenoiserError:
        where = f"{what} on {self.device}"
        text = str(error).lower()
        if isinstance(error, torch.OutOfMemoryError) or "out of memory" in text or "can't allocate" in text:
            return DenoiserError(f"{self.name}: out of memory for {where}; set a batch_size below the present one")
        return DenoiserError(f"{self.name}: the network failed for {where}: {error}")


def load_denoiser(
    path: Path,
    *,
    device: str = "auto",
    precision: Precision = "auto",
    batch_size: int | None = None,
    name: str | None = None,
) -> TorchDenoiser:
    """The denoiser of a card (.json) or of weights beside their card (.safetensors).

    device, precision, batch_size: as TorchDenoiser. name: None takes the path, which is how a user writes it.
    Raises DenoiserError and WeightsMismatchError as `weights.load`, ConfigError as TorchDenoiser.
    """
    card, module = load(path)
    return TorchDenoiser(
        module,
        name=name or str(path),
        fingerprint=f"sha256:{card.sha256}",
        sigma_min=card.sigma_min,
        sigma_max=card.sigma_max,
        min_side_px=card.min_side_px,
        device=device,
        precision=precision,
        batch_size=batch_size,
    )


def _check_eval(name: str, module: nn.Module) -> None:
    training = [path or "the module itself" for path, part in module.named_modules() if part.training]
    if training:
        raise DenoiserError(
            f"{name}: in train mode ({training[-1]}), where batch normalisation lets one picture's output "
            "depend on the others of its batch; call .eval() first"
        )


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    expected = f"device is {name!r}; expected auto, cpu, cuda, cuda:N or mps, as far as this machine has it"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, TypeError, NotImplementedError) as error:
        raise ConfigError(f"{expected} ({str(error).splitlines()[0]})") from None
    if device.type not in MOST_ROWS:
        raise ConfigError(expected)
    return device


def _dtype(precision: str, device: torch.device) -> torch.dtype:
    if precision not in get_args(Precision):
        raise ConfigError(f"precision is {precision!r}{nearest(str(precision), get_args(Precision))}")
    if precision != "auto":
        found: torch.dtype = getattr(torch, precision)
        return found
    return torch.bfloat16 if _has_bfloat16(device) else torch.float32


def _has_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu" or not hasattr(torch.cpu, "get_capabilities"):
        return False
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
