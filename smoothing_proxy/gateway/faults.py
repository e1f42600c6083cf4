"""Every error of the house as a vendor's kind of fault, looked up along its ancestors."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from smoothing_proxy.errors import (
    AuthenticationError,
    BackendDownError,
    BackendError,
    BackendTimeoutError,
    BackendUnavailableError,
    BudgetExceededError,
    ConfigError,
    DenoiserError,
    ImageError,
    LedgerError,
    MalformedReplyError,
    ModelChangedError,
    QuotaExceededError,
    RateLimitedError,
    RequestRejectedError,
    SmoothingProxyError,
)
from smoothing_proxy.smoothing.halt import Interrupted
from smoothing_proxy.wire.base import Fault, RequestFault

__all__ = ["FAULTS", "fault_of", "told"]

_logger = logging.getLogger(__name__)

_BEHIND = "the classifier behind this gateway"

FAULTS: Mapping[type[Exception], tuple[Fault, str]] = {
    ImageError: (Fault.BAD_IMAGE, ""),
    BudgetExceededError: (Fault.QUOTA, ""),
    RequestRejectedError: (Fault.BAD_IMAGE, f"{_BEHIND} refuses this picture"),
    BackendTimeoutError: (Fault.TIMEOUT, f"{_BEHIND} does not answer in time"),
    BackendUnavailableError: (Fault.UNAVAILABLE, f"{_BEHIND} is not available"),
    BackendDownError: (Fault.UNAVAILABLE, f"{_BEHIND} has not been available for long"),
    RateLimitedError: (Fault.UNAVAILABLE, f"{_BEHIND} asks for fewer requests"),
    QuotaExceededError: (Fault.QUOTA, f"the quota of {_BEHIND} is used up"),
    AuthenticationError: (Fault.INTERNAL, f"{_BEHIND} refuses this gateway's credentials"),
    MalformedReplyError: (Fault.INTERNAL, f"{_BEHIND} answers in no known format"),
    ModelChangedError: (Fault.INTERNAL, f"{_BEHIND} changed while it was asked"),
    BackendError: (Fault.INTERNAL, f"{_BEHIND} failed"),
    DenoiserError: (Fault.INTERNAL, "this gateway's denoiser cannot be used"),
    ConfigError: (Fault.INTERNAL, "this gateway is not configured for it"),
    LedgerError: (Fault.UNAVAILABLE, "this gateway's records cannot be written"),
    SmoothingProxyError: (Fault.INTERNAL, "internal error"),
    Interrupted: (Fault.UNAVAILABLE, "this gateway is being stopped"),
}
"""Kind, and what the client is told; "" is the error's own message, about what the client sent or may spend."""


def fault_of(error: Exception) -> RequestFault:
    """What the client is told; a RequestFault is one already, and what is in no table is an internal error."""
    if isinstance(error, RequestFault):
        return error
    kinds = (FAULTS[kind] for kind in type(error).__mro__ if kind in FAULTS)
    fault, message = next(kinds, (Fault.INTERNAL, "internal error"))
    retry_after = getattr(error, "retry_after", None) if fault is Fault.UNAVAILABLE else None
    return RequestFault(fault, message or str(error), retry_after_s=retry_after)


def told(error: Exception) -> RequestFault:
    """The fault that the client is told; what is no client's fault is logged with all that is known of it."""
    fault = fault_of(error)
    ours = fault.fault in (Fault.INTERNAL, Fault.UNAVAILABLE) and not isinstance(error, RequestFault | Interrupted)
    if ours:
        _logger.error("%s: %s", type(error).__name__, error, exc_info=error)
    return fault
