"""A server on this machine for a test: any function from request to reply, in a thread of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from aiohttp import web
from anyio.from_thread import start_blocking_portal

from smoothing_proxy.wire.base import HttpReply, HttpRequest

Answer = Callable[[HttpRequest], HttpReply]


@contextmanager
def serving(answer: Answer) -> Iterator[str]:
    """The address of a server that answers by `answer` until the block ends."""
    with start_blocking_portal() as portal:
        runner = portal.call(_started, answer)
        try:
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            portal.call(runner.cleanup)


async def _started(answer: Answer) -> web.AppRunner:
    async def handle(request: web.Request) -> web.Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        query = dict(request.query)
        asked = HttpRequest(request.method, request.path, headers, await request.read(), query, request.raw_path)
        reply = answer(asked)
        return web.Response(status=reply.status, headers=dict(reply.headers), body=reply.body)

    app = web.Application(client_max_size=64 * 2**20)
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app, shutdown_timeout=1.0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return runner
