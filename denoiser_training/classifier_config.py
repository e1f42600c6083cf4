"""The training of a classifier by itself, as frozen settings."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pydantic import Field, JsonValue, NonNegativeInt, PositiveInt

from denoiser_training.config import ClassifierSettings, RuntimeSettings, Seed, SurrogateSettings
from denoiser_training.data_settings import DataSettings
from denoiser_training.overrides import load_settings
from smoothing_proxy.settings_file import Settings

__all__ = ["ClassifierConfig", "load_classifier_config"]


class ClassifierConfig(Settings):
    """One classifier. data: needs one sub-folder of pictures per class.

    network, options, start, input_px: as in SurrogateSettings, where `start` is called weights; a start with other
    classes gives all but its last layer. test: pictures of the same classes that are looked at when the weights
    are chosen, and before training where there is a start. training: steps, optimiser, copies. evaluate_every:
    steps between looks at the held-out pictures, which choose the weights that are kept. license: of the weights.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")
    seed: Seed = 0
    data: DataSettings
    test: DataSettings | None = None
    network: str = Field(min_length=1)
    options: dict[str, JsonValue] = Field(default_factory=dict)
    start: Path | None = None
    input_px: NonNegativeInt = 0
    training: ClassifierSettings
    evaluate_every: PositiveInt = 500
    license: str = "Apache-2.0"
    log_every: PositiveInt = 50
    runtime: RuntimeSettings = RuntimeSettings()

    def classifier(self) -> SurrogateSettings:
        """The same classifier as one of a denoiser's surrogates would say it."""
        return SurrogateSettings(
            name=self.name,
            network=self.network,
            options=self.options,
            weights=self.start,
            input_px=self.input_px,
            training=self.training,
        )


def load_classifier_config(path: Path, overrides: Iterable[str] = ()) -> ClassifierConfig:
    """The file's settings, with overrides as `overrides.load_settings` has them. Raises ConfigError as it does."""
    return load_settings(ClassifierConfig, path, overrides)
