"""Pictures that were not sent along: which of them the gateway fetches itself, so as to harden the answer.

What was fetched goes the way of what was sent. The bytes decide which verdict is known already; for a request that
its client names, name and body decide whether it is the same one, so that it is answered again without fetching.
Nothing is reserved or asked before every picture of the request is here.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import replace
from typing import Any, Protocol

from smoothing_proxy.gateway.fetch_addresses import Resolve
from smoothing_proxy.gateway.fetch_buckets import BucketPictures
from smoothing_proxy.gateway.fetch_http import HttpPictures
from smoothing_proxy.gateway.inquiries import Inquiry, sha256_of
from smoothing_proxy.gateway.jobs import Job
from smoothing_proxy.gateway.references_settings import ReferencesTable
from smoothing_proxy.wire.base import ElsewhereFault, Fault, FetchFault, NotServedFault, Place, Question

__all__ = ["NOT_LISTED", "NoReferences", "Pictures", "References", "references_of"]

NOT_LISTED = "no picture is fetched from there; send the picture itself"


class Pictures(Protocol):
    """Where pictures are fetched from."""

    def allows(self, place: Place) -> bool:
        """Whether it is one of those that are listed."""
        ...

    async def fetch(self, place: Place, most_bytes: int) -> bytes:
        """The picture. Raises FetchFault."""
        ...


class NoReferences:
    """Of a gateway that fetches nothing."""

    def hardens(self, fault: NotServedFault) -> Question | None:
        """See References."""
        return None

    def allows(self, place: Place) -> bool:
        """See References."""
        return False

    async def filled(self, inquiry: Inquiry, job: Job) -> Inquiry:
        """See References."""
        return inquiry


class References(NoReferences):
    """sources: in whose lists a place is looked for."""

    def __init__(self, table: ReferencesTable, *sources: Pictures) -> None:
        self._table = table
        self._sources = sources
        self._turns = asyncio.Semaphore(table.at_once)
        self._held = 0

    def hardens(self, fault: NotServedFault) -> Question | None:
        """What is asked by a request of this fault, where all of its pictures are to be fetched here.

        A reference that is not listed is told so by the fault.
        """
        if not isinstance(fault, ElsewhereFault):
            return None
        if all(map(self.allows, fault.question.places.values())):
            return fault.question
        fault.message = NOT_LISTED
        return None

    def allows(self, place: Place) -> bool:
        """Whether its host or bucket is listed."""
        return any(source.allows(place) for source in self._sources)

    async def filled(self, inquiry: Inquiry, job: Job) -> Inquiry:
        """The inquiry with its pictures, which the job keeps; they count as held until it ends.

        Raises FetchFault where one of them cannot be had.
        """
        if not inquiry.places:
            return inquiry
        numbers = sorted(inquiry.places)
        several = len(inquiry.images) > 1
        fetched = await _all(
            self._picture(inquiry.places[number], job, f"picture {number}: " if several else "")
            for number in numbers
        )
        there = dict(zip(numbers, fetched, strict=True))
        job.images = tuple(there.get(number, image) for number, image in enumerate(inquiry.images))
        return replace(inquiry, images=job.images, places={}, fetched=True, digest=_digest(inquiry, job.images))

    async def _picture(self, place: Place, job: Job, which: str) -> bytes:
        try:
            picture = await self._fetched(place)
        except TimeoutError:
            raise FetchFault(f"{which}the picture did not arrive within {self._table.timeout_s:g} s") from None
        except FetchFault as fault:
            raise FetchFault(f"{which}{fault.message}", fault.fault) from None
        self._hold(len(picture), job)
        return picture

    async def _fetched(self, place: Place) -> bytes:
        source = next((one for one in self._sources if one.allows(place)), None)
        if source is None:
            raise FetchFault(NOT_LISTED)
        async with self._turns, asyncio.timeout(self._table.timeout_s):
            return await source.fetch(place, min(self._table.picture_bytes, place.most_bytes))

    def _hold(self, size: int, job: Job) -> None:
        if job.task is None or self._held + size > self._table.fetched_bytes:
            raise FetchFault("too many fetched pictures are here at the same time", Fault.THROTTLED)
        self._held += size
        job.task.add_done_callback(lambda _: self._release(size))

    def _release(self, size: int) -> None:
        self._held -= size


async def _all(fetches: Iterable[Coroutine[Any, Any, bytes]]) -> list[bytes]:
    """All of them at the same time. Raises what the first one that failed has raised, once all have ended."""
    outcomes = await asyncio.gather(*fetches, return_exceptions=True)
    pictures = [outcome for outcome in outcomes if isinstance(outcome, bytes)]
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
    return pictures


def _digest(inquiry: Inquiry, images: Sequence[bytes]) -> str:
    """Without a name, the same address may be asked about again: of what lies there by then."""
    if inquiry.name:
        return inquiry.digest
    return sha256_of("fetched", inquiry.digest, *(hashlib.sha256(image).hexdigest() for image in images))


def references_of(table: ReferencesTable | None, resolve: Resolve | None = None) -> NoReferences:
    """As the configuration has it. Raises ConfigError for a ca_file that cannot be used."""
    if table is None:
        return NoReferences()
    return References(table, HttpPictures(table, resolve), BucketPictures(table))
