"""One attacked picture's questions: counted, limited, never asked twice, and the best answer kept."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from smoothing_proxy.redteam.grid import Norm, Pictures, distances, rounded, to_pictures, to_pixels
from smoothing_proxy.redteam.targets import Heard, Target

__all__ = ["Oracle", "Spent"]

CONFIRMATIONS = (1, 2, 4)
"""Further looks at a picture that a noisy target has another answer to, as long as all of them together agree: of
hundreds of queries some get another answer by chance, and an attack that ends there has found nothing.
"""

REPEATS = 50
"""Times the budget; who asks what was answered before so often is going round in circles."""


SMALLEST = 1e-12
"""A share below it has this one's logarithm."""

Row: TypeAlias = tuple[int, bool, float, float]
"""An answer, whether it is another one than the label, and the log scores of the label and of the best other."""


class Spent(Exception):  # noqa: N818 (a budget that is used up is no error)
    """The picture's queries are used up; `Oracle.best` is what the attack has come to."""


class Oracle:
    """A target as an attack on one picture may ask it.

    clean: float32 [3, h, w]. label: index into the target's classes. eps: the most that the answer may be away in
    `norm`; None for the nearest that is found. max_queries: queries that are paid for at most. subject: the
    picture's number. Pictures are rounded to 8 bits before they are asked about, within eps. What would become the
    best of a noisy target is asked about again, on its own account.
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
        finite = np.where(np.isfinite(pictures), pictures, clean)  # ART's Square in l2 divides by 0 now and then
        return rounded(finite, clean, self._norm, self._eps)

    def _ask(self, pixels: npt.NDArray[np.uint8], keys: list[bytes]) -> None:
        labels, subjects = (np.full(len(pixels), number) for number in (self._label, self._subject))
        heard = self._target.ask(pixels, labels, subjects=subjects)
        self.queries += len(pixels)
        for key, picture, row in zip(keys, to_pictures(pixels), _rows(heard, self._label), strict=True):
            self._known[key] = self._kept(picture, row)[1:]

    def _kept(self, picture: npt.NDArray[np.float32], row: Row) -> Row:
        """Keeps the nearest one with another answer; before there is one, that where the label leads least."""
        away = float(distances(picture[None], self._clean[None], self._norm)[0])
        sure = True
        if row[1] and (0, away) < self._rank and self._target.noisy:
            row, sure = self._confirmed(picture, row)
        answer, wrong, own, other = row
        rank = (0, away) if wrong and sure else (1, own - other)
        if rank < self._rank:
            self._rank, self.best, self.answer = rank, picture, answer if sure else self._label
        return row

    def _confirmed(self, picture: npt.NDArray[np.float32], row: Row) -> tuple[Row, bool]:
        """The row with the mean scores of several looks, and whether there were enough of them to believe it."""
        shares = [np.exp(row[2:])]
        for looks in CONFIRMATIONS:
            if looks > self._max_queries - self.queries:
                return row, False
            pixels = np.repeat(to_pixels(picture[None]), looks, axis=0)
            labels, subjects = (np.full(looks, number) for number in (self._label, self._subject))
            heard = self._target.ask(pixels, labels, subjects=subjects)
            self.queries += looks
            shares += list(np.exp(np.stack([heard.own, heard.other], axis=1)))
            own, other = np.mean(shares, axis=0)
            if own >= other:
                return (self._label, False, float(np.log(own)), float(np.log(max(other, SMALLEST)))), True
        return (row[0], True, float(np.log(max(own, SMALLEST))), float(np.log(other))), True


def _rows(heard: Heard, label: int) -> list[Row]:
    """Answer, whether it is another one than the label, and the two scores."""
    columns = zip(heard.answers.tolist(), heard.own.tolist(), heard.other.tolist(), strict=True)
    return [(answer, answer != label, own, other) for answer, own, other in columns]
