"""A store of one process: whole in its meaning, gone with the process."""

from __future__ import annotations

import hmac
import math
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

from smoothing_proxy.errors import BudgetExceededError, ModelChangedError
from smoothing_proxy.gateway.ports import Begun, Caller, Recollection, Reservation
from smoothing_proxy.gateway.settings import VENDORS
from smoothing_proxy.smoothing.observe import Outcome, Recalled
from smoothing_proxy.transport.clock import Clock, SystemClock
from smoothing_proxy.types import Cost
from smoothing_proxy.wire.base import Fault, RequestFault

__all__ = ["MemoryKey", "MemoryStore"]

V = TypeVar("V")

ABOUT_ONE = 20
"""Verdicts on the same picture of the same key, under other settings or after the older one was forgotten."""


@dataclass(frozen=True, slots=True)
class MemoryKey:
    """A virtual key with its secret. vendors: whose formats it may use. limit_queries: None for any number."""

    caller: Caller
    secret: str = field(repr=False)
    vendors: tuple[str, ...] = VENDORS
    limit_queries: int | None = None


class MemoryStore:
    """Implements Store. keys: read when it is made, and whenever it is reloaded.

    replay_s: for how long a request that is sent again gets its answer. cache_s: for how long a verdict answers
    other requests about the same picture. most: answers and verdicts that are kept. most_bytes: of the answers.
    """

    def __init__(
        self,
        keys: Callable[[], Iterable[MemoryKey]],
        *,
        replay_s: float = 3_600.0,
        cache_s: float = 86_400.0,
        clock: Clock | None = None,
        most: int = 10_000,
        most_bytes: int = 2**27,
    ) -> None:
        clock = clock or SystemClock()
        self._read = keys
        self._keys = {key.caller.id: key for key in keys()}
        self._spent: dict[str, int] = {}
        self._promised: dict[str, Reservation] = {}
        self._replay_s, self._cache_s = replay_s, cache_s
        self._requests: _Aging[_Request] = _Aging(clock, most, most_bytes)
        self._by_id: _Aging[_Request] = _Aging(clock, most, most_bytes)
        self._cache: _Aging[str] = _Aging(clock, most)
        self._verdicts: _Aging[str] = _Aging(clock, most)
        self._about: _Aging[tuple[str, ...]] = _Aging(clock, most)

    async def key(self, vendor: str, presented_id: str) -> Caller | None:
        """See Store."""
        key = self._keys.get(presented_id)
        return key.caller if key is not None and vendor in key.vendors else None

    async def secret_of(self, caller: Caller) -> str:
        """See Store."""
        key = self._keys.get(caller.id)
        if key is None:
            raise RequestFault(Fault.UNAUTHENTICATED, "The security token included in the request is invalid.")
        return key.secret

    async def check_token(self, vendor: str, token: str) -> Caller | None:
        """See Store. The token is the secret itself."""
        given = token.encode(errors="surrogateescape")
        found = [key for key in self._keys.values() if hmac.compare_digest(given, key.secret.encode())]
        return found[0].caller if found and vendor in found[0].vendors else None

    def admitted(self, caller: Caller, *, joins: bool = False) -> AbstractContextManager[None]:
        """See Store. These keys have no limit of requests."""
        return nullcontext()

    def spent(self, caller: str) -> int:
        """Queries charged so far, unknown ones included."""
        return self._spent.get(caller, 0)

    async def reserve(self, caller: str, queries: int, price_usd: float) -> Reservation:
        """See Store."""
        self._check_room(caller, queries)
        reservation = Reservation(uuid.uuid4().hex, caller, queries, price_usd)
        self._promised[reservation.id] = reservation
        return reservation

    async def settle(self, reservation: Reservation, cost: Cost) -> None:
        """See Store."""
        if self._promised.pop(reservation.id, None) is not None:
            self._spent[reservation.caller] = self.spent(reservation.caller) + cost.queries + cost.unknown

    async def pass_on(self, reservation: Reservation, operation: str) -> None:
        """See Store. Only what it comes to is counted."""

    def extend(self, reservation: Reservation, queries: int) -> None:
        """Promise more to a request whose sends came to nothing. Raises BudgetExceededError."""
        self._check_room(reservation.caller, queries)
        now = self._promised[reservation.id]
        self._promised[reservation.id] = replace(now, queries=now.queries + queries)

    def journal(self, request_id: str, reservation: Reservation) -> _MemoryJournal:
        """See Store."""
        return _MemoryJournal(self, self._request(request_id), reservation)

    async def begin(self, caller: str, name: str | None, body_sha256: str, settings_sha256: str) -> Begun:
        """See Store."""
        identity = (caller, name, "" if name else body_sha256, "" if name else settings_sha256)
        request = self._requests.get(identity)
        if request is not None and not request.is_about(body_sha256, settings_sha256):
            raise RequestFault(Fault.BAD_REQUEST, "this request's id was used before, for another request")
        if request is not None and request.body != (body_sha256, settings_sha256):
            request = None  # it failed, and what is asked now is asked in another way
        if request is not None and request.document is not None:
            return Begun("finished", request.id, request.document)
        if request is not None and request.running:
            return Begun("running", request.id)
        request = request or _Request(identity, (body_sha256, settings_sha256))
        request.running = True
        self._keep(request, math.inf)
        return Begun("new", request.id)

    async def picture(self, request_id: str, number: int, sha256: str, entropy: bytes) -> Recollection:
        """See Store."""
        pictures = self._request(request_id).pictures
        if number not in pictures or pictures[number].sha256 != sha256:
            pictures[number] = _Drawn(entropy, sha256)
        return pictures[number].recollection

    async def finish(self, request_id: str, document: str, cost: Cost) -> None:
        """See Store."""
        request = self._request(request_id)
        request.running, request.document = False, document
        request.pictures.clear()
        self._keep(request, self._replay_s)

    async def fail(self, request_id: str, error: Exception) -> None:
        """See Store. After a ModelChangedError it starts from nothing."""
        request = self._request(request_id)
        request.running = False
        if isinstance(error, ModelChangedError):
            request.pictures.clear()
        self._keep(request, self._replay_s)

    async def remember(
        self, caller: str, picture_sha256: str, settings_sha256: str, document: str, *, verdict_id: str
    ) -> None:
        """See Store."""
        self._verdicts.put((caller, verdict_id), document, math.inf)
        known = self._about.get((caller, picture_sha256)) or ()
        self._about.put((caller, picture_sha256), (document, *known)[:ABOUT_ONE], math.inf)
        self._cache.put((caller, picture_sha256, settings_sha256), document, self._cache_s)

    async def cached(self, caller: str, picture_sha256: str, settings_sha256: str) -> str | None:
        """See Store."""
        return self._cache.get((caller, picture_sha256, settings_sha256))

    async def verdict(self, verdict_id: str, caller: str) -> str | None:
        """See Store."""
        return self._verdicts.get((caller, verdict_id))

    async def verdicts(self, picture_sha256: str, caller: str, most: int) -> Sequence[str]:
        """See Store. Of each picture only the latest ABOUT_ONE are known."""
        return (self._about.get((caller, picture_sha256)) or ())[:most]

    async def has_room(self, queries: int, price_usd: float) -> bool:
        """See Store. There is no budget but the keys' own."""
        return True

    async def check(self) -> None:
        """See Store."""

    async def tend(self) -> None:
        """See Store. What is too old is forgotten when it is looked for."""

    async def reload(self) -> bool:
        """See Store."""
        self._keys = {key.caller.id: key for key in self._read()}
        return True

    def _keep(self, request: _Request, ttl_s: float) -> None:
        size = len(request.document or "")
        self._requests.put(request.identity, request, ttl_s, size)
        self._by_id.put((request.id,), request, ttl_s, size)

    def _request(self, request_id: str) -> _Request:
        request = self._by_id.get((request_id,))
        return request or _Request(("", None, "", ""), ("", ""))  # of too many, an old one may be gone

    def _check_room(self, caller: str, queries: int) -> None:
        key = self._keys.get(caller)
        limit = None if key is None else key.limit_queries
        promised = sum(one.queries for one in self._promised.values() if one.caller == caller)
        taken = self.spent(caller) + promised
        if limit is not None and taken + queries > limit:
            raise BudgetExceededError(
                f"the key's budget is {limit:,} queries; {taken:,} are spent or promised, and this request may "
                f"need {queries:,}",
                spent=taken,
                limit=limit,
            )


