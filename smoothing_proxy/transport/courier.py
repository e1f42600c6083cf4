"""The courier: carries items to a vendor and back until each has its final answer.

Every send passes, in this order: the circuit, a place among the requests in flight, a token of the rate. The
token comes last so that none is hoarded: who holds one sends at once. Waiting for it inside the place costs
nothing, since whoever could use the place would have to wait for a token behind this one.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Generic, Protocol, TypeVar

import anyio

from smoothing_proxy.errors import (
    AuthenticationError,
    BackendDownError,
    BackendError,
    BackendTimeoutError,
    BackendUnavailableError,
    ConfigError,
    MalformedReplyError,
    QuotaExceededError,
    RateLimitedError,
    SmoothingProxyError,
)
from smoothing_proxy.transport.circuit import Circuit
from smoothing_proxy.transport.clock import Clock, SystemClock
from smoothing_proxy.transport.rate import RateLimiter, Ticket
from smoothing_proxy.transport.retry import Tally, nap, rounds
from smoothing_proxy.transport.settings import TransportSettings

__all__ = ["Courier", "Hooks", "Undelivered"]

Item = TypeVar("Item")
Answer = TypeVar("Answer")
Carried = TypeVar("Carried", contravariant=True)
Brought = TypeVar("Brought", contravariant=True)

STOPS_THE_RUN = (AuthenticationError, QuotaExceededError, BackendDownError)


class Undelivered(Exception):  # noqa: N818 (being asked to stop is no error)
    """Some items were not sent, or not sent again, since `stopped()`. Those that were settled are settled."""


class Hooks(Protocol[Carried, Brought]):
    """Who keeps the books. Every item that was sent ends in exactly one of `settled` and `withdrawn`.

    (Unless one of these methods raises, or the task is cancelled: then the last word told of an item stands.)
    """

    def stopped(self) -> bool:
        """Whether nothing more may be sent. Polled while waiting."""
        ...

    async def sending(self, items: Sequence[Carried]) -> None:
        """These leave now. What it raises comes out of `deliver`, and nothing is sent."""
        ...

    async def returned(self, items: Sequence[Carried], error: BackendError) -> None:
        """This send of these failed, and it was not their last word: charge it where error.maybe_billed."""
        ...

    async def settled(self, items: Sequence[Carried], answers: Sequence[Brought | BackendError]) -> None:
        """These have their final answers; an error's own maybe_billed speaks of the last send only."""
        ...

    async def withdrawn(self, items: Sequence[Carried]) -> None:
        """These are given back without an answer; what is not charged by now costs nothing."""
        ...


