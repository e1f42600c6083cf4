"""The one error of training itself. Bad input is a ConfigError or ImageError before the first step."""

from __future__ import annotations

from smoothing_proxy.errors import SmoothingProxyError

__all__ = ["TrainingError"]


class TrainingError(SmoothingProxyError):
    """Training cannot go on: a loss that is not finite, or no memory. The last good checkpoint is kept."""
