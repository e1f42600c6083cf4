"""Where the decoded pictures of a run stay: on the device, from where crops cost nothing, as far as they fit."""

from __future__ import annotations

import torch

from denoiser_training.pictures import Pictures

__all__ = ["free_bytes", "placed"]

SHARE = 0.5
"""Of the device's free memory; the rest is for the network, its gradients and the surrogates."""


def placed(pictures: Pictures, device: torch.device, room: float | None = None) -> Pictures:
    """On `device` where they take at most SHARE of its free bytes (room; None asks the device), else as they are.

    Then each step sends its crops there. What a step sees is the same.
    """
    free = free_bytes(device) if room is None else room
    return pictures.to(device) if pictures.nbytes <= SHARE * free else pictures


def free_bytes(device: torch.device) -> float:
    """What a device can still hold; infinite where the pictures are in its memory already, the machine's."""
    return float(torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else float("inf")
