"""Cloud Vision's gRPC front: BatchAnnotateImages of google.cloud.vision.v1.ImageAnnotator, whoever answers."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import grpc  # type: ignore[import-untyped, unused-ignore]

from smoothing_proxy.errors import ConfigError
from smoothing_proxy.types import Reply
from smoothing_proxy.wire.base import Fault, Question, RequestFault
from smoothing_proxy.wire.google_grpc import code_of, trailing_metadata
from smoothing_proxy.wire.google_proto import parse, question_of, response_of

__all__ = [
    "METHOD",
    "REQUEST_BYTES",
    "Answer",
    "Ask",
    "Call",
    "GrpcServer",
    "Verify",
    "required_key",
    "serve_calls",
    "serve_grpc",
]

Ask: TypeAlias = Callable[[Question], Awaitable[Sequence[Reply | RequestFault]]]
"""An answer for each image of the question, in order. Raises RequestFault where there is none at all.

ConnectionResetError shows its client a lost connection. It is cancelled when its client leaves, or the client's
deadline has passed.
"""

Verify: TypeAlias = Callable[[str], None]
"""Raises RequestFault for a key (an API key or a bearer token) that may not ask."""


@dataclass(frozen=True, slots=True)
class Call:
    """A call, whose message may still be on its way. key: API key or bearer token, "" where there is neither.

    metadata: the texts among it, names in lower case; of one that was sent twice, the last. message: waits for the
    serialised request as long as it takes; before, no more of it is in memory than flow control lets through. It
    raises RequestFault (BAD_REQUEST) where none comes. tell: metadata of the answer or the refusal, told at most
    once, and before it.
    """

    key: str
    metadata: Mapping[str, str] = field(repr=False)
    message: Callable[[], Awaitable[bytes]] = field(repr=False)
    tell: Callable[[Mapping[str, str]], Awaitable[None]] = field(repr=False)


Answer: TypeAlias = Callable[[Call], Awaitable[bytes]]
"""The serialised response. Raises RequestFault; cancelled as Ask is."""

METHOD = "/google.cloud.vision.v1.ImageAnnotator/BatchAnnotateImages"

REQUEST_BYTES = 40 * 2**20
"""gRPC itself takes 4 MiB unless told otherwise. 16 pictures of 640x480 px are 11 MB."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class GrpcServer:
    """A server that answers until it is stopped."""

    port: int
    _server: Any

    async def stop(self, grace_s: float = 0.0) -> None:
        """Take no further requests, and cancel after `grace_s` what is still under way."""
        await self._server.stop(grace_s)


async def serve_grpc(ask: Ask, verify: Verify, host: str = "127.0.0.1", port: int = 0) -> GrpcServer:
    """Serve in the running event loop, without TLS. port: 0 takes any free one.

    Raises ConfigError when the port is taken.
    """

    async def answer(call: Call) -> bytes:
        verify(required_key(call))
        message = parse(await call.message())
        answers = await ask(question_of(message))
        response: bytes = response_of(message, answers).SerializeToString()
        return response

    return await serve_calls(answer, host, port)


async def serve_calls(
    answer: Answer,
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    tls: tuple[bytes, bytes] | None = None,
    at_once: int | None = None,
) -> GrpcServer:
    """Serve calls as they arrive, in the running event loop; keys are the caller's to check.

    tls: private key and certificate chain, both PEM. at_once: calls; further ones get RESOURCE_EXHAUSTED.
    Raises ConfigError when the port is taken.
    """
    options = (
        ("grpc.max_receive_message_length", REQUEST_BYTES),
        ("grpc.max_send_message_length", -1),
        ("grpc.so_reuseport", 0),  # a port that is taken is an error
    )
    server = grpc.aio.server(options=options, maximum_concurrent_rpcs=at_once)
    server.add_generic_rpc_handlers((_Methods(answer),))
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        if tls is None:
            taken = server.add_insecure_port(address)
        else:
            taken = server.add_secure_port(address, grpc.ssl_server_credentials([tls]))
    except RuntimeError:
        taken = 0
    if not taken:
        raise ConfigError(f"cannot listen on {address} for gRPC: is the port taken?")
    await server.start()
    return GrpcServer(taken, server)


def required_key(call: Call) -> str:
    """The call's key. Raises RequestFault (UNAUTHENTICATED) where there is none."""
    if not call.key:
        raise RequestFault(
            Fault.UNAUTHENTICATED, "Request is missing required authentication credential: API key or token."
        )
    return call.key


class _Methods(grpc.GenericRpcHandler):  # type: ignore[misc, unused-ignore]
    """One method that is answered, and a refusal for every other one."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    def service(self, handler_call_details: Any) -> Any:
        """The handler of a call. Messages stay bytes, so that what cannot be read is refused in Google's way.

        Its one message is read as a stream of one is: gRPC would keep the handler of a plain one waiting for it.
        """
        known = handler_call_details.method == METHOD
        return grpc.stream_unary_rpc_method_handler(self._annotate if known else _unknown)

    async def _annotate(self, _: Any, context: Any) -> bytes:
        try:
            return await self._answer(_call(context))
        except RequestFault as found:
            fault = found
        except ConnectionResetError:  # no server breaks a connection off here; this is what its client would see
            await context.abort(grpc.StatusCode.UNAVAILABLE, "recvmsg:Connection reset by peer")
        except Exception:
            _logger.exception("a gRPC request failed")
            fault = RequestFault(Fault.INTERNAL, "Internal error encountered.")
        return await _refuse(context, fault)


async def _unknown(_: Any, context: Any) -> bytes:
    return await _refuse(context, RequestFault(Fault.UNKNOWN_OPERATION, f"Only {METHOD} is answered here."))


async def _refuse(context: Any, fault: RequestFault) -> bytes:
    code = next(status for status in grpc.StatusCode if status.value[0] == code_of(fault))
    await context.abort(code, fault.message, trailing_metadata(fault))
    raise AssertionError("abort always raises")


def _call(context: Any) -> Call:
    sent = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
    scheme, _, token = sent.get("authorization", "").partition(" ")
    key = sent.get("x-goog-api-key") or (token.strip() if scheme.lower() == "bearer" else "")

    async def message() -> bytes:
        raw = await context.read()
        if raw is grpc.aio.EOF:
            raise RequestFault(Fault.BAD_REQUEST, "The call ended without a request.")
        return bytes(raw)

    async def tell(metadata: Mapping[str, str]) -> None:
        await context.send_initial_metadata(tuple(metadata.items()))

    return Call(key, sent, message, tell)
