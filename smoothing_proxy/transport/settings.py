"""How patiently, how fast and how long a vendor is asked: every number of this floor."""

from __future__ import annotations

from pydantic import Field, model_validator

from smoothing_proxy.settings_file import Settings

__all__ = ["TransportSettings"]


class TransportSettings(Settings):
    """The defaults suit a paid vendor: a lost vote weakens the proof, a second bill costs money, waiting is cheap.

    Speed. requests_per_s: what the account and region may ask, counted as the vendor counts: in pictures. None
    finds it: from start_per_s on, doubling until the first throttle. min_per_s: slower than this it never gets.
    burst_s: what was left unused for so many seconds may be caught up with at once.

    Patience with one picture. attempts: failed sends (unreachable, internal error, timeout) after which it has
    failed for good; deadline_s: the same in seconds spent in these sends and in backing off between them, where
    waiting for its turn does not count. resends_after_unknown: how often it is sent again after a send that
    may have been billed. throttle_attempts: throttled sends after which it has failed for good; large, since a
    throttle costs nothing and says nothing about the picture, and finite, since some vendors throttle for ever
    what is too large for the account. What costs nothing and fails while the circuit is open counts as one.

    Backing off. Before send k + 1 a uniform random part of min(backoff_max_s, backoff_base_s * 2^(k-1)), on top
    of what the vendor asked for; of that, retry_after_max_s is believed.

    Outages. circuit_failures: failed sends in a row, of whatever pictures, after which nobody sends for
    circuit_pause_s; then one send probes, and while probes fail the pause doubles up to circuit_pause_max_s.
    give_up_after_s: without any answer for so long (throttled ones are none), the run is stopped, to be resumed.
    So it is after circuit_failures answers in a row that are not in the vendor's format: each may be billed.
    """

    requests_per_s: float | None = Field(default=None, gt=0, le=100_000)
    start_per_s: float = Field(default=5.0, gt=0, le=100_000)
    min_per_s: float = Field(default=0.1, gt=0, le=1_000)
    burst_s: float = Field(default=0.1, ge=0, le=60)

    attempts: int = Field(default=6, ge=1, le=100)
    deadline_s: float = Field(default=300.0, gt=0, le=86_400)
    resends_after_unknown: int = Field(default=1, ge=0, le=10)
    throttle_attempts: int = Field(default=100, ge=1, le=10_000)

    backoff_base_s: float = Field(default=0.5, gt=0, le=60)
    backoff_max_s: float = Field(default=30.0, gt=0, le=3_600)
    retry_after_max_s: float = Field(default=300.0, ge=0, le=86_400)

    circuit_failures: int = Field(default=20, ge=1, le=10_000)
    circuit_pause_s: float = Field(default=5.0, gt=0, le=3_600)
    circuit_pause_max_s: float = Field(default=60.0, gt=0, le=3_600)
    give_up_after_s: float = Field(default=900.0, gt=0, le=604_800)

    @model_validator(mode="after")
    def _in_order(self) -> TransportSettings:
        for low, high in (
            ("min_per_s", "start_per_s"),
            ("min_per_s", "requests_per_s"),
            ("backoff_base_s", "backoff_max_s"),
            ("circuit_pause_s", "circuit_pause_max_s"),
            ("circuit_pause_max_s", "give_up_after_s"),
        ):
            smaller, larger = getattr(self, low), getattr(self, high)
            if larger is not None and smaller > larger:
                raise ValueError(f"{low} is {smaller:g}: expected at most {high}, which is {larger:g}")
        return self
