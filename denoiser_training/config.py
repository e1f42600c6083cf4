"""A training run as frozen settings: the TOML file, with `a.b=value` overrides by dotted name."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal, TypeAlias

from pydantic import (
    Field,
    JsonValue,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from denoiser_training.classifier_settings import (
    ClassifierSettings,
    CopySettings,
    NoiseSettings,
    OptimiserSettings,
    Seed,
    SurrogateSettings,
)
from denoiser_training.data_settings import DataSettings
from denoiser_training.overrides import load_settings
from smoothing_proxy.settings_file import Settings

__all__ = [
    "Best",
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
    "Seed",
    "SurrogateSettings",
    "load_config",
]


Best: TypeAlias = Literal["accuracy", "psnr"]
"""What decides which weights are kept."""

SSIM_WINDOW_PX = 7


class DenoiserSettings(Settings):
    """A network by name (smoothing_proxy.denoisers.architectures) and its keyword arguments.

    start: a denoiser card whose weights training starts from; None starts at random.
    """

    architecture: str = "unet"
    options: dict[str, JsonValue] = Field(default_factory=dict)
    start: Path | None = None


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
    best: "accuracy" of the classifiers on denoised pictures, or "psnr"; the mean over `sigmas` is compared, of
    equals the last is kept. Left out, it is accuracy where a phase looks through classifiers, since such a phase
    gives up PSNR for it, else PSNR.
    classifiers: those that judge; none takes the surrogates.
    """

    every: PositiveInt = 1000
    pictures: PositiveInt = 200
    copies: PositiveInt = 1
    batch: PositiveInt = 100
    crop_px: PositiveInt | None = None
    sigmas: tuple[PositiveFloat, ...] = Field(default=(0.25,), min_length=1)
    best: Best | None = None
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
    seed: Seed = 0
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
        if self.best == "accuracy" and not (self.evaluate.classifiers or self.surrogates):
            raise ValueError('evaluate.best = "accuracy" needs [[evaluate.classifiers]] or [[surrogates]]')
        names = [entry.name for entry in (*self.surrogates, *self.evaluate.classifiers)]
        if len(set(names)) < len(names):
            raise ValueError(f"two classifiers have the same name: {', '.join(sorted(names))}")
        if (judged_px := self.evaluate.crop_px or self.data.crop_px) < SSIM_WINDOW_PX:
            raise ValueError(
                f"evaluate.crop_px (or data.crop_px) is {judged_px}; SSIM looks at windows of 7x7 pixels"
            )
        return self

    @property
    def best(self) -> Best:
        """What decides which weights are kept, where [evaluate] leaves it out too."""
        looks = any(phase.objective.needs_surrogates for phase in self.phases)
        return self.evaluate.best or ("accuracy" if looks else "psnr")

    def completed(self) -> Config:
        """The same with nothing left to be concluded, as a run writes it down."""
        return self.model_copy(update={"evaluate": self.evaluate.model_copy(update={"best": self.best})})


def load_config(path: Path, overrides: Iterable[str] = ()) -> Config:
    """The file's settings, with overrides as `overrides.load_settings` has them. Raises ConfigError as it does."""
    return load_settings(Config, path, overrides)
