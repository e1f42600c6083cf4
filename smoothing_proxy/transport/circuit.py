"""When not to ask at all: while a vendor is down, one request at a time finds out whether it is back.

closed --(circuit_failures in a row)--> open --(pause is over)--> probing --(any answer)--> closed
                                         ^------(probe failed: twice the pause)---|
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from smoothing_proxy.errors import BackendDownError
from smoothing_proxy.transport.clock import Clock
from smoothing_proxy.transport.retry import POLL_S, nap
from smoothing_proxy.transport.settings import TransportSettings

__all__ = ["Circuit"]


class Circuit:
    """One per run and account, shared by all its requests.

    A failure is an unreachable vendor, an internal error or a timeout. Any answer, a refusal too, is a sign of
    life; a throttle is neither, but counts as no answer for giving up. An answer in another format is none either:
    somebody else may have given it, and since each one is charged, circuit_failures of them in a row are enough.
    """

    def __init__(self, settings: TransportSettings, backend: str, clock: Clock, rng: random.Random) -> None:
        self._settings = settings
        self._backend = backend
        self._clock = clock
        self._rng = rng
        self._turn = asyncio.Lock()
        self._in_a_row = 0
        self._open_until: float | None = None
        self._pause_s = settings.circuit_pause_s
        self._probing = False
        self._silent_since: float | None = None
        self._tried_at = 0.0
        self._malformed = 0
        self._reason = ""

    @property
    def is_open(self) -> bool:
        """Whether nobody may send, but for a probe."""
        return self._open_until is not None

    async def ready(self, stopped: Callable[[], bool]) -> bool:
        """Wait until one may send, first come first served; early when stopped.

        Returns whether this send is the probe. Whoever is it must call `leave` when it is over.
        """
        if self._open_until is None:
            return False
        async with self._turn:
            while self._open_until is not None and not stopped():
                left = self._open_until - self._clock.now()
                if left <= 0 and not self._probing:
                    self._probing = True
                    return True
                await nap(self._clock, POLL_S if self._probing else left, self._disturbed(stopped))
        return False

    def leave(self) -> None:
        """The probe is over, also where it never left."""
        self._probing = False

    def answered(self) -> None:
        """The vendor is alive."""
        self._in_a_row = 0
        self._open_until = None
        self._pause_s = self._settings.circuit_pause_s
        self._silent_since = None
        self._malformed = 0

    def failed(self, *, probe: bool, reason: str = "") -> None:
        """One more failed send. While open only the probe's counts: the others left before. reason: in words."""
        self.throttled(reason=reason)
        self._in_a_row += 1
        if self._open_until is None:
            if self._in_a_row >= self._settings.circuit_failures:
                self._open()
        elif probe:
            self._open_longer()

    def malformed(self, *, probe: bool, reason: str = "") -> None:
        """One more answer that is not in the vendor's format. reason: what it is, in words."""
        self.throttled(reason=reason)
        self._malformed += 1
        if self._open_until is not None and probe:
            self._open_longer()

    def throttled(self, *, reason: str = "") -> None:
        """A send that was no failure and no answer. reason: in words."""
        self._reason = reason
        now = self._clock.now()
        # Trouble long past, with nobody asking since, says nothing about now.
        if self._silent_since is None or now - self._tried_at > self._settings.give_up_after_s:
            self._silent_since = now
        self._tried_at = now

    def given_up(self) -> BackendDownError | None:
        """The error to stop with, once there has been no answer for too long, or too many that are none."""
        if self._malformed >= self._settings.circuit_failures:
            return BackendDownError(
                f"{self._backend}: {self._malformed} answers in a row are not in its format, as of a proxy or a "
                f"login page in between{self._last()}; each is charged as maybe billed: check the address and the "
                "network, then resume",
                backend=self._backend,
            )
        if self._silent_since is None:
            return None
        silent_s = self._clock.now() - self._silent_since
        if silent_s < self._settings.give_up_after_s:
            return None
        return BackendDownError(
            f"{self._backend}: no answer for {silent_s:.0f} s (transport.give_up_after_s is "
            f"{self._settings.give_up_after_s:g}){self._last()}; what is settled is kept: resume when it is back",
            backend=self._backend,
        )

    def _last(self) -> str:
        return f"; the last time: {self._reason}" if self._reason else ""

    def _open_longer(self) -> None:
        self._pause_s = min(2 * self._pause_s, self._settings.circuit_pause_max_s)
        self._open()

    def _open(self) -> None:
        # Jittered, so that several replicas do not probe in step.
        self._open_until = self._clock.now() + self._pause_s * self._rng.uniform(0.5, 1.0)

    def _disturbed(self, stopped: Callable[[], bool]) -> Callable[[], bool]:
        return lambda: self._open_until is None or stopped()
