"""What is not asked to be hardened, carried to the vendor as it came, by leave of the configuration.

Whole or not at all: a request with one thing that could be hardened and another that could not is not answered in
parts. It costs what the vendor bills for it, from the key's own budget, and stands in the ledger as what it is.
The same request, sent again, gets the same reply and costs nothing.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

from smoothing_proxy.backends.base import Backend, Forwarded, Forwards
from smoothing_proxy.errors import BackendError, ConfigError, SmoothingProxyError
from smoothing_proxy.gateway.beginning import begun
from smoothing_proxy.gateway.faults import told
from smoothing_proxy.gateway.metrics import Metrics
from smoothing_proxy.gateway.passes import Passed, document_of, is_complete, pass_name, passed_in
from smoothing_proxy.gateway.ports import Begun, Caller, Reservation, Store
from smoothing_proxy.gateway.settings import GatewaySettings
from smoothing_proxy.transport.clock import Clock
from smoothing_proxy.types import Cost
from smoothing_proxy.wire.base import Fault, RequestFault
from smoothing_proxy.wire.errands import USUAL, VENDORS, Errand

__all__ = ["UNHARDENED", "Passage"]

UNHARDENED: Mapping[str, str] = {"x-smoothing-hardened": "false"}
"""Beside every answer that is the vendor's own."""

_logger = logging.getLogger(__name__)


class Passage:
    """The way to the vendor, for as many requests at once as may be pending.

    Raises ConfigError where it is open to all keys, and the backend is not one that carries requests.
    """

    def __init__(
        self, gateway: GatewaySettings, backend: Backend, store: Store, metrics: Metrics, clock: Clock
    ) -> None:
        settings = self._settings = gateway.passthrough
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
        self._clock = clock
        self._most, self._deadline_s = gateway.max_pending, gateway.deadline_s
        self._price_usd = backend.price_usd if settings.price_usd is None else settings.price_usd
        self._on_the_way: dict[tuple[str, str], asyncio.Task[Passed]] = {}

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

    async def carry(self, caller: Caller, errand: Errand, name: str = "") -> Passed:
        """The vendor's own reply, and what it cost in queries; booked even when the client has left meanwhile.

        name: by which the client says that it is the same request, sent again: it gets the same reply. So does one
        without a name that asks the same, of an operation that looks at a picture and keeps nothing; of any other
        one, it may well be meant to happen once more.

        Raises RequestFault where it may not be passed on, the budget is spent, or no reply came.
        """
        self._check(errand)
        known = pass_name(self.vendor, errand, name)
        same = bool(name) or errand.operation in USUAL[self.vendor]
        place = (caller.id, known if same else uuid.uuid4().hex)
        task = self._on_the_way.get(place)
        if task is not None:
            with self._store.admitted(caller, joins=True):
                pass
            return replace(await asyncio.shield(task), cost=Cost(), replayed=True)
        if len(self._on_the_way) >= self._most:
            raise RequestFault(Fault.THROTTLED, "too many requests are under way here", retry_after_s=1.0)
        admission = ExitStack()  # the key's place is the errand's, until that has ended
        admission.enter_context(self._store.admitted(caller))
        work = self._once(caller, errand, known) if same else self._carried(caller, errand)
        task = self._on_the_way[place] = asyncio.get_running_loop().create_task(work)
        task.add_done_callback(partial(self._arrived, place, admission))
        return await asyncio.shield(task)

    async def drained(self, within_s: float) -> None:
        """Wait for what is on the way."""
        if self._on_the_way:
            await asyncio.wait(self._on_the_way.values(), timeout=within_s)

    def _arrived(self, place: tuple[str, str], admission: ExitStack, task: asyncio.Task[Passed]) -> None:
        del self._on_the_way[place]
        admission.close()
        if not task.cancelled():
            task.exception()  # whoever asked may be gone

    def _check(self, errand: Errand) -> None:
        if errand.operation not in self._operations:
            raise RequestFault(Fault.FORBIDDEN, f"{errand.operation} is not passed on here")
        if errand.references and not self._settings.references:
            raise RequestFault(
                Fault.FORBIDDEN, "nothing that the vendor would have to fetch is passed on here; send the picture"
            )

    async def _once(self, caller: Caller, errand: Errand, known: str) -> Passed:
        """Told again where it was answered before, else carried and remembered."""
        try:
            asked = (caller.id, None, known, known)
            begins = await begun(self._store, self._clock, self._deadline_s, *asked)
        except SmoothingProxyError as error:
            raise told(error) from error
        if begins.state == "finished":
            return passed_in(begins.document)
        try:
            passed = await self._carried(caller, errand)
        except BaseException as error:
            await self._end(begins, error)
            raise
        await self._end(begins, passed)
        return passed

    async def _end(self, begins: Begun, outcome: Passed | BaseException) -> None:
        """Only what the vendor has answered in full is told again; after anything else it may answer yet."""
        try:
            if isinstance(outcome, Passed) and outcome.cost.queries and is_complete(self.vendor, outcome.reply):
                return await self._store.finish(begins.request_id, document_of(outcome.reply), outcome.cost)
        except Exception:
            _logger.exception("the reply to a request that was passed on could not be remembered")
        reason = outcome if isinstance(outcome, Exception) else BackendError("passed on, but not kept")
        try:
            await self._store.fail(begins.request_id, reason)
        except SmoothingProxyError:
            _logger.exception("a request that was passed on could not be given up")

    async def _carried(self, caller: Caller, errand: Errand) -> Passed:
        try:
            reservation = await self._store.reserve(caller.id, errand.units, self._price_usd)
            forwarded, cost = await self._sent(reservation, errand)
        except SmoothingProxyError as error:
            raise told(error) from error
        return Passed(forwarded.reply, cost)

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
