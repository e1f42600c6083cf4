"""The courier: carries items to a vendor and back until each has its final answer.

Every send passes, in this order: the circuit, a place among the requests in flight, a token of the rate. The
token comes last so that none is hoarded: who holds one sends at once. Waiting for it inside the place costs
nothing, since whoever could use the place would have to wait for a token behind this one.

A send is written down (`Hooks.sending`) with its token in hand; or, while all places are taken and the rate holds
nobody back, by the next few in line, who then leave as soon as there is a place, or are withdrawn.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from typing import Generic, TypeVar

from smoothing_proxy.errors import (
    AuthenticationError,
    BackendDownError,
    BackendError,
    BackendTimeoutError,
    ConfigError,
    MalformedReplyError,
    QuotaExceededError,
    RateLimitedError,
    SmoothingProxyError,
)
from smoothing_proxy.transport.circuit import Circuit
from smoothing_proxy.transport.clock import Clock, SystemClock
from smoothing_proxy.transport.health import has_failures, learn
from smoothing_proxy.transport.hooks import Hooks, Undelivered
from smoothing_proxy.transport.places import Places
from smoothing_proxy.transport.rate import RateLimiter, Ticket
from smoothing_proxy.transport.retry import Tally, nap, rounds
from smoothing_proxy.transport.settings import TransportSettings

__all__ = ["Courier", "Hooks", "Undelivered"]

Item = TypeVar("Item")
Answer = TypeVar("Answer")

STOPS_THE_RUN = (AuthenticationError, QuotaExceededError, BackendDownError)


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
        self.places = Places(in_flight)

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
        # Without a final answer, and free of charge where they are given back now.
        self._left = [(item, Tally()) for item in items]
        self._sends = 0
        self._written_down = False
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
            if (self._sends or self._written_down) and self._left:
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
        if not has_failures(replies):
            self._left = []
            await self._hooks.settled(items, replies)
            return []
        fatal = next((reply for reply in replies if isinstance(reply, STOPS_THE_RUN)), None)
        down = self._courier.circuit.given_up()
        again = await self._sort(replies)
        if fatal is not None:
            raise fatal
        if down is not None and (again or any(isinstance(reply, MalformedReplyError) for reply in replies)):
            raise down
        return again

    async def _ask(self, items: list[Item]) -> Sequence[Answer | BackendError]:
        """One request, from the wait for its turn to its replies, of which there is one for each item."""
        courier = self._courier
        ticket, probe = await self._admitted(items)
        try:
            await self._write_down(items)
            self._written_down = False
            self._sends += 1
            replies = await self._sent(items)
            learn(replies, ticket, courier.circuit, courier.limiter, probe=probe)
        finally:
            courier.places.give_back()
            if probe:
                courier.circuit.leave()
        return replies

    async def _admitted(self, items: list[Item]) -> tuple[Ticket, bool]:
        """Leave to send now: a ticket of the rate, and whether this is the circuit's probe.

        The place, and the probe, are the caller's to give back. Raises Undelivered when stopped.
        """
        circuit, stopped = self._courier.circuit, self._hooks.stopped
        while True:
            probe = circuit.is_open and await circuit.ready(stopped)
            ticket = None
            try:
                ticket = await self._placed(items, probe=probe)
            finally:
                if probe and ticket is None:
                    circuit.leave()
            if ticket is not None:
                return ticket, probe
            if self._written_down:
                self._written_down = False
                await self._hooks.withdrawn(items)

    async def _placed(self, items: list[Item], *, probe: bool) -> Ticket | None:
        """A ticket, with a place; None, without one, where the circuit opened meanwhile."""
        courier, stopped = self._courier, self._hooks.stopped

        def barred() -> bool:
            return stopped() or (courier.circuit.is_open and not probe)

        await courier.places.take(partial(self._get_ready, items))
        admitted = False
        try:
            ticket = await courier.limiter.take(len(items), barred)
            if stopped():
                raise Undelivered
            admitted = not barred()
        finally:
            if not admitted:
                courier.places.give_back()
        return ticket if admitted else None

    async def _get_ready(self, items: list[Item]) -> None:
        """While one waits for a place, and for nothing else."""
        courier = self._courier
        if courier.limiter.is_free and not courier.circuit.is_open and not self._hooks.stopped():
            await self._write_down(items)

    async def _write_down(self, items: list[Item]) -> None:
        if not self._written_down:
            await self._hooks.sending(items)
            self._written_down = True

    async def _sent(self, items: list[Item]) -> Sequence[Answer | BackendError]:
        """The replies of one send, and how long it took."""
        started = self._courier.clock.now()
        try:
            replies = await self._send(items)
        except BackendError as error:
            replies = [error] * len(items)
        except SmoothingProxyError:
            raise
        except Exception as error:
            # Nobody knows how far the request came.
            entries, self._left = self._left, []
            await self._hooks.returned(items, self._unexpected(error))
            self._left = entries
            raise
        self._took_s = self._courier.clock.now() - started
        if len(replies) != len(items):
            return [self._miscounted(len(replies), len(items))] * len(items)
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
        left: list[tuple[Item, Tally]] = []
        final: list[tuple[Item, Answer | BackendError]] = []
        again: dict[int, tuple[BackendError, list[Item]]] = {}
        for (item, tally), reply in zip(entries, replies, strict=True):
            if isinstance(reply, STOPS_THE_RUN):
                self._left.append((item, tally))
                left.append((item, tally))
            elif isinstance(reply, BackendError) and not tally.is_final_after(
                reply, courier.settings, spent_s=self._spent_s, outage=outage
            ):
                left.append((item, tally))
                again.setdefault(id(reply), (reply, []))[1].append(item)
            else:
                final.append((item, reply))
        await self._tell(final, list(again.values()))
        self._left = left
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
