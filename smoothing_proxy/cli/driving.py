"""Driving a run from the terminal: a progress bar, and signals that stop it without losing what is paid for."""

from __future__ import annotations

import gc
import signal
from typing import TYPE_CHECKING

import anyio

from smoothing_proxy.cli.progress import RunProgress
from smoothing_proxy.smoothing.halt import Halt, Interrupted

if TYPE_CHECKING:
    from smoothing_proxy.runs.runner import FolderRun

__all__ = ["drive_run", "set_aside_what_is_loaded"]


def drive_run(folder_run: FolderRun) -> Exception | None:
    """Run until done or stopped; returns what stopped it, if anything did.

    The first SIGINT or SIGTERM lets what is in flight settle; the second gives up on that too.
    """
    set_aside_what_is_loaded()
    with RunProgress(folder_run.classifier.backend.price_usd) as progress:
        return anyio.run(_until_stopped, folder_run, progress)


def set_aside_what_is_loaded() -> None:
    """Before long work: modules and classifiers are nothing that the garbage collector looks at any longer.

    A full collection of them takes 100 ms, in which no reply is read.
    """
    gc.collect()
    gc.freeze()


async def _until_stopped(folder_run: FolderRun, progress: RunProgress) -> Exception | None:
    halt = Halt()
    fault: Exception | None = None
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_halt_on_signal, halt, progress, tasks.cancel_scope)
        try:
            await folder_run.run(progress, halt)
        except Exception as error:  # noqa: BLE001 (raised again once the report is written)
            fault = error
        finally:
            with anyio.CancelScope(shield=True):
                await folder_run.classifier.backend.aclose()
            tasks.cancel_scope.cancel()
    return fault or halt.reason


async def _halt_on_signal(halt: Halt, progress: RunProgress, scope: anyio.CancelScope) -> None:
    interrupted = False
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            if interrupted:
                scope.cancel()
                return
            interrupted = True
            halt.request(Interrupted())
            progress.say("stopping: what is in flight is being settled; once more gives up on it")
