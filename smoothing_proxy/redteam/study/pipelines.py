"""The rows of a study at work: a classifier behind its defence, asked as the proxy would ask it.

Where an answer takes one look, the picture is denoised, rounded to bytes and classified. Smoothing answers with
the majority of many looks at noisy copies, and CERTIFY (Cohen et al. 2019) says how far that answer reaches. The
noise is the proxy's own, but from the study's seed, so that a table can be made again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from smoothing_proxy.denoisers.base import Denoiser
from smoothing_proxy.errors import ConfigError
from smoothing_proxy.images.codec import quantise
from smoothing_proxy.images.noise import insecure_entropy, noisy_batch, to_grid
from smoothing_proxy.redteam.grid import Pictures
from smoothing_proxy.redteam.networks import Network
from smoothing_proxy.redteam.study.config import DefenceEntry, SmoothingEntry
from smoothing_proxy.stats.certificates import certify_votes
from smoothing_proxy.types import Certificate, Votes

__all__ = ["NOTHING", "Pipeline"]

Answers = npt.NDArray[np.int64]
Counts = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float64]

NOTHING = -1
"""The answer of logits that are not finite, and of a tie among votes for nothing."""


@dataclass(frozen=True)
class Pipeline:
    """One row. network: on its device. denoiser: before it. batch: copies at a time. seed: of the noise."""

    network: Network
    denoiser: Denoiser
    defence: DefenceEntry
    batch: int = 100
    seed: int = 0

    @cached_property
    def is_raw(self) -> bool:
        """Whether the classifier sees the picture as it is."""
        return self.denoiser.name == "identity" and self.defence.smoothing is None

    @property
    def queries(self) -> int:
        """What one answer costs."""
        return 1 if self.defence.smoothing is None else self.defence.smoothing.votes

    def check(self, height: int, width: int) -> None:
        """Raises DenoiserError where the denoiser does not take such noise or pictures, ConfigError where the
        network does not take them, or has not one output per class."""
        smoothing = self.defence.smoothing
        self.denoiser.check(self.defence.told_sigma if smoothing is None else smoothing.sigma, height, width)
        check_network(self.network, height, width)

    def answers(self, pictures: Pictures, numbers: Sequence[int]) -> Answers:
        """pictures: float32 [n, 3, h, w] on [0, 1]. numbers: theirs in the study; smoothing's noise goes by them.
        Indices into network.classes, int64 [n].

        Whatever a denoiser makes is rounded to bytes, as the proxy does; a picture without one is seen as it is.
        """
        if self.defence.smoothing is not None:
            return np.array([self._vote(*pair) for pair in zip(pictures, numbers, strict=True)], np.int64)
        parts = [pictures[i : i + self.batch] for i in range(0, len(pictures), self.batch)]
        return np.concatenate([self._classified(self._filtered(part)) for part in parts])

    def certificate(self, picture: Pictures, number: int) -> Certificate:
        """picture: float32 [3, h, w], the study's picture of that number. A label is an index as text.

        The draws are others than those behind answers.
        """
        smoothing = self._smoothing()
        drawn = range(smoothing.votes, smoothing.votes + smoothing.n0 + smoothing.n)
        given = self._draws(picture, number, drawn, smoothing.sigma)
        selection = _votes(given[: smoothing.n0])
        return certify_votes(
            _votes(given[smoothing.n0 :]),
            selection.top(),
            sigma=smoothing.sigma,
            alpha=smoothing.alpha,
            selection=selection,
        )

    def scores(self, pictures: Pictures) -> Scores:
        """Of a row without smoothing: the logarithms of its classes' shares, float64 [n, k]."""
        assert self.defence.smoothing is None, "smoothing answers with votes"
        parts = [pictures[i : i + self.batch] for i in range(0, len(pictures), self.batch)]
        logits = torch.cat([self._logits(self._filtered(part)) for part in parts])
        return np.asarray(torch.log_softmax(logits.double(), dim=1).numpy())

    def further_votes(self, picture: Pictures, number: int, draws: int, first: int) -> Counts:
        """Of smoothing: how many of `draws` copies get each class, int64 [k]. picture: a version of that number's.

        The draws are others than those behind answers and certificates. first: how many of these went before.
        """
        smoothing = self._smoothing()
        start = smoothing.votes + smoothing.n0 + smoothing.n + first
        given = self._draws(picture, number, range(start, start + draws), smoothing.sigma)
        return np.bincount(given[given != NOTHING], minlength=len(self.network.classes)).astype(np.int64)

    def _smoothing(self) -> SmoothingEntry:
        assert self.defence.smoothing is not None, "only smoothing certifies"
        return self.defence.smoothing

    @cached_property
    def _known(self) -> dict[tuple[int, bytes], int]:
        """Answers to pictures by number and hash: the same noise gives the same answer again."""
        return {}

    def _vote(self, picture: Pictures, number: int) -> int:
        key = (number, sha256(picture.tobytes()).digest())
        if key not in self._known:
            smoothing = self._smoothing()
            top = _votes(self._draws(picture, number, range(smoothing.votes), smoothing.sigma)).top()
            self._known[key] = NOTHING if top is None else int(top)
        return self._known[key]

    def _draws(self, picture: Pictures, number: int, draws: range, sigma: float) -> Answers:
        """The class that each noisy copy gets."""
        grid = to_grid(np.clip(picture.transpose(1, 2, 0).astype(np.float64), 0.0, 1.0))
        entropy = insecure_entropy(self.seed, b"study %d" % number)
        parts = []
        whole = self.denoiser.batch_size  # a batch that is not full costs as much as one that is
        for few in _parts(draws, max(1, self.batch // whole) * whole):
            copies = quantise(self.denoiser.denoise(noisy_batch(grid, entropy, few, sigma), sigma))
            parts.append(self._classified(_planes(copies.astype(np.float32) / np.float32(255))))
        return np.concatenate(parts)

    def _filtered(self, pictures: Pictures) -> Pictures:
        if self.is_raw:
            return pictures
        rows = np.ascontiguousarray(pictures.transpose(0, 2, 3, 1))
        shown = quantise(self.denoiser.denoise(rows, self.defence.told_sigma))
        return _planes(shown.astype(np.float32) / np.float32(255))

    def _classified(self, pictures: Pictures) -> Answers:
        logits = self._logits(pictures)
        return np.where(torch.isfinite(logits).all(dim=1), logits.argmax(dim=1), NOTHING).astype(np.int64)

    def _logits(self, pictures: Pictures) -> Tensor:
        return self.network.logits(torch.from_numpy(np.ascontiguousarray(pictures)), self.batch)


def check_network(network: Network, height: int, width: int) -> None:
    """Raises ConfigError when it does not take pictures of that size, or has not one output per class."""
    try:
        logits = network.logits(torch.zeros(1, 3, height, width))
    except (RuntimeError, ValueError, TypeError, IndexError, AssertionError) as error:
        raise ConfigError(f"classifier {network.name!r} cannot take {height}x{width} px: {error}") from error
    if logits.shape != (1, len(network.classes)):
        raise ConfigError(
            f"classifier {network.name!r}: outputs {list(logits.shape)} do not fit its "
            f"{len(network.classes)} classes"
        )


def _parts(draws: range, size: int) -> Iterator[range]:
    for first in range(draws.start, draws.stop, size):
        yield range(first, min(first + size, draws.stop))


def _planes(pictures: npt.NDArray[np.float32]) -> Pictures:
    """[n, h, w, 3] to [n, 3, h, w]."""
    return np.ascontiguousarray(pictures.transpose(0, 3, 1, 2))


def _votes(given: Answers) -> Votes:
    labels, counts = np.unique(given[given != NOTHING], return_counts=True)
    failed = int(np.count_nonzero(given == NOTHING))
    return Votes({str(label): int(count) for label, count in zip(labels, counts, strict=True)}, failed)
