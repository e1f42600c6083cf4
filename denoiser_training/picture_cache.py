"""Decoded pictures kept on disk between runs: reading a picture costs a millisecond, finding it decoded nothing.

One safetensors file for each source and each choice from it, read memory-mapped, replaced as a whole. Its name
says which pictures it holds: where they come from, the sizes and times (or the store's own marks) of their files,
the working size and the selection. What has changed since has another name, and takes the old file's place; a file
that is damaged is made again. All of them may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import zlib
from collections.abc import Mapping
from importlib.metadata import version
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from denoiser_training.data_settings import DataSettings
from denoiser_training.files import replacing
from denoiser_training.pictures import Pictures
from denoiser_training.sources import Source, source_name
from smoothing_proxy.errors import ConfigError

__all__ = ["cache_file", "cache_folder", "read_cache", "write_cache"]

FORMAT = 1


def cache_folder(environment: Mapping[str, str], platform: str = sys.platform) -> Path | None:
    """Where the user keeps what can be made again; None where the environment names no home."""
    home = environment.get("HOME") or environment.get("USERPROFILE")
    base = environment.get("XDG_CACHE_HOME") or (environment.get("LOCALAPPDATA") if platform == "win32" else None)
    if base is None and home is not None:
        base = str(Path(home) / ("Library/Caches" if platform == "darwin" else ".cache"))
    return None if base is None else Path(base) / "smoothing-proxy" / "training"


def cache_file(data: DataSettings, source: Source, environment: Mapping[str, str]) -> Path | None:
    """The file for these pictures; None where none are kept, or a change of the source could not be told.

    Raises ConfigError when the source is not there.
    """
    folder = cache_folder(environment) if data.cache is None else Path(data.cache) if data.cache else None
    identity = source.identity() if folder is not None else None
    if folder is None or identity is None:
        return None
    choice = [*_place(data), data.working_size, data.test_every, data.limit]
    makers = [FORMAT, version("smoothing-proxy"), version("pillow")]
    stem = re.sub(r"[^A-Za-z0-9]+", "-", source_name(data.source)).strip("-")[:40]
    return folder / f"{stem}-{_digest(choice)}-{_digest([identity, makers])}.safetensors"


def _place(data: DataSettings) -> list[Any]:
    """What stays the same while the pictures there change."""
    if "://" in data.source:
        return [data.source.partition("?")[0]]
    if data.source.startswith("torchvision:"):
        return [data.source, str(data.root and data.root.resolve()), data.split, data.options]
    return [str(Path(data.source).resolve())]


def read_cache(path: Path) -> Pictures | None:
    """The pictures in the file, memory-mapped; None where there is none, or a damaged one."""
    import safetensors.torch

    try:
        tensors = safetensors.torch.load_file(path)
        packed, shapes = tensors["pixels"], tensors["shapes"]
        facts = json.loads(bytes(tensors["facts"].numpy()))
        if zlib.crc32(packed.numpy().data) != facts["crc32"]:
            return None
        sizes = [3 * height * width for height, width in shapes.tolist()]
        parts = torch.split(packed, sizes)
        return Pictures(
            names=tuple(facts["names"]),
            pixels=tuple(part.view(3, *size) for part, size in zip(parts, shapes.tolist(), strict=True)),
            labels=tensors.get("labels"),
            classes=tuple(facts["classes"]),
        )
    except (OSError, safetensors.SafetensorError, KeyError, ValueError, RuntimeError):
        return None


def write_cache(path: Path, pictures: Pictures, *, required: bool) -> None:
    """Keep them. required: raises ConfigError when the folder cannot be written; else nothing is kept then."""
    try:
        _write(path, pictures)
        for old in path.parent.glob(f"{path.stem.rpartition('-')[0]}-*.safetensors"):
            if old != path:
                old.unlink(missing_ok=True)
    except OSError as error:
        if required:
            raise ConfigError(f"data.cache {path.parent}: cannot be written: {error.strerror}") from error


def _write(path: Path, pictures: Pictures) -> None:
    """The format of safetensors written picture by picture, since a packed copy would need the memory twice."""
    crc32 = 0
    for picture in pictures.pixels:
        crc32 = zlib.crc32(picture.contiguous().numpy().data, crc32)
    facts = {"names": pictures.names, "classes": pictures.classes, "crc32": crc32}
    small = {
        "facts": torch.frombuffer(bytearray(json.dumps(facts).encode()), dtype=torch.uint8),
        "shapes": torch.tensor([picture.shape[1:] for picture in pictures.pixels]),
        **({} if pictures.labels is None else {"labels": pictures.labels}),
    }
    header = _header(small, sum(picture.numel() for picture in pictures.pixels))
    with replacing(path) as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for tensor in (*(small[name] for name in sorted(small, key=_order)), *pictures.pixels):
            file.write(tensor.contiguous().numpy().data)


def _order(name: str) -> bool:
    """The int64 tensors first, so that they are aligned."""
    return name == "facts"


def _header(small: Mapping[str, Tensor], pixel_bytes: int) -> bytes:
    names = sorted(small, key=_order)
    ends = list(accumulate((small[name].nbytes for name in names), initial=0))
    entries: dict[str, Any] = {
        name: {
            "dtype": "U8" if name == "facts" else "I64",
            "shape": list(small[name].shape),
            "data_offsets": [begin, end],
        }
        for name, begin, end in zip(names, ends, ends[1:], strict=False)
    }
    pixels = {"dtype": "U8", "shape": [pixel_bytes], "data_offsets": [ends[-1], ends[-1] + pixel_bytes]}
    text = json.dumps({**entries, "pixels": pixels}).encode()
    return text + b" " * (-len(text) % 8)


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]