class Courier:
    """One per run and account: its rate, circuit and places are shared by everything that it delivers.

    in_flight: requests under way at once. backend: the vendor's name, for messages. rng: for jitter.
    Raises ConfigError when in_flight is below 1.
    """

    def __init__(
        self,
        settings: TransportSettings,
        *,
        in_flight: int,
        backend: str,
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        if in_flight < 1:
            raise ConfigError(f"in_flight is {in_flight}: expected at least 1 request at once")
        self.settings = settings
        self.backend = backend
        self.clock = clock or SystemClock()
        self.rng = rng or random.Random()
        self.limiter = RateLimiter(settings, self.clock)
        self.circuit = Circuit(settings, backend, self.clock, self.rng)
        self._places = anyio.Semaphore(in_flight, fast_acquire=True)

    async def deliver(
        self,
        items: Sequence[Item],
        send: Callable[[Sequence[Item]], Awaitable[Sequence[Answer | BackendError]]],
        hooks: Hooks[Item, Answer],
    ) -> None:
        """Send the items as one request, and what fails again, until `hooks.settled` was told of each.

        send: one request: an answer or a BackendError for each item, or one BackendError raised for all.
        Raises Undelivered when stopped, BackendDownError when the circuit gives up, and, as they are, what
        `send` raises to stop the run (AuthenticationError, QuotaExceededError, BackendDownError, or anything that
        is no BackendError) and what the hooks raise.
        """
        await _Delivery(self, items, send, hooks).run()

    @asynccontextmanager
    async def admitted(self, count: int, stopped: Callable[[], bool]) -> AsyncIterator[tuple[Ticket, bool]]:
        """Leave to send `count` items now, with a ticket of the rate, and whether this is the circuit's probe.

        Raises Undelivered when stopped.
        """
        while True:
            probe = await self.circuit.ready(stopped)
            barred = partial(self._is_barred, stopped, probe=probe)
            try:
                async with self._places:
                    ticket = await self.limiter.take(count, barred)
                    if stopped():
                        raise Undelivered
                    if not barred():
                        yield ticket, probe
                        return
            finally:
                if probe:
                    self.circuit.leave()

    def _is_barred(self, stopped: Callable[[], bool], *, probe: bool) -> bool:
        """The circuit may open while one waits for a place or a token."""
        return stopped() or (self.circuit.is_open and not probe)

    def learn(self, replies: Sequence[object], ticket: Ticket, *, probe: bool) -> None:
        """What one send's replies say about the vendor's health and limit."""
        throttles = [reply for reply in replies if isinstance(reply, RateLimitedError)]
        failures = [x for x in replies if isinstance(x, BackendTimeoutError | BackendUnavailableError)]
        if throttles:
            self.limiter.throttled(ticket, max(x.retry_after or 0.0 for x in throttles))
        if len(throttles) + len(failures) < len(replies):
            self.circuit.answered()
            self.limiter.answered(ticket)  # which a throttle beside it makes void
        elif failures:
            self.circuit.failed(probe=probe)
        else:
            self.circuit.throttled()


class _Delivery(Generic[Item, Answer]):
    """One call of `deliver`: which items are left, and how their sends have gone so far."""

    def __init__(
        self,
        courier: Courier,
        items: Sequence[Item],
        send: Callable[[Sequence[Item]], Awaitable[Sequence[Answer | BackendError]]],
        hooks: Hooks[Item, Answer],
    ) -> None:
        self._courier = courier
        self._send = send
        self._hooks = hooks
        self._left = [(item, Tally()) for item in items]
        self._sends = 0
        self._took_s = 0.0
        self._spent_s = 0.0
        self._on_deadline = False

    async def run(self) -> None:
        """See Courier.deliver."""
        if not self._left:
            return
        try:
            again = await self._round()
            if again:  # tenacity costs as much as all the rest of this file: most sends succeed without it
                known = iter([again])
                retrying = rounds(self._courier.settings, self._courier.rng, self._back_off)
                await retrying(partial(self._round_after, known))
        except Exception:
            if self._sends and self._left:
                await self._hooks.withdrawn([item for item, _ in self._left])
            raise

    async def _round_after(self, known: Iterator[list[BackendError]]) -> list[BackendError]:
        """The result of a round that is known already, or of the next one."""
        errors = next(known, None)
        return await self._round() if errors is None else errors

    async def _round(self) -> list[BackendError]:
        """Send what is left and settle what is final; the errors of what is to be sent again."""
        items = [item for item, _ in self._left]
        replies = await self._ask(items)
        fatal = next((reply for reply in replies if isinstance(reply, STOPS_THE_RUN)), None)
        down = self._courier.circuit.given_up()
        again = await self._sort(replies)
        if fatal is not None:
            raise fatal
        if again and down is not None:
            raise down
        return again

    async def _ask(self, items: list[Item]) -> Sequence[Answer | BackendError]:
        """One request, from the wait for its turn to its replies, of which there is one for each item."""
        courier, hooks = self._courier, self._hooks
        async with courier.admitted(len(items), hooks.stopped) as (ticket, probe):
            await hooks.sending(items)
            self._sends += 1
            started = courier.clock.now()
            try:
                replies = await self._send(items)
            except BackendError as error:
                replies = [error] * len(items)
            except SmoothingProxyError:
                raise
            except Exception as error:
                # Nobody knows how far the request came.
                await hooks.returned(items, self._unexpected(error))
                raise
            if len(replies) != len(items):
                replies = [self._miscounted(len(replies), len(items))] * len(items)
            self._took_s = courier.clock.now() - started
            courier.learn(replies, ticket, probe=probe)
        return replies

    def _unexpected(self, error: Exception) -> BackendTimeoutError:
        name = self._courier.backend
        return BackendTimeoutError(f"{name}: {type(error).__name__} while asking", backend=name)

    def _miscounted(self, replies: int, items: int) -> MalformedReplyError:
        name = self._courier.backend
        return MalformedReplyError(f"{name}: {replies} replies to a request of {items}", backend=name)

    async def _sort(self, replies: Sequence[Answer | BackendError]) -> list[BackendError]:
        """Tell the hooks what is final and what is not; the errors of what is to be sent again."""
        courier = self._courier
        outage = courier.circuit.is_open
        self._on_deadline = not outage and any(_tries_patience(reply) for reply in replies)
        self._spend(self._took_s)
        entries, self._left = self._left, []
        final: list[tuple[Item, Answer | BackendError]] = []
        again: dict[int, tuple[BackendError, list[Item]]] = {}
        for (item, tally), reply in zip(entries, replies, strict=True):
            if isinstance(reply, STOPS_THE_RUN):
                self._left.append((item, tally))
            elif isinstance(reply, BackendError) and not tally.is_final_after(
                reply, courier.settings, spent_s=self._spent_s, outage=outage
            ):
                self._left.append((item, tally))
                again.setdefault(id(reply), (reply, []))[1].append(item)
            else:
                final.append((item, reply))
        await self._tell(final, list(again.values()))
        return [error for error, _ in again.values()]

    async def _tell(
        self,
        final: list[tuple[Item, Answer | BackendError]],
        again: list[tuple[BackendError, list[Item]]],
    ) -> None:
        for _, reply in final:
            if isinstance(reply, BackendError):
                reply.attempts = self._sends
        if final:
            await self._hooks.settled([item for item, _ in final], [reply for _, reply in final])
        for error, items in again:
            await self._hooks.returned(items, error)

    async def _back_off(self, seconds: float) -> None:
        """tenacity's sleep."""
        stopped = self._hooks.stopped
        await nap(self._courier.clock, seconds, stopped)
        if stopped():
            raise Undelivered
        self._spend(seconds)

    def _spend(self, seconds: float) -> None:
        """A send that was only throttled, or failed as all others do, uses up no deadline."""
        if self._on_deadline:
            self._spent_s += seconds


def _tries_patience(reply: object) -> bool:
    """Whether this is a failure that speaks of the item: no throttle, and one that may pass."""
    return isinstance(reply, BackendError) and reply.retryable and not isinstance(reply, RateLimitedError)
