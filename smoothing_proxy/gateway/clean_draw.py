"""The one question about the picture itself, on the sampler's own road, without its ways for many draws."""

from __future__ import annotations

from collections.abc import Sequence

from smoothing_proxy.errors import BackendError
from smoothing_proxy.images.codec import EncodedImage
from smoothing_proxy.smoothing.books import Books, Copy
from smoothing_proxy.smoothing.halt import FATAL, Halt
from smoothing_proxy.smoothing.observe import CLEAN, Outcome
from smoothing_proxy.smoothing.sampler import Sampler
from smoothing_proxy.transport.courier import Undelivered
from smoothing_proxy.types import Reply

__all__ = ["ask_clean"]


async def ask_clean(sampler: Sampler, picture: int, copy: EncodedImage, halt: Halt) -> None:
    """Send the draw CLEAN of this picture, within the sampler's limits; journal and observers hear how it ends.

    Raises what the halt was asked for, and what stops the run, which the halt is then asked for; a BackendError of
    this draw alone is an outcome.
    """

    async def ask(batch: Sequence[Copy]) -> Sequence[Reply | BackendError]:
        return await sampler.classifier.ask([copy for _, copy in batch])

    halt.check()
    books = Books(sampler.journal, sampler.classifier.outcome, picture, _Alone(sampler, picture, halt))
    try:
        await sampler.courier.deliver([(CLEAN, copy)], ask, books)
    except Undelivered:
        halt.check()
        raise
    except FATAL as error:
        halt.request(error)
        halt.check()


class _Alone:
    """Implements Stream for one draw."""

    def __init__(self, sampler: Sampler, picture: int, halt: Halt) -> None:
        self._sampler = sampler
        self._picture = picture
        self._halt = halt

    @property
    def stopped(self) -> bool:
        return self._halt.requested

    def take_note(self, outcomes: Sequence[Outcome]) -> None:
        for observer in self._sampler.observers:
            observer.settled(self._picture, outcomes)

    def take_back(self, draws: Sequence[int], error: BackendError) -> None:
        for observer in self._sampler.observers:
            observer.withdrawn(self._picture, draws, error)
