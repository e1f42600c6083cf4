"""The denoiser card: the provenance of weights, as JSON beside them. Loads no torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, Field, JsonValue, model_validator

from smoothing_proxy.errors import ConfigError, DenoiserError
from smoothing_proxy.settings_file import Settings, parse_settings

__all__ = ["PICKLE_SUFFIXES", "DenoiserCard", "Provenance", "read_card"]

PICKLE_SUFFIXES = (".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".bin")
"""Files that load by running code: never read here."""

FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.+-]*$")]
Sigma = Annotated[float, Field(gt=0, le=10, allow_inf_nan=False)]


class Provenance(Settings):
    """What whoever trained the weights knows about them.

    name: of the denoiser and of its files. architecture, options: as architectures.build takes them.
    sigma_min, sigma_max: the noise levels that it was trained for, on the [0, 1] pixel scale, ends included.
    min_side_px: pictures with a shorter side are refused.
    training_data, training_data_license: which pictures, and what their license allows.
    schedule: objectives and steps, in order, as text. surrogates: the classifiers it was trained through.
    figures: what was measured, each with how, e.g. {"psnr_db": 24.3, "on": "500 held-out pictures, sigma .25"}.
    hardware, steps, seconds: what training took, and the step that the weights are of. kept: what chose that step;
    "" on cards from before it was written down. created: date and time with a zone. license: of the weights.
    """

    name: FileName
    architecture: str
    options: dict[str, JsonValue] = Field(default_factory=dict)
    sigma_min: Sigma
    sigma_max: Sigma
    min_side_px: int = Field(default=1, ge=1)
    training_data: str = Field(min_length=1)
    training_data_license: str = Field(min_length=1)
    schedule: str = Field(min_length=1)
    surrogates: tuple[str, ...] = ()
    figures: dict[str, JsonValue] = Field(default_factory=dict)
    hardware: str
    steps: int = Field(ge=0)
    kept: str = ""
    seconds: float = Field(ge=0, allow_inf_nan=False)
    created: AwareDatetime
    license: str = Field(min_length=1)

    @model_validator(mode="after")
    def _ordered(self) -> Provenance:
        if self.sigma_min > self.sigma_max:
            raise ValueError(f"sigma_min {self.sigma_min} is above sigma_max {self.sigma_max}")
        return self


class DenoiserCard(Provenance):
    """Provenance, and which file it speaks of.

    format: of the card. weights: a file name in the card's own folder. sha256: of that file, hexadecimal.
    dtype: of the stored floating-point tensors. package_version: of smoothing-proxy when they were saved.
    """

    format: Literal[1] = 1
    weights: FileName
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    dtype: Literal["float16", "float32"]
    package_version: str


def read_card(path: Path) -> DenoiserCard:
    """The card at `path`. Raises DenoiserError when it is missing, no JSON, or a field is not as described."""
    try:
        fields: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DenoiserError(f"{path}: no such denoiser card") from None
    except (OSError, ValueError) as error:
        raise DenoiserError(f"{path}: not a denoiser card: {error}") from error
    if not isinstance(fields, dict):
        raise DenoiserError(f"{path}: not a denoiser card: expected a JSON object")
    try:
        return parse_settings(DenoiserCard, fields, source=str(path))
    except ConfigError as error:
        raise DenoiserError(str(error)) from None
