"""One step of gradient descent: precision, compilation, and the gradients of the other processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from denoiser_training.config import OptimiserSettings
from denoiser_training.team import Team

__all__ = ["Descent"]

LOW_PRECISION = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Descent:
    """AdamW on `network`, whose own state dict never shows how it is called.

    In fp16 the loss is multiplied by a scale, since small gradients would round to 0; a step whose gradients
    overflow is left out and the scale halved (Micikevicius et al., "Mixed Precision Training", arXiv 1710.03740).
    """

    def __init__(self, network: nn.Module, settings: OptimiserSettings, team: Team, *, compiled: bool) -> None:
        self.network, self.settings = network, settings
        self.device = next(network.parameters()).device
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=settings.precision == "fp16")
        shared = team.shared(network)
        self.model: Callable[..., Any] = torch.compile(shared) if compiled else shared
        self.optimiser = self._new_optimiser()

    def begin(self) -> None:
        """A new phase: the optimiser forgets."""
        self.optimiser = self._new_optimiser()

    def step(self, losses: Callable[[Callable[..., Any]], dict[str, Tensor]], lr: float) -> dict[str, Tensor]:
        """Make losses(model)["loss"] smaller; returns them all and "gradient", the norm before clipping."""
        for group in self.optimiser.param_groups:
            group["lr"] = lr
        self.network.train()
        dtype = LOW_PRECISION.get(self.settings.precision)
        with torch.autocast(self.device.type, dtype, enabled=dtype is not None):
            parts = losses(self.model)
        self.optimiser.zero_grad(set_to_none=True)
        self.scaler.scale(parts["loss"]).backward()  # type: ignore[no-untyped-call]
        self.scaler.unscale_(self.optimiser)
        limit = self.settings.clip_norm or float("inf")
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), limit)
        overflow_is_fine = self.scaler.get_scale() > 1
        self.scaler.step(self.optimiser)
        self.scaler.update()
        return {**parts, "gradient": torch.nan_to_num(norm, 0.0, 0.0) if overflow_is_fine else norm}

    def state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Of the optimiser and of the scale."""
        return self.optimiser.state_dict(), self.scaler.state_dict()

    def restore(self, optimiser: Mapping[str, Any], scaler: Mapping[str, Any]) -> None:
        """Go on from `state`."""
        self.optimiser.load_state_dict(dict(optimiser))
        if scaler:
            self.scaler.load_state_dict(dict(scaler))

    def _new_optimiser(self) -> torch.optim.Optimizer:
        settings = self.settings
        return torch.optim.AdamW(
            self.network.parameters(), betas=settings.betas, weight_decay=settings.weight_decay
        )
