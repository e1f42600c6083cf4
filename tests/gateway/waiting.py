"""Waiting for what a test has no event for; whoever waits bounds it."""

from __future__ import annotations

from collections.abc import Callable

import anyio

__all__ = ["until"]


async def until(reached: Callable[[], bool]) -> None:
    """Return once it is so."""
    while not reached():  # noqa: ASYNC110 (nobody tells of it)
        await anyio.sleep(0.01)
