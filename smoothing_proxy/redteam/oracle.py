"""One attacked picture's questions: counted, limited, never asked twice, and the best answer kept."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from smoothing_proxy.redteam.grid import Norm, Pictures, distances, rounded, to_pictures, to_pixels
from smoothing_proxy.redteam.targets import Heard, Target

__all__ = ["Oracle", "Spent"]

REPEATS = 50
"""Times the budget; who asks what was answered before so often is going round in circles."""


class Spent(Exception):  # noqa: N818 (a budget that is used up is no error)
    """The picture's queries are used up; `Oracle.best` is what the attack has come to."""


class Oracle:
    """A target as an attack on one picture may ask it.

    clean: float32 [3, h, w]. label: index into the target's classes. eps: the most that the answer may be away in
    `norm`; None for the nearest that is found. max_queries: queries that are paid for at most. subject: the
    picture's number. Pictures are rounded to 8 bits before they are asked about, within eps.
    """

    def __init__(
        self,
        target: Target,
        clean: npt.NDArray[np.float32],
        label: int,
        *,
        norm: Norm,
        eps: float | None,
        max_queries: int,
        subject: int,
    ) -> None:
        self.queries = 0
        self.best = clean
        self.answer = label
        self._target, self._clean, self._label = target, clean, label
        self._norm: Norm = norm
        self._eps, self._max_queries, self._subject = eps, max_queries, subject
        self._known: dict[bytes, tuple[bool, float, float]] = {}
        self._repeats = 0
        self._rank = (1, np.inf)

    def scores(self, pictures: Pictures) -> npt.NDArray[np.float32]:
        """float32 [n, 3, h, w] to [n, 2]: log score of the label, and of the best other one. Raises Spent."""
        rows = np.array(self._asked(pictures), np.float32)
        return np.asarray(rows[:, 1:])

    def decisions(self, pictures: Pictures) -> npt.NDArray[np.float32]:
        """[n, 2], one-hot: whether the answer is the label, or is not. Raises Spent."""
        wrong = np.array([wrong for wrong, _, _ in self._asked(pictures)])
        return np.stack([~wrong, wrong], axis=1).astype(np.float32)

    def _asked(self, pictures: Pictures) -> list[tuple[bool, float, float]]:
        pixels = to_pixels(self._allowed(pictures))
        keys = [one.tobytes() for one in pixels]
        fresh = list(dict.fromkeys(key for key in keys if key not in self._known))
        left = self._max_queries - self.queries
        self._repeats += len(keys)
        if fresh[:left]:
            self._ask(np.stack([pixels[keys.index(key)] for key in fresh[:left]]), fresh[:left])
        if len(fresh) > left or self._repeats > REPEATS * self._max_queries:
            raise Spent
        return [self._known[key] for key in keys]

    def _allowed(self, pictures: Pictures) -> Pictures:
        clean = np.broadcast_to(self._clean, pictures.shape)
        return rounded(pictures, clean, self._norm, self._eps)

    def _ask(self, pixels: npt.NDArray[np.uint8], keys: list[bytes]) -> None:
        labels, subjects = (np.full(len(pixels), number) for number in (self._label, self._subject))
        heard = self._target.ask(pixels, labels, subjects=subjects)
        self.queries += len(pixels)
        for key, picture, row in zip(keys, to_pictures(pixels), _rows(heard, self._label), strict=True):
            self._known[key] = row[1:]
            self._keep(picture, *row)

    def _keep(self, picture: npt.NDArray[np.float32], answer: int, wrong: bool, own: float, other: float) -> None:  # noqa: FBT001
        """The nearest one with another answer; before there is one, that where the label leads least."""
        away = float(distances(picture[None], self._clean[None], self._norm)[0])
        rank = (0, away) if wrong else (1, own - other)
        if rank < self._rank:
            self._rank, self.best, self.answer = rank, picture, answer


def _rows(heard: Heard, label: int) -> list[tuple[int, bool, float, float]]:
    """Answer, whether it is another one than the label, and the two scores."""
    columns = zip(heard.answers.tolist(), heard.own.tolist(), heard.other.tolist(), strict=True)
    return [(answer, answer != label, own, other) for answer, own, other in columns]
