"""What one send's replies say about the vendor's health and limit."""

from __future__ import annotations

from collections.abc import Sequence

from smoothing_proxy.errors import (
    BackendError,
    BackendTimeoutError,
    BackendUnavailableError,
    MalformedReplyError,
    RateLimitedError,
)
from smoothing_proxy.transport.circuit import Circuit
from smoothing_proxy.transport.rate import RateLimiter, Ticket

__all__ = ["has_failures", "learn"]


def learn(
    replies: Sequence[object], ticket: Ticket, circuit: Circuit, limiter: RateLimiter, *, probe: bool
) -> None:
    """Tell the circuit and the rate. What was refused here, before it was sent (attempts 0), says nothing."""
    if not has_failures(replies):
        circuit.answered()
        limiter.answered(ticket)
        return
    replies = [reply for reply in replies if not (isinstance(reply, BackendError) and reply.attempts == 0)]
    throttles = [reply for reply in replies if isinstance(reply, RateLimitedError)]
    failures = [x for x in replies if isinstance(x, BackendTimeoutError | BackendUnavailableError)]
    malformed = [reply for reply in replies if isinstance(reply, MalformedReplyError)]
    if throttles:
        limiter.throttled(ticket, max(x.retry_after or 0.0 for x in throttles))
    if len(throttles) + len(failures) + len(malformed) < len(replies):
        circuit.answered()
        limiter.answered(ticket)  # which a throttle beside it makes void
    elif malformed:
        circuit.malformed(probe=probe, reason=str(malformed[0]))
    elif failures:
        circuit.failed(probe=probe, reason=str(failures[0]))
    elif throttles:
        circuit.throttled(reason=str(throttles[0]))


def has_failures(replies: Sequence[object]) -> bool:
    """Whether any of them is one."""
    return any(isinstance(reply, BackendError) for reply in replies)
