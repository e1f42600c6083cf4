"""What the process is told by signals, from before it serves until what was under way is done."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from smoothing_proxy.errors import SmoothingProxyError

if TYPE_CHECKING:
    from smoothing_proxy.gateway.service import Gateway

__all__ = ["hangups", "stops", "until_told"]

_logger = logging.getLogger(__name__)


@contextmanager
def hangups() -> Iterator[asyncio.Event]:
    """Set by each SIGHUP, which would else end the process: for as long as it lives."""
    loop, reload = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGHUP, reload.set)
    try:
        yield reload
    finally:
        loop.remove_signal_handler(signal.SIGHUP)


@contextmanager
def stops() -> Iterator[asyncio.Event]:
    """Set by SIGTERM or SIGINT. Another SIGTERM changes nothing; another SIGINT ends the process at once."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()

    def interrupted() -> None:
        stop.set()
        loop.remove_signal_handler(signal.SIGINT)

    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGINT, interrupted)
    try:
        yield stop
    finally:
        loop.remove_signal_handler(signal.SIGTERM)
        loop.remove_signal_handler(signal.SIGINT)


async def until_told(gateway: Gateway, stop: asyncio.Event, reload: asyncio.Event) -> None:
    """Return once `stop` is set. Each time that `reload` is, keys and limits are read anew."""
    stopping = asyncio.create_task(stop.wait())
    try:
        while not stop.is_set():
            reloading = asyncio.create_task(reload.wait())
            await asyncio.wait([stopping, reloading], return_when=asyncio.FIRST_COMPLETED)
            reloading.cancel()
            if reload.is_set():
                reload.clear()
                await _reload(gateway)
    finally:
        stopping.cancel()


async def _reload(gateway: Gateway) -> None:
    """Keys that cannot be read leave the ones that are there."""
    try:
        were_read = await gateway.store.reload()
    except SmoothingProxyError as error:
        _logger.error("keys and limits stay as they are: %s", error)
        return
    if were_read:
        _logger.info("keys and limits were read anew")
    else:
        _logger.info("there is nothing to read anew: keys and limits in a [store] hold from the next request on")
