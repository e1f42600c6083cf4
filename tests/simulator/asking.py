"""A client of no brand that tells what it saw on the wire, and the servers it asks."""

from __future__ import annotations

import asyncio
import errno
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import aiohttp
import numpy as np
import numpy.typing as npt

from smoothing_proxy.backends.base import Backend
from smoothing_proxy.backends.scripted import ScriptedBackend
from smoothing_proxy.simulator.faults import Faults
from smoothing_proxy.simulator.server import Address, running
from smoothing_proxy.simulator.settings import SimulatorSettings
from smoothing_proxy.wire.base import Wire
from tests.simulator.plain_wire import AUTHORIZATION, PLAIN, body, picture

T = TypeVar("T")


@dataclass(frozen=True)
class Seen:
    """What a client saw. what: "reply", or how the connection ended."""

    what: str
    status: int = 0
    headers: Mapping[str, str] | None = None
    body: bytes = b""


@dataclass(frozen=True)
class Bench:
    """A running simulator and a client for it."""

    address: Address
    client: aiohttp.ClientSession

    async def ask(
        self,
        data: Any = None,
        *,
        path: str = "/plain",
        headers: Mapping[str, str] = AUTHORIZATION,
        wait_s: float = 5.0,
    ) -> Seen:
        """One request; by default in order, about one picture."""
        timeout = aiohttp.ClientTimeout(total=wait_s)
        data = body(picture()) if data is None else data
        try:
            async with self.client.post(
                self.address.url + path, data=data, headers=headers, timeout=timeout
            ) as reply:
                return Seen("reply", reply.status, reply.headers, await reply.read())
        except aiohttp.ClientOSError as error:
            return Seen("reset" if error.errno == errno.ECONNRESET else f"broken: {error}")
        except TimeoutError:
            return Seen("timeout")
        except aiohttp.ClientPayloadError:
            return Seen("cut off")
        except aiohttp.ServerDisconnectedError:
            return Seen("closed")

    async def till(self) -> dict[str, Any]:
        async with self.client.get(f"{self.address.url}/_simulator/till?pictures=1") as reply:
            return dict(await reply.json())

    async def until(self, reached: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The till once it has come so far, or as it is after some seconds."""
        for _ in range(200):
            till = await self.till()
            if reached(till):
                break
            await asyncio.sleep(0.03)
        return till

    async def settled(self) -> dict[str, Any]:
        """The till once a request has come to its end."""
        return await self.until(lambda till: bool(till["outcomes"]))

    async def switch(self, **faults: object) -> int:
        async with self.client.post(f"{self.address.url}/_simulator/faults", json=faults) as reply:
            return reply.status


@asynccontextmanager
async def bench(
    backend: Backend | None = None,
    wire: Wire = PLAIN,
    *,
    seed: int = 1,
    settings: SimulatorSettings | None = None,
    **faults: Any,
) -> AsyncIterator[Bench]:
    """A simulator with these faults; by default of a classifier that says "cat"."""
    serving = running(
        settings or SimulatorSettings(),
        wire,
        backend or ScriptedBackend("cat", model_version="v1"),
        faults=Faults(**faults),
        rng=random.Random(seed),
    )
    async with serving as address, aiohttp.ClientSession() as client:
        yield Bench(address, client)


def by_level(pixels: npt.NDArray[np.uint8]) -> str:
    """A classifier: dark or light."""
    return "dark" if pixels.mean() < 128 else "light"


def run(work: Callable[[], Awaitable[T]]) -> T:
    """Drive it, for at most half a minute."""

    async def bounded() -> T:
        async with asyncio.timeout(30):
            return await work()

    return asyncio.run(bounded())
