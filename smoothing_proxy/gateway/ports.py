"""What the gateway needs from its store: who may ask, what it may spend, and what was answered before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Literal, Protocol

from smoothing_proxy.gateway.settings import Abstain
from smoothing_proxy.smoothing.observe import Journal, Recalled
from smoothing_proxy.types import Cost, Reply

__all__ = ["Begun", "Caller", "Recollection", "Reservation", "Store"]


@dataclass(frozen=True, slots=True)
class Caller:
    """A virtual key. certify: its answers come with a certificate, whatever it asks for. target_radius: of these;
    None proves what the gateway's own settings ask for. abstain, passthrough: None takes the gateway's own.
    """

    id: str
    certify: bool = False
    target_radius: float | None = None
    abstain: Abstain | None = None
    passthrough: bool | None = None


@dataclass(frozen=True, slots=True)
class Reservation:
    """Queries that a key has promised to one request. caller: the key's id. price_usd: of each."""

    id: str
    caller: str
    queries: int
    price_usd: float


@dataclass(frozen=True, slots=True)
class Begun:
    """How a request stands. new: it is ours to answer, under `request_id`. running: another process answers it.
    finished: `document` is what was answered.
    """

    state: Literal["new", "running", "finished"]
    request_id: str
    document: str = ""


@dataclass(frozen=True, slots=True)
class Recollection:
    """One picture of a request, as an earlier attempt has left it: nothing, the first time.

    entropy: 16 bytes, that its noise comes from. recalled: votes of its settled draws. replies: of those that were
    answered, by number.
    """

    entropy: bytes = field(repr=False)
    recalled: Recalled = field(default_factory=Recalled)
    replies: Mapping[int, Reply] = field(default_factory=dict)


class Store(Protocol):
    """Every method may raise LedgerError, where the store cannot be read or written.

    But what may not be lost is written once it can be: how sends and requests ended, what is given back.
    """

    async def key(self, vendor: str, presented_id: str) -> Caller | None:
        """The key with this public id, which proves nothing yet; None for one that may not use this format."""
        ...

    async def secret_of(self, caller: Caller) -> str:
        """The secret that its requests are signed with. Raises RequestFault where the key has gone meanwhile."""
        ...

    async def check_token(self, vendor: str, token: str) -> Caller | None:
        """The key that this token proves, in constant time; None for nobody's, and one of another format."""
        ...

    def admitted(self, caller: Caller, *, joins: bool = False) -> AbstractContextManager[None]:
        """One request of this key, while the context lasts. Raises RequestFault (THROTTLED) for one too many.

        joins: it waits for work that has its place already, and takes none; it is counted all the same.
        """
        ...

    async def reserve(self, caller: str, queries: int, price_usd: float) -> Reservation:
        """Promise so many queries to a request. Raises BudgetExceededError where the key has not as many left."""
        ...

    async def pass_on(self, reservation: Reservation, operation: str) -> None:
        """All that is reserved leaves now, in a request that goes to the vendor as it came.

        operation: as the vendor calls it. `settle` is told what it came to.
        """
        ...

    async def settle(self, reservation: Reservation, cost: Cost) -> None:
        """Give back what was promised and not spent. cost: what the request came to, in queries."""
        ...

    def journal(self, request_id: str, reservation: Reservation) -> Journal:
        """Where the draws of this request are written down, its pictures numbered from 0.

        Its `sent` may raise BudgetExceededError.
        """
        ...

    async def begin(self, caller: str, name: str | None, body_sha256: str, settings_sha256: str) -> Begun:
        """Take a request on, unless it is under way or answered. name: as the client calls it, if it does.

        Raises RequestFault (BAD_REQUEST) for a name that came before with another body, or with other settings
        unless it failed.
        """
        ...

    async def picture(self, request_id: str, number: int, sha256: str, entropy: bytes) -> Recollection:
        """Keep the entropy of a request's picture, or get back what an earlier attempt kept and paid for."""
        ...

    async def finish(self, request_id: str, document: str, cost: Cost) -> None:
        """What a request that was taken on is answered, from now on for a while."""
        ...

    async def fail(self, request_id: str, error: Exception) -> None:
        """A request came to nothing. The next one like it goes on with its draws."""
        ...

    async def remember(
        self, caller: str, picture_sha256: str, settings_sha256: str, document: str, *, verdict_id: str
    ) -> None:
        """Keep a verdict, and let it answer `cached` for a while."""
        ...

    async def cached(self, caller: str, picture_sha256: str, settings_sha256: str) -> str | None:
        """The latest verdict about this picture under these settings, unless it is too old."""
        ...

    async def verdict(self, verdict_id: str, caller: str) -> str | None:
        """One of this caller's verdicts; None for any other."""
        ...

    async def verdicts(self, picture_sha256: str, caller: str, most: int) -> Sequence[str]:
        """At most so many of this caller's verdicts on one picture, the newest ones first."""
        ...

    async def has_room(self, queries: int, price_usd: float) -> bool:
        """Whether the gateway's own budget, above those of its keys, has so many left apart from what is held."""
        ...

    async def check(self) -> None:
        """Raises LedgerError when the store cannot be used at present."""
        ...

    async def tend(self) -> None:
        """Keep house (leases, old rows) until it is cancelled; returns at once where there is nothing to keep."""
        ...

    async def reload(self) -> bool:
        """Read keys and limits anew, where they are in files; what has been spent stays. False: they are not."""
        ...
