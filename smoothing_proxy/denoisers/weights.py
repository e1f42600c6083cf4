"""Weights on disk: a safetensors file and its card. Pickles are refused, since loading one runs its code."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from smoothing_proxy.denoisers.architectures import build
from smoothing_proxy.denoisers.card import PICKLE_SUFFIXES, DenoiserCard, Provenance, read_card
from smoothing_proxy.errors import DenoiserError, WeightsMismatchError

__all__ = ["DenoiserCard", "Provenance", "load", "save", "stored"]


def save(
    folder: Path,
    state_dict: Mapping[str, Tensor],
    provenance: Provenance,
    *,
    dtype: Literal["float16", "float32"] = "float32",
) -> Path:
    """Write `{name}.safetensors` and then `{name}.json` into `folder`; returns the card's path.

    state_dict: of the architecture that `provenance` names, on any device. Each file is replaced as a whole: a
    crash leaves the old pair, or new weights that `load` refuses because the old card has another sha256.
    Raises WeightsMismatchError when the tensors are not that architecture's, DenoiserError when one holds NaN or
    infinity (also one too large for float16) or when the folder cannot be written.
    """
    tensors = stored(state_dict, dtype)
    _assemble(provenance, tensors, source=f"weights of {provenance.name!r}")
    data = safetensors.torch.save(tensors)
    card = DenoiserCard(
        **provenance.model_dump(),
        weights=f"{provenance.name}.safetensors",
        sha256=hashlib.sha256(data).hexdigest(),
        dtype=dtype,
        package_version=version("smoothing-proxy"),
    )
    path = folder / f"{provenance.name}.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _replace(folder / card.weights, data)
        _replace(path, (card.model_dump_json(indent=2) + "\n").encode())
    except OSError as error:
        raise DenoiserError(f"{folder}: cannot write the denoiser {provenance.name!r}: {error}") from error
    return path


def load(path: Path) -> tuple[DenoiserCard, nn.Module]:
    """The card and its network: float32, on the CPU, in eval mode, without gradients.

    path: of the card (.json), or of the weights (.safetensors) with the card of the same name beside them.
    Raises WeightsMismatchError when the file's sha256, tensors or dtype are not the card's; DenoiserError when a
    file is missing or unreadable, is a pickle, or holds NaN or infinity, and for a card with invalid fields.
    """
    _refuse_pickle(path, b"")
    card_path = path.with_suffix(".json") if path.suffix == ".safetensors" else path
    card = read_card(card_path)
    weights = card_path.with_name(card.weights)
    tensors = _read(weights, card)
    return card, _assemble(card, tensors, source=str(weights))


def stored(state_dict: Mapping[str, Tensor], dtype: Literal["float16", "float32"]) -> dict[str, Tensor]:
    """The tensors as a file holds them: on the CPU, the floating-point ones rounded to `dtype`."""
    return {key: _stored(tensor, getattr(torch, dtype)) for key, tensor in state_dict.items()}


def _stored(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    plain = tensor.detach().cpu().contiguous().clone()
    return plain.to(dtype) if plain.is_floating_point() else plain


def _read(path: Path, card: DenoiserCard) -> dict[str, Tensor]:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise DenoiserError(f"{path}: no such weights file; the card of {card.name!r} names it") from None
    except OSError as error:
        raise DenoiserError(f"{path}: {error}") from error
    _refuse_pickle(path, data)
    digest = hashlib.sha256(data).hexdigest()
    if digest != card.sha256:
        raise WeightsMismatchError(f"{path}: sha256 is {digest}, the card of {card.name!r} says {card.sha256}")
    try:
        tensors: dict[str, Tensor] = safetensors.torch.load(data)
    except safetensors.SafetensorError as error:
        raise DenoiserError(f"{path}: not a safetensors file: {error}") from error
    _check_dtype(path, card, tensors)
    return tensors


def _check_dtype(path: Path, card: DenoiserCard, tensors: Mapping[str, Tensor]) -> None:
    expected = getattr(torch, card.dtype)
    for key, tensor in tensors.items():
        if tensor.is_floating_point() and tensor.dtype != expected:
            raise WeightsMismatchError(f"{path}: {key} is {tensor.dtype}, the card says {card.dtype}")


def _assemble(provenance: Provenance, tensors: Mapping[str, Tensor], *, source: str) -> nn.Module:
    """The architecture with these tensors. It is built without storage, so that no random weights are made."""
    with torch.device("meta"):
        module = build(provenance.architecture, provenance.options)
    faults = _faults(module.state_dict(), tensors)
    if faults:
        shown = "; ".join(faults[:5]) + (f"; and {len(faults) - 5} more" if len(faults) > 5 else "")
        raise WeightsMismatchError(f"{source}: not a {provenance.architecture} {provenance.options}: {shown}")
    bad = [key for key, tensor in tensors.items() if not bool(torch.isfinite(tensor).all())]
    if bad:
        raise DenoiserError(f"{source}: {bad[0]} holds NaN or infinity, or overflows its dtype")
    full = {key: t.float() if t.is_floating_point() else t for key, t in tensors.items()}
    module.load_state_dict(full, assign=True)
    return module.eval().requires_grad_(requires_grad=False)


def _faults(expected: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[str]:
    missing = [f"{key} is missing" for key in expected if key not in given]
    extra = [f"{key} is unknown" for key in given if key not in expected]
    shapes = [
        f"{key} is {list(given[key].shape)}, expected {list(tensor.shape)}"
        for key, tensor in expected.items()
        if key in given and given[key].shape != tensor.shape
    ]
    return missing + extra + shapes


def _refuse_pickle(path: Path, data: bytes) -> None:
    """By suffix, or by first bytes: a zip (torch.save), or pickle's PROTO opcode and no safetensors header."""
    pickled = data[8:9] != b"{" and data.startswith(
        (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
    )
    if pickled or path.suffix.lower() in PICKLE_SUFFIXES:
        raise DenoiserError(
            f"{path}: pickled weights are refused, since loading them runs code; "
            "export them as safetensors with a card (smoothing_proxy.denoisers.weights.save)"
        )


def _replace(path: Path, data: bytes) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
