"""A training run as frozen settings: the TOML file, with `a.b=value` overrides by dotted name."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

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

from denoiser_training.data_settings import DataSettings
from denoiser_training.overrides import load_settings
from smoothing_proxy.settings_file import Settings

__all__ = [
    "ClassifierSettings",
    "Config",
    "CopySettings",
    "DenoiserSettings",
    "EvaluateSettings",
    "ExportSettings",
    "NoiseSettings",
    "ObjectiveSettings",
    "OptimiserSettings",
    "PhaseSettings",
    "RuntimeSettings",
    "SurrogateSettings",
    "load_config",
]


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


class ObjectiveSettings(Settings):
    """Weights of a sum of objectives (objectives.py); 0 leaves one out."""

    mse: NonNegativeFloat = 0.0
    charbonnier: NonNegativeFloat = 0.0
    stab: NonNegativeFloat = 0.0
    soft_stab: NonNegativeFloat = 0.0
    clf: NonNegativeFloat = 0.0
    consistency: NonNegativeFloat = 0.0
    entropy: NonNegativeFloat = 0.0

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
        return bool(self.weights().keys() - {"mse", "charbonnier"})

    @property
    def needs_copies(self) -> bool:
        """Whether one of them compares noisy copies of one picture."""
        return bool(self.weights().keys() & {"consistency", "entropy"})


class PhaseSettings(Settings):
    """A stretch of steps with one objective. What is None is taken from [optimiser] or [data].

    lr_steps: length of the learning rate's cosine, at least `steps`, which is the default; a longer one leaves the
    phase with a rate above zero, for another phase to follow. copies: noisy copies of each picture in a step, at
    one level; the step's batch counts them all.
    """

    steps: PositiveInt
    lr_steps: PositiveInt | None = None
    objective: ObjectiveSettings
    lr: PositiveFloat | None = None
    batch: PositiveInt | None = None
    crop_px: PositiveInt | None = None
    copies: PositiveInt = 1

    @model_validator(mode="after")
    def _copies_where_needed(self) -> PhaseSettings:
        if self.objective.needs_copies and self.copies == 1:
            raise ValueError("consistency and entropy compare noisy copies of a picture: set copies = 2 or more")
        return self

    @model_validator(mode="after")
    def _cosine_covers_the_steps(self) -> PhaseSettings:
        if self.lr_steps is not None and self.lr_steps < self.steps:
            raise ValueError(
                f"lr_steps = {self.lr_steps}: at least the phase's steps = {self.steps}, or leave it out"
            )
        return self


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
            raise ValueError("a phase's objective looks through [[surrogates]]; there are none")
        for phase in self.phases:
            batch = phase.batch or self.optimiser.batch
            if batch % phase.copies:
                raise ValueError(f"a phase's batch of {batch} is not a multiple of its copies = {phase.copies}")
        if self.evaluate.best == "accuracy" and not (self.evaluate.classifiers or self.surrogates):
            raise ValueError('evaluate.best = "accuracy" needs [[evaluate.classifiers]] or [[surrogates]]')
        names = [entry.name for entry in (*self.surrogates, *self.evaluate.classifiers)]
        if len(set(names)) < len(names):
            raise ValueError(f"two classifiers have the same name: {', '.join(sorted(names))}")
        return self


def load_config(path: Path, overrides: Iterable[str] = ()) -> Config:
    """The file's settings, with overrides as `overrides.load_settings` has them. Raises ConfigError as it does."""
    return load_settings(Config, path, overrides)
