"""The gateway store's nouns: keys and their terms, money, requests. Frozen, without I/O."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, TypeAlias, get_args

from smoothing_proxy.errors import ConfigError, LedgerError
from smoothing_proxy.smoothing.observe import Recalled
from smoothing_proxy.types import Reply

__all__ = [
    "SCHEMES",
    "Begun",
    "Budget",
    "Finished",
    "Fresh",
    "KeyTerms",
    "OutageError",
    "Period",
    "Recovered",
    "RequestConflictError",
    "RequestPicture",
    "Reservation",
    "Running",
    "Scheme",
    "Spend",
    "StoreSettings",
    "VirtualKey",
]

Period: TypeAlias = Literal["day", "month", "total"]
"""What a budget is for: a day or a month of UTC, or all time."""

Scheme: TypeAlias = Literal["sigv4", "token"]
"""How a key proves itself: by a signature, for which its secret must be known here, or by showing the secret."""

SCHEMES: Mapping[str, Scheme] = MappingProxyType(
    {
        "aws": "sigv4",
        "google": "token",
        "azure": "token",
        "clarifai": "token",
        "openai": "token",
        "native": "token",
    }
)
"""Whose wire formats keys are for, and how such a key proves itself. native: the gateway's own."""


def _check_at_least(noun: object, name: str, least: int) -> None:
    value = getattr(noun, name)
    if value is not None and not (least <= value < math.inf):
        raise ConfigError(f"{name}: expected a number from {least} on, got {value}")


class OutageError(LedgerError):
    """The database is away or does not answer. What was asked for may have been done, and may be tried again."""


class RequestConflictError(LedgerError):
    """An idempotency id came again with another question: the client's fault, and no request was made of it."""


@dataclass(frozen=True, slots=True)
class Budget:
    """The most that may be spent in each period. None for any amount; the smaller limit counts.

    calls_limit: queries to the classifier behind, >= 0. usd_limit: dollars for them, >= 0.
    """

    calls_limit: int | None = None
    usd_limit: float | None = None
    period: Period = "month"

    def __post_init__(self) -> None:
        _check_at_least(self, "calls_limit", 0)
        _check_at_least(self, "usd_limit", 0)
        if self.period not in get_args(Period):
            raise ConfigError(f"period: expected one of {', '.join(get_args(Period))}, got {self.period!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyTerms(Budget):
    """What a key may do, apart from its budget: None for any number.

    requests_per_minute, parallel: pictures or batches of them as a client sends them, >= 1.
    certify: answers come with a certificate, whatever is asked for. target_radius: of these, l2, > 0; None proves
    as much as the gateway's own settings ask for. passthrough: whether what cannot be hardened goes to the vendor
    as it is; None leaves that to the gateway.
    """

    requests_per_minute: int | None = None
    parallel: int | None = None
    certify: bool = False
    target_radius: float | None = None
    passthrough: bool | None = None

    def __post_init__(self) -> None:
        Budget.__post_init__(self)
        _check_at_least(self, "requests_per_minute", 1)
        _check_at_least(self, "parallel", 1)
        radius = self.target_radius
        if radius is not None and not (0 < radius < math.inf):
            raise ConfigError(f"target_radius: expected a number above 0, got {radius}")


@dataclass(frozen=True, slots=True, kw_only=True)
class VirtualKey(KeyTerms):
    """A customer's key; its secret is elsewhere. id: public, what SigV4 calls the access key id.

    vendor: whose wire format it may speak, one of SCHEMES. created_at: unix seconds.
    """

    id: str
    name: str
    vendor: str
    scheme: Scheme
    disabled: bool
    created_at: float


@dataclass(frozen=True, slots=True)
class Reservation:
    """Queries that one request may spend. price_usd: of each."""

    id: str
    key_id: str
    queries: int
    price_usd: float


@dataclass(frozen=True, slots=True)
class Spend:
    """What was spent in a period, a request counting for the day on which it was let in.

    calls: answered. unknown: sends whose outcome is not known, in flight ones included; they are charged.
    usd: for both. held: queries that are reserved beyond that, so that nobody else may spend them.
    """

    calls: int = 0
    unknown: int = 0
    usd: float = 0.0
    held: int = 0


@dataclass(frozen=True, slots=True)
class Fresh:
    """The caller is to do the work. attempt: 1, or more where earlier ones failed or died."""

    request_id: str
    attempt: int = 1


@dataclass(frozen=True, slots=True)
class Running:
    """A replica is at it: ask again in a moment."""

    request_id: str
    replica: str


@dataclass(frozen=True, slots=True)
class Finished:
    """It was done before: what was answered then."""

    request_id: str
    verdict: str


Begun: TypeAlias = Fresh | Running | Finished


@dataclass(frozen=True, slots=True)
class RequestPicture:
    """A picture of a request as an earlier attempt has left it: nothing is recalled the first time.

    entropy: 16 bytes, that its noise comes from. replies: of the answered draws by number, labels in the
    classifier's own order with name, confidence and id.
    """

    entropy: bytes = field(repr=False)
    recalled: Recalled
    replies: Mapping[int, Reply] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Recovered:
    """What dead replicas left behind. unknown: their sends whose outcome never came, now charged."""

    replicas: int = 0
    requests: int = 0
    reservations: int = 0
    unknown: int = 0


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """What the replicas of one gateway have in common; give every one of them the same.

    overall: the gateway's own budget, above those of its keys.
    lease_s: a replica that was not heard of for so long is dead; far more than its clocks differ.
    replay_s: for how long a request that comes again gets the answer of before, or goes on with paid draws.
    cache_s: for how long a verdict answers another request with the same picture; 0 for never.
    cache_shared: between keys too. It tells one customer, by the time it takes, what others have asked.
    keep_s: for how long requests and their draws are kept at all.
    timeout_s: a database that does not answer for so long is away, for the one who asked.
    """

    overall: Budget = Budget()
    lease_s: float = 60.0
    replay_s: float = 86_400.0
    cache_s: float = 0.0
    cache_shared: bool = False
    keep_s: float = 30 * 86_400.0
    timeout_s: float = 10.0

    def __post_init__(self) -> None:
        for name in ("lease_s", "timeout_s"):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(f"{name}: expected a number above 0, got {getattr(self, name)}")
        for name in ("replay_s", "cache_s", "keep_s"):
            _check_at_least(self, name, 0)
        if self.keep_s < self.replay_s:
            raise ConfigError(f"keep_s: expected at least replay_s = {self.replay_s}, got {self.keep_s}")
