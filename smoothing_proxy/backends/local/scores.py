"""From a network's outputs to named confidences, and the checks that a network can be voted with at all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol, TypeAlias, final

import numpy as np
import numpy.typing as npt

from smoothing_proxy.backends.local.local_backend import Answer, LocalOptions
from smoothing_proxy.errors import ConfigError, MalformedReplyError
from smoothing_proxy.types import ScoredLabel

__all__ = ["Output", "ScoreReader", "ScoredClasses", "ScoredOptions", "Scorer", "confidences"]

UInt8: TypeAlias = npt.NDArray[np.uint8]
Float64: TypeAlias = npt.NDArray[np.float64]
Output: TypeAlias = Literal["logits", "probabilities"]

PROBE_SIZE = (224, 224)
"""Of the pictures that a network of unknown size is tried with."""

ROUNDING = 1e-6
"""How far outside [0, 1] a single-precision softmax may end."""

COUPLING = 1e-2
"""Of the largest output: more than the rounding of any device, less than what BatchNorm in training mode does."""


class ScoredOptions(LocalOptions):
    """output: what the network's last layer gives. Softmax makes confidences of "logits" and never reverses
    their order."""

    output: Output = "logits"


class Scorer(Protocol):
    """A network as a function."""

    @property
    def picture_size(self) -> tuple[int, int] | None:
        """Height and width, px, of the pictures that suit it best; None where any size does."""
        ...

    def scores(self, pixels: UInt8) -> npt.NDArray[Any]:
        """pixels: uint8 [n, h, w, 3]. Returns its outputs, [n, k]."""
        ...


def confidences(outputs: npt.NDArray[Any], output: Output) -> Float64:
    """Outputs [n, k] on [0, 1]; what is no confidence stays outside of it, or becomes NaN."""
    values = np.asarray(outputs, np.float64)
    if output == "probabilities":
        inside = values.clip(0.0, 1.0)
        return np.where(np.abs(values - inside) <= ROUNDING, inside, values)
    with np.errstate(invalid="ignore"):
        powers = np.exp(values - values.max(axis=1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float64)


@final
class ScoreReader:
    """names: of the outputs, in order. top: how many labels an answer carries."""

    def __init__(self, names: Sequence[str], *, output: Output, top: int) -> None:
        self.names = tuple(names)
        self.output = output
        self.top = top
        self._rank = np.argsort(np.argsort(np.array(self.names), kind="stable"))

    def answers(self, outputs: npt.NDArray[Any], count: int) -> list[Answer]:
        """The best labels for each of `count` pictures, best first, ties by name; or its failure for a picture.

        Raises MalformedReplyError when `outputs` is not [count, names].
        """
        wanted = (count, len(self.names))
        if np.shape(outputs) != wanted:
            raise MalformedReplyError(f"scores of shape {np.shape(outputs)}, {wanted} expected (pictures, labels)")
        return [self._answer(scores) for scores in confidences(outputs, self.output)]

    def _answer(self, scores: Float64) -> Answer:
        fault = _fault(scores)
        if fault:
            return MalformedReplyError(fault)
        top = min(self.top, len(scores))
        candidates = np.flatnonzero(scores >= np.partition(scores, -top)[-top])
        order = np.lexsort((self._rank[candidates], -scores[candidates]))
        return tuple(ScoredLabel(self.names[i], float(scores[i])) for i in candidates[order[:top]])


@final
class ScoredClasses:
    """A Classifier made of a network and the names of its outputs.

    Tries the network on two pictures of noise. Raises ConfigError when it cannot take them, when names and
    outputs differ in number, or when an answer depends on the other picture (then no proof could be given).
    """

    def __init__(self, name: str, scorer: Scorer, options: LocalOptions, *, output: Output) -> None:
        self._scorer = scorer
        width = _probed_width(name, scorer, output)
        names = options.names() or tuple(str(number) for number in range(width))
        if len(names) != width:
            raise ConfigError(f"{name}: {len(names)} labels for {width} outputs")
        self._reader = ScoreReader(names, output=output, top=options.top)

    def classify(self, pixels: UInt8) -> list[Answer]:
        """uint8 [n, h, w, 3] to n answers. Raises MalformedReplyError for outputs of another shape."""
        return self._reader.answers(self._scorer.scores(pixels), len(pixels))


def _fault(scores: Float64) -> str:
    """What is wrong with confidences of any shape, or ""."""
    if np.isnan(scores).any():
        return "a score is not a number"
    if scores.min() < 0.0 or scores.max() > 1.0:
        return f"scores from {scores.min():.4g} to {scores.max():.4g} are no probabilities; set output = 'logits'"
    return ""


def _probed_width(name: str, scorer: Scorer, output: Output) -> int:
    height, width = scorer.picture_size or PROBE_SIZE
    pictures = np.random.default_rng(0).integers(0, 256, (2, height, width, 3), np.uint8)
    try:
        together = np.asarray(scorer.scores(pictures), np.float64)
        apart = np.concatenate([scorer.scores(picture[np.newaxis]) for picture in pictures])
    except Exception as error:  # a network may raise anything
        hint = "" if scorer.picture_size else " (if it takes another size, set `size`)"
        raise ConfigError(
            f"{name}: cannot classify a picture of {height}x{width} pixels{hint}: {type(error).__name__}: {error}"
        ) from error
    if together.ndim != 2 or together.shape != apart.shape:
        raise ConfigError(f"{name}: answers {together.shape} to two pictures, (2, number of labels) is needed")
    if fault := _fault(confidences(together, output)):
        raise ConfigError(f"{name}: {fault}")
    tolerance = COUPLING * float(np.abs(together).max(initial=0.0))
    if not np.allclose(together, apart, rtol=0.0, atol=tolerance):
        raise ConfigError(
            f"{name}: its answer to a picture depends on the other pictures of the request "
            "(BatchNorm or dropout in training mode?); save it in evaluation mode"
        )
    return int(together.shape[1])
