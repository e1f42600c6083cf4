"""A trained classifier as ONNX, checked against torch, so that the proxy takes it for a black box.

`smoothing-proxy ... --backend local:NAME.onnx` needs no options: the file takes RGB on [0, 1] and gives logits.
The outputs' names lie beside it, for `-b labels=NAME.labels.txt`.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import torch
from torch import nn

from denoiser_training.classifier_card import ClassifierCard, read_classifier_card
from denoiser_training.classifier_networks import load_network
from denoiser_training.config import SurrogateSettings
from denoiser_training.files import replace_file
from smoothing_proxy.errors import ConfigError

__all__ = ["TOLERANCE", "check_classifier_onnx", "export_classifier_onnx", "need_onnx"]

TOLERANCE = 1e-4
"""The largest allowed difference of a logit, relative to the largest one of the picture."""

TRIALS = (1, 2, 7)
"""Pictures at a time."""


def export_classifier_onnx(card: Path, out: Path) -> float:
    """Write the classifier of `card` to `out`; returns the largest relative difference from torch that was seen.

    Input: pictures float32 [n, 3, side, side] on [0, 1], n free, side as trained on. Output: logits float32
    [n, classes]. Raises ConfigError when a library is missing, the card or its weights cannot be had, onnxruntime
    disagrees, or `out` cannot be written.
    """
    need_onnx()
    facts, _ = read_classifier_card(card)
    settings = SurrogateSettings(name=facts.name, network="card", weights=card)
    network = load_network(settings).eval().requires_grad_(requires_grad=False)
    data = _converted(facts, network)
    difference = check_classifier_onnx(data, facts, network)
    try:
        replace_file(out, data)
        replace_file(out.with_suffix(".labels.txt"), "".join(f"{name}\n" for name in facts.classes).encode())
    except OSError as error:
        raise ConfigError(f"{out}: cannot write it: {error}") from error
    return difference


def check_classifier_onnx(data: bytes, card: ClassifierCard, network: nn.Module) -> float:
    """The largest relative difference between onnxruntime (on the CPU) and torch over pictures of noise.

    Raises ConfigError above TOLERANCE, and for an output that is not finite.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    stream, worst = torch.Generator().manual_seed(0), 0.0
    for count in TRIALS:
        pictures = torch.rand(count, 3, _side(card), _side(card), generator=stream)
        (logits,) = session.run(None, {"pictures": pictures.numpy()})
        with torch.no_grad():
            expected = network(pictures)
        difference = float((torch.from_numpy(logits) - expected).abs().max() / expected.abs().max())
        if not difference <= TOLERANCE:
            raise ConfigError(
                f"{card.name!r} as ONNX differs from torch by {difference:.3g} of the largest logit; at most "
                f"{TOLERANCE:g} is allowed"
            )
        worst = max(worst, difference)
    return worst


def need_onnx() -> None:
    """Raises ConfigError, which says what to install, when a library is missing."""
    for library in ("onnx", "onnxscript", "onnxruntime"):
        try:
            importlib.import_module(library)
        except ImportError as error:
            advice = "pip install 'smoothing-proxy[training]'"
            raise ConfigError(f"export to ONNX needs {library}: {advice}") from error


def _side(card: ClassifierCard) -> int:
    return card.input_px or card.side_px


def _converted(card: ClassifierCard, network: nn.Module) -> bytes:
    program: Any = torch.onnx.export(
        network,
        (torch.rand(2, 3, _side(card), _side(card)),),
        dynamo=True,
        input_names=["pictures"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim.DYNAMIC},),
        verbose=False,
    )
    facts = card.model_dump(mode="json", include={"name", "sha256", "license", "training_data"})
    labels = {"classes": "\n".join(card.classes)}
    program.model.metadata_props.update({**{key: str(value) for key, value in facts.items()}, **labels})
    data: bytes = program.model_proto.SerializeToString()
    return data
