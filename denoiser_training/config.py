"""A training run as frozen settings: the TOML file, with `a.b=value` overrides by dotted name."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

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

from denoiser_training.overrides import load_settings
from smoothing_proxy.settings_file import Settings

__all__ = [
    "ClassifierSettings",
    "Config",
    "DataSettings",
    "DenoiserSettings",
    "EvaluateSettings",
    "ExportSettings",
    "NoiseSettings",
    "ObjectiveSettings",
    "OptimiserSettings",
    "PhaseSettings",
    "RuntimeSettings",
    "SurrogateSettings",
    "differences",
    "load_config",
]


class DataSettings(Settings):
    """Which pictures, and how they are cut.

    source: "digits", a folder, or a .zip of one. license: what it allows, for the card.
    working_size: "original", "shorter=256", ...: as at certification (smoothing_proxy.images.geometry).
    crop_px: side of the square that a step sees. pad_px: pixels mirrored around a picture before it is cropped.
    flip: mirror half of the crops.
    test_every: each k-th name in sorted order, from the first, is kept out of the run altogether, for a test
    afterwards; 0 keeps none out. validation_every: each k-th of the others is held out to choose the weights by.
    limit: at most so many of the others, evenly spread; 0 takes all.
    """

    source: str = Field(min_length=1)
    license: str = Field(min_length=1)
    working_size: str = "original"
    crop_px: PositiveInt
    pad_px: NonNegativeInt = 0
    flip: bool = True
    test_every: NonNegativeInt = 0
    validation_every: int = Field(default=10, ge=2)
    limit: NonNegativeInt = 0

    @field_validator("test_every")
    @classmethod
    def _leaves_some(cls, every: int) -> int:
        if every == 1:
            raise ValueError("1 keeps every picture for the test; expected 0 for none, or 2 or more")
        return every


class DenoiserSettings(Settings):
    """A network by name (smoothing_proxy.denoisers.architectures) and its keyword arguments.

    start: a denoiser card whose weights training starts from; None starts at random.
    """

    architecture: str = "unet"
    options: dict[str, JsonValue] = Field(default_factory=dict)
    start: Path | None = None


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


class ClassifierSettings(Settings):
    """How a surrogate is trained on the training split; `steps` of `batch` pictures without noise."""

    steps: PositiveInt
    optimiser: OptimiserSettings = OptimiserSettings()


class SurrogateSettings(Settings):
    """A classifier that may be differentiated.

    network: "cifar-resnet", "mobilenet-v1", "small-cnn", "mlp", "torchvision:NAME" or "module:factory".
    weights: safetensors for a network of ours, a state dict's for torchvision (None takes its own default).
    input_px: side that crops are resized to; 0 takes them as they come. training: train it first, on this data.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")
    network: str = Field(min_length=1)
    weights: Path | None = None
    input_px: NonNegativeInt = 0
    training: ClassifierSettings | None = None


class ObjectiveSettings(Settings):
    """Weights of a sum of objectives (objectives.py); 0 leaves one out."""

    mse: NonNegativeFloat = 0.0
    charbonnier: NonNegativeFloat = 0.0
    stab: NonNegativeFloat = 0.0
    soft_stab: NonNegativeFloat = 0.0
    clf: NonNegativeFloat = 0.0

    @model_validator(mode="after")
    def _something(self) -> ObjectiveSettings:
        if not self.weights():
            raise ValueError("every objective has weight 0; expected one above 0")
        return self

    def weights(self) -> dict[str, float]:
        """Name to weight, only those above 0."""
        return {name: weight for name, weight in self.model_dump().items() if weight > 0}

    @property
    def needs_surrogates(self) -> bool:
        """Whether one of them looks through a classifier."""
        return bool(self.weights().keys() & {"stab", "soft_stab", "clf"})


