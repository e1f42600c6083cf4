"""The machine that trains or evaluates: which device, and what to call it in a card."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch

from smoothing_proxy.errors import ConfigError

__all__ = ["all_hardware", "device_named", "hardware"]


def device_named(name: str) -> torch.device:
    """As torch writes it; "auto" takes a GPU where there is one. Raises ConfigError when it is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.zeros(1, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"runtime.device {name!r}: {str(error).splitlines()[0]}") from error


def hardware(device: torch.device) -> str:
    """What figures were measured on."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{threads} CPU thread{'s' if threads > 1 else ''}, {_processor()}"


def all_hardware(machines: Sequence[str]) -> str:
    """What several processes ran on together, by what each of them says."""
    counts = Counter(machines)
    return "; ".join(f"{n} processes, each on {name}" if n > 1 else name for name, n in counts.items())


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
