"""Time that passes only while everybody waits: hours of backing off in milliseconds, the same on every machine."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import anyio

__all__ = ["VirtualClock", "run_virtually"]

Result = TypeVar("Result")


class VirtualClock:
    """The running event loop's own time, as a Clock."""

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(max(0.0, seconds))


class _SkippingSelector(selectors.DefaultSelector):
    """Where the loop would sleep until its next timer, it moves the loop's time there instead."""

    elapsed = 0.0

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None:
            raise RuntimeError("everybody waits for something that no timer will bring")
        self.elapsed += max(0.0, timeout)
        return super().select(0)


class _VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._skipping = _SkippingSelector()
        super().__init__(self._skipping)

    def time(self) -> float:
        return self._skipping.elapsed


def run_virtually(test: Callable[[], Awaitable[Result]]) -> Result:
    """What `test` returns, run on a loop whose time is virtual and starts at 0.0."""
    return anyio.run(test, backend_options={"loop_factory": _VirtualLoop})
