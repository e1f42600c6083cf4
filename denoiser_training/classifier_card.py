"""The card of a classifier: where its weights come from and what they were measured to be worth, as JSON."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import AwareDatetime, Field, JsonValue, NonNegativeInt, PositiveInt
from torch import Tensor

from denoiser_training.files import replace_file
from smoothing_proxy.errors import ConfigError
from smoothing_proxy.settings_file import Settings, parse_settings

__all__ = ["ClassifierCard", "is_classifier_card", "read_classifier_card", "save_classifier"]


class ClassifierCard(Settings):
    """What whoever trained the weights knows about them.

    network: as SurrogateSettings name it. classes: its outputs, in order. side_px: of the crops that it was
    trained on. input_px: pictures of another size are resized to this side; 0 takes them as they come.
    training_data, training_data_license: which pictures, and what their license allows. start: the weights that
    training began from. schedule: steps and copies, as text. figures: accuracy in %, with intervals.
    hardware, steps, seconds: what training took. license: of the weights. versions: of Python and the packages.
    weights: a file name in the card's own folder, with this sha256.
    """

    kind: Literal["classifier"] = "classifier"
    format: Literal[1] = 1
    name: str
    network: str
    classes: tuple[str, ...]
    side_px: PositiveInt
    input_px: NonNegativeInt
    training_data: str
    training_data_license: str
    start: str
    schedule: str
    figures: dict[str, JsonValue]
    hardware: str
    steps: NonNegativeInt
    seconds: float
    created: AwareDatetime
    license: str
    versions: dict[str, str]
    weights: str = Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.+-]*$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


def save_classifier(folder: Path, weights: Mapping[str, Tensor], facts: Mapping[str, Any]) -> Path:
    """Write NAME.safetensors and then NAME.json, each replaced as a whole; returns the card's path.

    facts: the card's fields but those that speak of the file. Raises ConfigError when `folder` cannot be written.
    """
    import safetensors.torch

    data = safetensors.torch.save({key: tensor.cpu().contiguous() for key, tensor in weights.items()})
    name = f"{facts['name']}.safetensors"
    card = ClassifierCard(**facts, weights=name, sha256=hashlib.sha256(data).hexdigest())
    path = folder / f"{card.name}.json"
    try:
        replace_file(folder / name, data)
        replace_file(path, (card.model_dump_json(indent=2) + "\n").encode())
    except OSError as error:
        raise ConfigError(f"{folder}: cannot write the classifier {card.name!r}: {error}") from error
    return path


def is_classifier_card(path: Path) -> bool:
    """Whether the file is JSON that says so; whatever else is wrong with it is told when it is read."""
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(fields, dict) and fields.get("kind") == "classifier"


def read_classifier_card(path: Path) -> tuple[ClassifierCard, Path]:
    """The card, and the path of its weights, whose sha256 was compared. Raises ConfigError where they differ."""
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(fields, dict):
            raise ConfigError(f"{path}: not a classifier's card: expected a JSON object")
        card = parse_settings(ClassifierCard, fields, source=str(path))
        weights = path.with_name(card.weights)
        digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: not a classifier's card with its weights: {error}") from error
    if digest != card.sha256:
        raise ConfigError(f"{weights}: sha256 is {digest}, the card of {card.name!r} says {card.sha256}")
    return card, weights
