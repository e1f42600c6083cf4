"""How many draws to have under way while a plan looks at them one by one."""

from __future__ import annotations

from smoothing_proxy.types import Draws

__all__ = ["Lookahead"]


class Lookahead:
    """Keeps draws in flight for one picture, without paying for many that turn out to be needless.

    most: draws under way at once, >= 1. eager: have as many as that at any time, for the shortest wait; otherwise
    never more than could be needed at least, which wastes little.
    """

    def __init__(self, most: int, *, eager: bool) -> None:
        self._most = most
        self._eager = eager
        self._under_way = 0

    def one_of(self, phase: str, fewest: int, *, left: int) -> Draws:
        """A request for the next vote. fewest: draws that are needed at least. left: that may still be drawn.

        New draws are asked for by several at once, since a denoiser and a vendor's request take many at a time.
        """
        wanted = min(self._most if self._eager else min(self._most, max(1, fewest)), left)
        if self._under_way == 0 or wanted - self._under_way >= max(1, self._most // 4):
            self._under_way = max(self._under_way, wanted)
        request = Draws(phase, self._under_way, at_least=1)
        self._under_way -= 1
        return request
