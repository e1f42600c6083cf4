"""How a classifier is named and trained, as frozen settings; noise and optimiser are the denoiser's too."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    Field,
    JsonValue,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from smoothing_proxy.settings_file import Settings

__all__ = [
    "ClassifierSettings",
    "CopySettings",
    "NoiseSettings",
    "OptimiserSettings",
    "Seed",
    "SurrogateSettings",
]

Seed = Annotated[int, Field(ge=0, lt=2**63)]
"""What numpy's and torch's random streams both take."""


class NoiseSettings(Settings):
    """The noise levels: sigma is drawn from sigma_min..sigma_max for each picture, on the [0, 1] scale.

    spread: "even" draws sigma evenly, "log" its logarithm, so that each doubling gets as many pictures.
    """

    sigma_min: float = Field(gt=0, le=10)
    sigma_max: float = Field(gt=0, le=10)
    spread: Literal["even", "log"] = "even"

    @model_validator(mode="after")
    def _ordered(self) -> NoiseSettings:
        if self.sigma_min > self.sigma_max:
            raise ValueError(f"the range is empty: sigma_min {self.sigma_min} is above sigma_max {self.sigma_max}")
        return self


class OptimiserSettings(Settings):
    """AdamW, a linear warm-up and a cosine to zero in each phase.

    ema: decay per step of the averaged weights that are kept; 0 keeps the raw ones. clip_norm: the largest
    gradient norm, 0 for any. precision: of the forward pass; with "fp16" the loss is scaled so that small
    gradients survive. batch: pictures per step, of all processes together.
    """

    lr: PositiveFloat = 1e-3
    batch: PositiveInt = 32
    weight_decay: NonNegativeFloat = 0.0
    betas: tuple[float, float] = (0.9, 0.99)
    warm_up_steps: NonNegativeInt = 200
    clip_norm: NonNegativeFloat = 1.0
    ema: float = Field(default=0.0, ge=0, lt=1)
    precision: Literal["fp32", "bf16", "fp16"] = "bf16"
    channels_last: bool = True


class CopySettings(Settings):
    """A kind of transformed copy that a classifier is trained on beside the pictures themselves.

    share: of each step's pictures, on average, that are shown so. noise: Gaussian noise that is added first, at
    one level per step (Cohen, Rosenfeld, Kolter 2019). denoisers: specs as smoothing_proxy.denoisers.registry
    takes them ("wavelet:haar", a card's path), applied in turn; they are told the noise's level, without noise
    `told_sigma`. A copy is clipped and rounded to bytes, as everything is that a classifier gets to see.
    """

    share: float = Field(gt=0, le=1)
    noise: NoiseSettings | None = None
    denoisers: tuple[str, ...] = ()
    told_sigma: float = Field(default=0.1, gt=0, le=10)

    @model_validator(mode="after")
    def _changes_something(self) -> CopySettings:
        if self.noise is None and not self.denoisers:
            raise ValueError("neither noise nor denoisers: the copy would be the picture itself")
        return self


class ClassifierSettings(Settings):
    """How a classifier is trained on the training split: `steps` of `batch` pictures with cross entropy.

    label_smoothing: share of the target that all classes divide evenly (Szegedy et al. 2016, section 7).
    copies: transformed pictures among those of a step; what their shares leave are the pictures themselves.
    """

    steps: PositiveInt
    optimiser: OptimiserSettings = OptimiserSettings()
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    copies: tuple[CopySettings, ...] = ()

    @field_validator("copies")
    @classmethod
    def _shares_fit(cls, copies: tuple[CopySettings, ...]) -> tuple[CopySettings, ...]:
        if sum(copy.share for copy in copies) > 1 + 1e-9:
            raise ValueError(f"their shares sum to {sum(copy.share for copy in copies):g}, above 1")
        return copies


class SurrogateSettings(Settings):
    """A classifier that may be differentiated.

    network: "cifar-resnet", "cifar-resnet18", "mobilenet-v1", "small-cnn", "mlp", "torchvision:NAME",
    "module:factory", or "card" for one that `python -m denoiser_training classifier` trained.
    weights: safetensors for a network of ours, a state dict's for torchvision (None takes its own default), the
    card of a "card". input_px: side that crops are resized to; 0 takes them as they come, or as the card says.
    training: train it first, on this data; where there are weights, from these on.
    options: of a network of ours with random weights (networks.fresh).
    """

    name: str = Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")
    network: str = Field(min_length=1)
    weights: Path | None = None
    input_px: NonNegativeInt = 0
    training: ClassifierSettings | None = None
    options: dict[str, JsonValue] = Field(default_factory=dict)
