"""The dice of a simulated vendor: which fault meets which request, all from one seeded generator."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from smoothing_proxy.simulator.faults import Fate, Faults
from smoothing_proxy.transport.clock import Clock
from smoothing_proxy.types import Reply, ScoredLabel
from smoothing_proxy.wire.base import Fault, HttpReply, RequestFault

__all__ = ["Chance", "Turn"]


@dataclass(frozen=True, slots=True)
class Turn:
    """One request's lot. number: from 1, since the faults were switched on. faults: as they were then."""

    number: int
    fate: Fate
    faults: Faults

    @property
    def model_version(self) -> str:
        """What the replies to this request state; "" for the backend's own."""
        changes = self.faults.model_changes_after
        changed = changes is not None and self.number > changes
        return self.faults.next_model_version if changed else self.faults.model_version


class Chance:
    """Decides, request by request, in the order in which they arrive. rng: the only source of chance."""

    def __init__(self, faults: Faults, rng: random.Random, clock: Clock) -> None:
        self._rng = rng
        self._clock = clock
        self.switch(faults)

    def switch(self, faults: Faults) -> None:
        """Other faults from the next request on; every count begins anew."""
        self.faults = faults
        self._fates = tuple((fate, rate) for fate, rate in faults.rates().items() if rate > 0.0)
        self._requests = 0
        self._pictures = 0
        self._tokens = float(faults.burst)
        self._filled = self._clock.now()

    def turn(self) -> Turn:
        """The lot of the next request."""
        self._requests += 1
        return Turn(self._requests, self._fate(), self.faults)

    def admit(self, turn: Turn, pictures: int) -> None:
        """Raises RequestFault where no key is good any more, the quota is used up, or requests come too fast."""
        faults = turn.faults
        if faults.bad_auth_after is not None and turn.number > faults.bad_auth_after:
            raise RequestFault(Fault.UNAUTHENTICATED, "the key was withdrawn")
        if turn.fate is Fate.THROTTLED or not self._take_token(faults):
            raise RequestFault(Fault.THROTTLED, "too many requests", retry_after_s=faults.retry_after_s)
        if turn.fate is Fate.UNAVAILABLE:
            raise RequestFault(Fault.UNAVAILABLE, "the service is down for a moment")
        if faults.quota_pictures is not None and self._pictures + pictures > faults.quota_pictures:
            raise RequestFault(Fault.QUOTA, "the quota is used up")
        self._pictures += pictures

    def error_is_billed(self, turn: Turn) -> bool:
        """Whether this error costs as much as an answer."""
        return self._happens(turn.faults.error_billed)

    def picture_fails(self, turn: Turn) -> bool:
        """Whether one picture of the request meets an error of its own."""
        return self._happens(turn.faults.picture_internal)

    def latency_s(self, turn: Turn, replies: list[Reply]) -> float:
        """How long the answer takes: that of the slowest label, for several pictures."""
        faults = turn.faults
        seconds = faults.latency_s
        if faults.latency_spread_s:
            seconds += self._rng.uniform(0.0, faults.latency_spread_s)
        if faults.latency_median_s:
            seconds += self._rng.lognormvariate(math.log(faults.latency_median_s), faults.latency_sigma)
        if faults.latency_by_label_s:
            best = (max(reply.labels, key=_confidence).name for reply in replies if reply.labels)
            seconds += max((faults.latency_by_label_s.get(name, 0.0) for name in best), default=0.0)
        return seconds

    def spoiled(self, turn: Turn, reply: HttpReply) -> HttpReply:
        """The reply as the request's fate makes it: blank, malformed, or as it is."""
        if turn.fate is Fate.BLANK:
            return replace(reply, body=b"")
        if turn.fate is Fate.MALFORMED:
            return replace(reply, body=self._rng.choice(_SPOILERS)(reply.body))
        return reply

    def _fate(self) -> Fate:
        if not self._fates:
            return Fate.ANSWERED
        point = self._rng.random()
        for fate, rate in self._fates:
            if point < rate:
                return fate
            point -= rate
        return Fate.ANSWERED

    def _take_token(self, faults: Faults) -> bool:
        if faults.requests_per_s is None:
            return True
        now = self._clock.now()
        self._tokens = min(faults.burst, self._tokens + (now - self._filled) * faults.requests_per_s)
        self._filled = now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True

    def _happens(self, probability: float) -> bool:
        return probability > 0.0 and self._rng.random() < probability


def _confidence(label: ScoredLabel) -> float:
    return label.confidence


def _not_json(_: bytes) -> bytes:
    return b"<html><body>Bad gateway</body></html>"


def _half(body: bytes) -> bytes:
    return body[: len(body) // 2]


def _wrong_types(body: bytes) -> bytes:
    """The same keys, with a number where a list or a text belongs."""
    return json.dumps(_numbers(json.loads(body))).encode()


def _numbers(value: Any) -> Any:
    return {key: _numbers(inner) for key, inner in value.items()} if isinstance(value, dict) else 7


_SPOILERS: tuple[Callable[[bytes], bytes], ...] = (_not_json, _half, _wrong_types)
