"""A request as the gateway takes it on, whatever format it came in."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from smoothing_proxy.gateway.engine import Kind
from smoothing_proxy.gateway.ports import Caller
from smoothing_proxy.gateway.settings import Abstain
from smoothing_proxy.smoothing.settings import PerLabel, Smoothing
from smoothing_proxy.wire.base import Place

__all__ = ["Inquiry", "Wish", "sha256_of"]


@dataclass(frozen=True, slots=True)
class Wish:
    """How a request is to be answered. per_label: what is to be proven about each label, None for nothing."""

    kind: Kind
    smoothing: Smoothing
    abstain: Abstain
    per_label: PerLabel | None = None


@dataclass(frozen=True, slots=True)
class Inquiry:
    """A request as the gateway takes it on. name: what the client calls it when it sends it again, or "".

    digest: of the whole request as it was asked, in hex. places: by number, where those pictures are that are
    still to be fetched, and b"" among `images`. fetched: whether some have been.
    """

    caller: Caller
    images: tuple[bytes, ...]
    wish: Wish
    digest: str
    name: str = ""
    places: Mapping[int, Place] = field(default_factory=dict)
    fetched: bool = False

    @property
    def ticket(self) -> str:
        """The same for the same request, sent again."""
        return sha256_of(self.name, self.digest, _text_of(self.wish))

    def number(self, sha256: str, sha256s: Sequence[str]) -> int:
        """A picture's number in the request, the same in each attempt; sha256s: of all its pictures.

        What was fetched may be another picture in the next attempt, and takes no part in this one's draws then.
        """
        return int(sha256[:7], 16) if self.fetched else sha256s.index(sha256)


@lru_cache(maxsize=1_024)
def _text_of(wish: Wish) -> str:
    return repr(wish)


def sha256_of(*parts: str) -> str:
    """One digest of several texts, in hex."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