class PhaseSettings(Settings):
    """A stretch of steps with one objective. What is None is taken from [optimiser] or [data]."""

    steps: PositiveInt
    objective: ObjectiveSettings
    lr: PositiveFloat | None = None
    batch: PositiveInt | None = None
    crop_px: PositiveInt | None = None


class EvaluateSettings(Settings):
    """What is measured on the validation pictures, and which weights are kept.

    every: steps between evaluations. pictures: at most so many, evenly spread, cut from the centre to crop_px
    (None: as in [data]). copies: noisy copies of each. sigmas: the noise levels.
    best: "accuracy" of the classifiers on denoised pictures, or "psnr"; the mean over `sigmas` is compared.
    classifiers: those that judge; none takes the surrogates.
    """

    every: PositiveInt = 1000
    pictures: PositiveInt = 200
    copies: PositiveInt = 1
    batch: PositiveInt = 100
    crop_px: PositiveInt | None = None
    sigmas: tuple[PositiveFloat, ...] = Field(default=(0.25,), min_length=1)
    best: Literal["accuracy", "psnr"] = "psnr"
    classifiers: tuple[SurrogateSettings, ...] = ()


class ExportSettings(Settings):
    """What the card says that training cannot know. dtype: of the stored weights."""

    license: str = "Apache-2.0"
    min_side_px: PositiveInt = 1
    dtype: Literal["float16", "float32"] = "float32"


class RuntimeSettings(Settings):
    """Where and how loudly; may differ when a run is resumed. threads: 0 leaves torch's choice.

    compile: the network with torch.compile, which costs a minute and pays in long runs.
    tensorboard: write its event files beside the CSV files; needs the extra "training".
    """

    device: str = "auto"
    threads: NonNegativeInt = 0
    checkpoint_every: PositiveInt = 500
    samples_every: NonNegativeInt = 2000
    compile: bool = False
    tensorboard: bool = False


class Config(Settings):
    """One training run. surrogates_per_step: 1 takes them in turn, 0 takes all in every step."""

    name: str = Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")
    seed: NonNegativeInt = 0
    data: DataSettings
    denoiser: DenoiserSettings = DenoiserSettings()
    noise: NoiseSettings
    optimiser: OptimiserSettings = OptimiserSettings()
    phases: tuple[PhaseSettings, ...] = Field(min_length=1)
    surrogates: tuple[SurrogateSettings, ...] = ()
    surrogates_per_step: NonNegativeInt = 1
    evaluate: EvaluateSettings = EvaluateSettings()
    export: ExportSettings = ExportSettings()
    log_every: PositiveInt = 50
    runtime: RuntimeSettings = RuntimeSettings()

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        if any(phase.objective.needs_surrogates for phase in self.phases) and not self.surrogates:
            raise ValueError("a phase has stab, soft_stab or clf, which need [[surrogates]]; there are none")
        if self.evaluate.best == "accuracy" and not (self.evaluate.classifiers or self.surrogates):
            raise ValueError('evaluate.best = "accuracy" needs [[evaluate.classifiers]] or [[surrogates]]')
        names = [entry.name for entry in (*self.surrogates, *self.evaluate.classifiers)]
        if len(set(names)) < len(names):
            raise ValueError(f"two classifiers have the same name: {', '.join(sorted(names))}")
        return self


def load_config(path: Path, overrides: Iterable[str] = ()) -> Config:
    """The file's settings, with overrides as `overrides.load_settings` has them. Raises ConfigError as it does."""
    return load_settings(Config, path, overrides)


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Dotted keys whose values differ between two dumped configs, [runtime] aside."""
    before, after = _flat("", old), _flat("", new)
    keys = sorted(before.keys() | after.keys())
    return [k for k in keys if not k.startswith("runtime.") and before.get(k) != after.get(k)]


def _flat(prefix: str, value: Any) -> dict[str, str]:
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else None
    if items is None:
        return {prefix: json.dumps(value)}
    return {
        key: leaf for name, inner in items for key, leaf in _flat(f"{prefix}.{name}".strip("."), inner).items()
    }
