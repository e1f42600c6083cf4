"""What is not asked to be hardened, carried to the vendor as it came, by leave of the configuration.

Whole or not at all: a request with one thing that could be hardened and another that could not is not answered in
parts. It costs what the vendor bills for it, from the key's own budget, and stands in the ledger as what it is.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from smoothing_proxy.backends.base import Backend, Forwarded, Forwards
from smoothing_proxy.errors import BackendError, ConfigError, SmoothingProxyError
from smoothing_proxy.gateway.faults import told
from smoothing_proxy.gateway.metrics import Metrics
from smoothing_proxy.gateway.ports import Caller, Reservation, Store
from smoothing_proxy.gateway.settings import PassthroughTable
from smoothing_proxy.types import Cost
from smoothing_proxy.wire.base import Fault, HttpReply, RequestFault
from smoothing_proxy.wire.errands import USUAL, VENDORS, Errand

__all__ = ["UNHARDENED", "Passage"]

UNHARDENED: Mapping[str, str] = {"x-smoothing-hardened": "false"}
"""Beside every answer that is the vendor's own."""

_logger = logging.getLogger(__name__)


class Passage:
    """The way to the vendor. most: requests on it at once.

    Raises ConfigError where it is open to all keys, and the backend is not one that carries requests.
    """

    def __init__(
        self, settings: PassthroughTable, backend: Backend, store: Store, metrics: Metrics, *, most: int
    ) -> None:
        self._settings = settings
        self._backend = backend
        self._upstream = backend if isinstance(backend, Forwards) and backend.remote else None
        if settings.enabled and self._upstream is None:
            raise ConfigError(
                f"gateway.passthrough: {backend.name} takes no requests as they are; those of "
                f"{', '.join(VENDORS)} are passed on, each to a backend of its own kind"
            )
        self._operations = frozenset(settings.operations) or USUAL.get(self.vendor, frozenset())
        self._store = store
        self._metrics = metrics
        self._most = most
        self._on_the_way: set[asyncio.Task[tuple[HttpReply, Cost]]] = set()

    @property
    def vendor(self) -> str:
        """Whose requests can be carried; "" for nobody's."""
        return "" if self._upstream is None else self._upstream.vendor

    def open_to(self, vendor: str, caller: Caller) -> bool:
        """Whether this caller may have requests in this vendor's format passed on.

        A key whose answers always come with a certificate has to be let through by name.
        """
        certified = caller.certify or caller.target_radius is not None
        usual = self._settings.enabled and not certified
        return vendor == self.vendor and (usual if caller.passthrough is None else caller.passthrough)

    async def carry(self, caller: Caller, errand: Errand) -> tuple[HttpReply, Cost]:
        """The vendor's own reply, and what it cost in queries; booked even when the client has left meanwhile.

        Raises RequestFault where it may not be passed on, the budget is spent, or no reply came.
        """
        self._check(errand)
        if len(self._on_the_way) >= self._most:
            raise RequestFault(Fault.THROTTLED, "too many requests are under way here", retry_after_s=1.0)
        task = asyncio.get_running_loop().create_task(self._carried(caller, errand))
        self._on_the_way.add(task)
        task.add_done_callback(self._arrived)
        return await asyncio.shield(task)

    async def drained(self, within_s: float) -> None:
        """Wait for what is on the way."""
        if self._on_the_way:
            await asyncio.wait(self._on_the_way, timeout=within_s)

    def _arrived(self, task: asyncio.Task[tuple[HttpReply, Cost]]) -> None:
        self._on_the_way.discard(task)
        if not task.cancelled():
            task.exception()  # whoever asked may be gone

    def _check(self, errand: Errand) -> None:
        if errand.operation not in self._operations:
            raise RequestFault(Fault.FORBIDDEN, f"{errand.operation} is not passed on here")
        if errand.references and not self._settings.references:
            raise RequestFault(
                Fault.FORBIDDEN, "nothing that the vendor would have to fetch is passed on here; send the picture"
            )

    async def _carried(self, caller: Caller, errand: Errand) -> tuple[HttpReply, Cost]:
        try:
            reservation = await self._store.reserve(caller.id, errand.units, self._backend.price_usd)
            forwarded, cost = await self._sent(reservation, errand)
        except SmoothingProxyError as error:
            raise told(error) from error
        return forwarded.reply, cost

    async def _sent(self, reservation: Reservation, errand: Errand) -> tuple[Forwarded, Cost]:
        assert self._upstream is not None
        cost = Cost()
        try:
            await self._store.pass_on(reservation, errand.operation)
            cost = Cost(unknown=errand.units)  # until it is known
            forwarded = await self._upstream.forward(errand.request)
            cost = _cost(forwarded.error, errand.units)
        except BackendError as error:
            cost = _cost(error, errand.units)
            raise
        finally:
            self._metrics.spent(cost, reservation.price_usd)
            await self._settle(reservation, cost)
        return forwarded, cost

    async def _settle(self, reservation: Reservation, cost: Cost) -> None:
        """What was paid for is answered, though it could not be written down; it is charged as it was reserved."""
        try:
            await self._store.settle(reservation, cost)
        except SmoothingProxyError:
            _logger.exception("a request that was passed on could not be settled")


def _cost(error: BackendError | None, units: int) -> Cost:
    if error is None:
        return Cost(queries=units)
    return Cost(unknown=units) if error.maybe_billed else Cost()
