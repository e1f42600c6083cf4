"""An evaluation as frozen settings: which pictures, denoisers and targets, and how they are certified."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, field_validator, model_validator

from denoiser_training.config import SurrogateSettings
from denoiser_training.data_settings import DataSettings
from denoiser_training.overrides import load_settings
from smoothing_proxy.images.noise import MAX_SIGMA
from smoothing_proxy.settings_file import Settings
from smoothing_proxy.stats.binomial import lower_bound

__all__ = ["CertifySettings", "EvaluationConfig", "PlaceSettings", "load_evaluation"]


class CertifySettings(Settings):
    """CERTIFY of Cohen et al. sigma: on the [0, 1] pixel scale. n0, n: draws of selection and estimation.

    batch: copies of one picture that are denoised and shown to the targets at a time; memory grows with it, and
    n0 + n is best a multiple of it, since the last batch is filled up.
    """

    sigma: float = Field(gt=0, le=MAX_SIGMA)
    n0: PositiveInt = 100
    n: PositiveInt = 10_000
    alpha: float = Field(default=0.001, ge=1e-100, lt=1)
    batch: PositiveInt = 100

    @model_validator(mode="after")
    def _can_certify(self) -> CertifySettings:
        if not lower_bound(self.n, self.n, self.alpha) > 0.5:
            raise ValueError(f"n = {self.n} draws can certify nothing at alpha = {self.alpha:g}; raise n")
        return self


class PlaceSettings(Settings):
    """Where it runs; may differ when an evaluation goes on. device: of the targets ("auto", "cpu", "cuda:1").

    A trained denoiser's own device is part of its spec: "natural,device=cpu". threads: 0 leaves torch's choice.
    """

    device: str = "auto"
    threads: NonNegativeInt = 0


class EvaluationConfig(Settings):
    """Every denoiser in front of every target.

    data: pictures, cut from the centre to crop_px; crops and flips of training are not used. part: "validation"
    takes the pictures that training with the same [data] holds out. pictures: at most so many, evenly spread over
    the sorted names; 0 takes all. denoisers: specs as smoothing_proxy.denoisers.registry.denoiser takes them.
    reference: what is correct: "label" is the picture's class folder, "clean" the target's own answer to the
    clean picture. radii: l2, [0, 1] pixel scale. confidence: of the binomial intervals. paper: whose published
    rows stand beside the measured ones.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")
    data: DataSettings
    part: Literal["all", "validation"] = "all"
    pictures: NonNegativeInt = 500
    denoisers: tuple[str, ...] = Field(min_length=1)
    targets: tuple[SurrogateSettings, ...] = Field(min_length=1)
    reference: Literal["label", "clean"] = "label"
    certify: CertifySettings
    radii: tuple[NonNegativeFloat, ...] = Field(default=(0.0, 0.1, 0.25, 0.5, 0.75, 1.0), min_length=1)
    confidence: float = Field(default=0.95, gt=0, lt=1)
    paper: Literal["cifar10"] | None = None
    runtime: PlaceSettings = PlaceSettings()

    @field_validator("data")
    @classmethod
    def _whole(cls, data: DataSettings) -> DataSettings:
        if data.limit:
            raise ValueError("limit is for training; set `pictures` at the top of the file instead")
        if data.crop_px < 7:
            raise ValueError(f"crop_px is {data.crop_px}; SSIM looks at windows of 7x7 pixels")
        return data

    @model_validator(mode="after")
    def _consistent(self) -> EvaluationConfig:
        twice = [
            name
            for name, count in Counter([*self.denoisers, *(target.name for target in self.targets)]).items()
            if count > 1
        ]
        if twice:
            raise ValueError(f"{twice[0]!r} stands twice among the denoisers and targets")
        for target in self.targets:
            if target.training is not None:
                raise ValueError(f"target {target.name!r}: targets are not trained here; give its weights")
        return self

    def question(self) -> dict[str, Any]:
        """What two evaluations must share for their rows to stand in one table, as JSON values."""
        return self.model_dump(mode="json", exclude={"name", "denoisers", "targets", "runtime", "paper"})


def load_evaluation(path: Path, overrides: Iterable[str] = ()) -> EvaluationConfig:
    """The file's settings, with overrides as `overrides.load_settings` has them. Raises ConfigError as it does."""
    return load_settings(EvaluationConfig, path, overrides)
