"""Boundaries, computed once: kept in memory, and in the user's cache folder for the next process.

A file from the cache is believed only after its error has been computed again; a proof must not rest on a file
that anybody may have changed.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

import numpy as np

from smoothing_proxy.stats.sequential import CALIBRATED_UP_TO, Boundary, boundary, error_of, giving_up

__all__ = ["cache_folder", "cached_boundary"]

FORMAT = 1
"""Raised whenever boundaries are computed in another way."""


def cache_folder(environment: Mapping[str, str]) -> Path:
    """Where boundaries are kept: below XDG_CACHE_HOME, or ~/.cache."""
    base = environment.get("XDG_CACHE_HOME") or Path(environment.get("HOME", tempfile.gettempdir())) / ".cache"
    return Path(base) / "smoothing-proxy" / "boundaries"


@lru_cache(maxsize=64)
def cached_boundary(p0: float, alpha: float, n_max: int) -> Boundary:
    """sequential.boundary, from the cache where it is there and right. A cache that cannot be used is no error."""
    if n_max > CALIBRATED_UP_TO:
        return boundary(p0, alpha, n_max)
    key = hashlib.sha256(f"{FORMAT} {p0!r} {alpha!r} {n_max}".encode()).hexdigest()[:32]
    path = cache_folder(os.environ) / f"{key}.npy"
    kept = _kept(path, p0, alpha, n_max)
    if kept is None:
        kept = boundary(p0, alpha, n_max)
        _keep(path, kept)
    return kept


def _kept(path: Path, p0: float, alpha: float, n_max: int) -> Boundary | None:
    try:
        up = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    if up.shape != (n_max + 1,) or up.dtype != np.int64 or up.min() < 0:
        return None
    error = error_of(up, p0)
    return Boundary(p0, alpha, n_max, up, giving_up(up), error) if error <= alpha else None


def _keep(path: Path, made: Boundary) -> None:
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}.part")
        with part.open("wb") as stream:
            np.save(stream, made.up, allow_pickle=False)
        part.replace(path)
