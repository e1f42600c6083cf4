"""What goes wrong in a simulated vendor, and how often."""

from __future__ import annotations

import enum
from typing import Annotated

from pydantic import Field, model_validator

from smoothing_proxy.settings_file import Settings

__all__ = ["Fate", "Faults"]

Rate = Annotated[float, Field(ge=0.0, le=1.0)]
"""The share of requests, or the probability."""

Seconds = Annotated[float, Field(ge=0.0, le=86_400.0)]

Count = Annotated[int, Field(ge=0)]


class Fate(enum.StrEnum):
    """What happens to one request that is itself in order."""

    ANSWERED = "answered"
    THROTTLED = "throttled"
    UNAVAILABLE = "unavailable"
    INTERNAL = "internal error"
    TIMEOUT = "timeout"
    HANG = "hang"
    RESET_BEFORE = "reset before the body was read"
    RESET_AFTER = "reset after the body was read"
    CUT_OFF = "cut off"
    MALFORMED = "malformed"
    BLANK = "blank"
    EMPTY = "empty"


class Faults(Settings):
    """Faults of a vendor; without arguments there are none. Counts begin when the faults are switched on.

    The rates of requests exclude each other, so that they add up to at most 1:
    throttle: told to slow down. unavailable: 503. internal: 500. timeout: 504.
    hang: never answered, until the client leaves. reset_before, reset_after: the connection is reset before the
    body was read, or once the work is done. cut_off: the reply ends in its middle.
    malformed: no JSON, half of it, or lists where they do not belong. blank: no body. empty: no label.

    picture_internal: rate of pictures with an error of their own, where the vendor's format has a place for it.
    error_billed: probability that a 500, a 504 or a picture's own error is billed all the same.

    requests_per_s, burst: a bucket of `burst` requests that fills up again at that rate; None for no such limit.
    retry_after_s: sent with each throttle, where the vendor's format has a place for it.
    bad_auth_after: no key is good any more after so many requests. quota_pictures: the quota is used up after so
    many pictures.

    latency_s, latency_spread_s: each reply takes latency_s, and up to latency_spread_s more, uniformly.
    latency_median_s, latency_sigma: a log-normal time on top. latency_by_label_s: and that of the best label.

    model_version: stated in replies instead of the backend's own, unless "". model_changes_after: after so many
    requests it is next_model_version.
    """

    throttle: Rate = 0.0
    unavailable: Rate = 0.0
    internal: Rate = 0.0
    timeout: Rate = 0.0
    hang: Rate = 0.0
    reset_before: Rate = 0.0
    reset_after: Rate = 0.0
    cut_off: Rate = 0.0
    malformed: Rate = 0.0
    blank: Rate = 0.0
    empty: Rate = 0.0

    picture_internal: Rate = 0.0
    error_billed: Rate = 0.0

    requests_per_s: Annotated[float, Field(gt=0.0)] | None = None
    burst: Annotated[int, Field(ge=1)] = 1
    retry_after_s: Seconds | None = None
    bad_auth_after: Count | None = None
    quota_pictures: Count | None = None

    latency_s: Seconds = 0.0
    latency_spread_s: Seconds = 0.0
    latency_median_s: Seconds = 0.0
    latency_sigma: Annotated[float, Field(ge=0.0, le=5.0)] = 0.0
    latency_by_label_s: dict[str, Seconds] = Field(default_factory=dict)

    model_version: str = ""
    next_model_version: str = "next"
    model_changes_after: Count | None = None

    @model_validator(mode="after")
    def _rates_add_up(self) -> Faults:
        if sum(self.rates().values()) > 1.0 + 1e-9:
            raise ValueError(f"the rates of {', '.join(_RATES.values())} add up to more than 1")
        return self

    def rates(self) -> dict[Fate, float]:
        """The share of requests that meet each fate; the rest is answered."""
        return {fate: getattr(self, key) for fate, key in _RATES.items()}


_RATES = {
    Fate.THROTTLED: "throttle",
    Fate.UNAVAILABLE: "unavailable",
    Fate.INTERNAL: "internal",
    Fate.TIMEOUT: "timeout",
    Fate.HANG: "hang",
    Fate.RESET_BEFORE: "reset_before",
    Fate.RESET_AFTER: "reset_after",
    Fate.CUT_OFF: "cut_off",
    Fate.MALFORMED: "malformed",
    Fate.BLANK: "blank",
    Fate.EMPTY: "empty",
}