@dataclass
class _Drawn:
    """A picture of a request: its entropy, and the draws that have settled."""

    entropy: bytes
    sha256: str
    outcomes: dict[int, Outcome] = field(default_factory=dict)

    @property
    def recollection(self) -> Recollection:
        votes = {number: outcome.label for number, outcome in self.outcomes.items()}
        replies = {number: outcome.reply for number, outcome in self.outcomes.items() if outcome.reply}
        versions = frozenset(reply.model_version for reply in replies.values() if reply.model_version)
        return Recollection(self.entropy, Recalled(votes, model_versions=versions), replies)


@dataclass
class _Request:
    """identity: by which it is found again. body: digests of what was sent, and of the settings."""

    identity: tuple[str, str | None, str, str]
    body: tuple[str, str]
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    running: bool = False
    document: str | None = None
    pictures: dict[int, _Drawn] = field(default_factory=dict)

    def is_about(self, body_sha256: str, settings_sha256: str) -> bool:
        """Whether it may be asked so: one that failed, with other settings too."""
        failed = not self.running and self.document is None
        return self.body == (body_sha256, settings_sha256) or (failed and self.body[0] == body_sha256)


class _MemoryJournal:
    """Remembers a request's draws, and counts its sends: what goes beyond the promise has to be promised first."""

    def __init__(self, store: MemoryStore, request: _Request, reservation: Reservation) -> None:
        self._store = store
        self._request = request
        self._reservation = reservation
        self._left = reservation.queries

    async def sent(self, picture: int, draws: Sequence[int]) -> None:
        """See Journal."""
        missing = len(draws) - self._left
        if missing > 0:
            self._store.extend(self._reservation, missing)
            self._left += missing
        self._left -= len(draws)

    async def settled(self, picture: int, outcomes: Sequence[Outcome]) -> None:
        """See Journal."""
        drawn = self._request.pictures.get(picture)
        if drawn is not None:
            drawn.outcomes |= {outcome.draw: outcome for outcome in outcomes}
        self._left += sum(1 for outcome in outcomes if outcome.cost == Cost())

    async def withdrawn(self, picture: int, draws: Sequence[int], *, maybe_billed: bool = False) -> None:
        """See Journal."""
        self._left += 0 if maybe_billed else len(draws)


class _Aging(Generic[V]):
    """Values that last for their own time; of too many or too large ones, those that were put first go first."""

    def __init__(self, clock: Clock, most: int, most_bytes: float = math.inf) -> None:
        self._clock = clock
        self._most, self._most_bytes = most, most_bytes
        self._bytes = 0
        self._values: OrderedDict[tuple[str | None, ...], tuple[float, V, int]] = OrderedDict()

    def put(self, key: tuple[str | None, ...], value: V, ttl_s: float, size: int = 0) -> None:
        self._drop(key)
        self._values[key] = (self._clock.now() + ttl_s, value, size)
        self._bytes += size
        while len(self._values) > self._most or self._bytes > self._most_bytes:
            self._drop(next(iter(self._values)))

    def get(self, key: tuple[str | None, ...]) -> V | None:
        until, value, _ = self._values.get(key, (-math.inf, None, 0))
        if self._clock.now() < until:
            return value
        self._drop(key)
        return None

    def _drop(self, key: tuple[str | None, ...]) -> None:
        _, _, size = self._values.pop(key, (0.0, None, 0))
        self._bytes -= size
