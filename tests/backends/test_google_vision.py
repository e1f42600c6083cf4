"""The Google Cloud Vision backend over Google's own client, against gRPC servers on this machine."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from socket import SO_LINGER, SOL_SOCKET
from typing import Any

import anyio
import grpc  # type: ignore[import-untyped, unused-ignore]
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding as Encodings
from cryptography.hazmat.primitives.serialization import NoEncryption, PrivateFormat
from google.auth import exceptions as auth_exceptions

from smoothing_proxy.backends.base import Backend
from smoothing_proxy.backends.google_vision import GoogleVision
from smoothing_proxy.errors import (
    AuthenticationError,
    BackendError,
    BackendTimeoutError,
    BackendUnavailableError,
    ConfigError,
    MalformedReplyError,
    MissingCredentialError,
    QuotaExceededError,
    RateLimitedError,
    RequestRejectedError,
)
from smoothing_proxy.images.codec import EncodedImage
from smoothing_proxy.serving.google_grpc import METHOD, serve_grpc
from smoothing_proxy.types import Reply, ScoredLabel
from smoothing_proxy.wire.base import Fault, Question, RequestFault

KEY = "test-key-that-nobody-may-see"
ENVIRON = {"VISION_KEY": KEY}
WAIT_S = 20.0
DOG = Reply((ScoredLabel("dog", 0.75, "/m/2"), ScoredLabel("cat", 0.25)))

Answer = Reply | RequestFault


class Service:
    """Answers each picture by a function of its bytes. requests: sizes of what came, in order of arrival."""

    def __init__(self, answer: Callable[[bytes], Answer] = lambda _: DOG) -> None:
        self.answer = answer
        self.requests: list[list[int]] = []
        self.max_labels: list[int | None] = []
        self.keys: list[str] = []

    def verify(self, key: str) -> None:
        self.keys.append(key)

    async def ask(self, question: Question) -> Sequence[Answer]:
        self.requests.append([len(image) for image in question.images])
        self.max_labels.append(question.max_labels)
        return [self.answer(image) for image in question.images]


class FailsAll(Service):
    def __init__(self, fault: RequestFault) -> None:
        super().__init__()
        self.fault = fault

    async def ask(self, question: Question) -> Sequence[Answer]:
        await super().ask(question)
        raise self.fault


class Hangs(Service):
    def __init__(self) -> None:
        super().__init__()
        self.arrived = asyncio.Event()
        self.left = asyncio.Event()

    async def ask(self, question: Question) -> Sequence[Answer]:
        await super().ask(question)
        self.arrived.set()
        try:
            await asyncio.sleep(WAIT_S)
        finally:
            self.left.set()
        return []


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        with anyio.fail_after(WAIT_S):
            await test()

    asyncio.run(bounded())


def vision(port: int, **options: Any) -> GoogleVision:
    defaults: dict[str, Any] = {"api_key_env": "VISION_KEY", "environ": ENVIRON, "read_timeout_s": WAIT_S}
    return GoogleVision(endpoint=f"127.0.0.1:{port}", insecure=True, **{**defaults, **options})


@asynccontextmanager
async def asked_of(service: Service, **options: Any) -> AsyncIterator[GoogleVision]:
    server = await serve_grpc(service.ask, service.verify)
    backend = vision(server.port, **options)
    try:
        yield backend
    finally:
        await backend.aclose()
        await server.stop()


@asynccontextmanager
async def raw_server(
    reply: Callable[[bytes, Any], Awaitable[bytes]], tls: grpc.ServerCredentials | None = None
) -> AsyncIterator[int]:
    """A gRPC server that answers whatever bytes it likes."""
    service, _, method = METHOD.removeprefix("/").partition("/")
    server = grpc.aio.server()
    handlers = {method: grpc.unary_unary_rpc_method_handler(reply)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    where = "127.0.0.1:0"
    port = server.add_insecure_port(where) if tls is None else server.add_secure_port(where, tls)
    await server.start()
    try:
        yield port
    finally:
        await server.stop(None)


@asynccontextmanager
async def tcp_port(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[int]:
    """A port whose connections are all over when the context is: `serve` has to end."""
    connections: list[asyncio.Task[None] | None] = []

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(asyncio.current_task())
        with suppress(OSError):
            await serve(reader, writer)
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()

    async with await asyncio.start_server(connected, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]
        await asyncio.gather(*(task for task in connections if task is not None))


@asynccontextmanager
async def breakable(port: int) -> AsyncIterator[tuple[int, Callable[[], None]]]:
    """A port in front of another one, and a way to reset what is connected."""
    writers: list[asyncio.StreamWriter] = []

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65_536):
                writer.write(data)
        writer.close()

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", port)
        writers.append(writer)
        await asyncio.gather(pump(reader, there_writer), pump(there_reader, writer))
        with suppress(OSError):
            await there_writer.wait_closed()

    def break_off() -> None:
        for writer in writers:
            writer.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    async with tcp_port(connect) as front:
        yield front, break_off


def copies(*pictures: bytes) -> list[EncodedImage]:
    return [EncodedImage(picture, "png", 1, 1) for picture in pictures]


async def failure(backend: GoogleVision, *pictures: bytes) -> BackendError:
    with pytest.raises(BackendError) as caught:
        await backend.classify(copies(*(pictures or (b"one",))))
    assert KEY not in str(caught.value)
    return caught.value


def test_a_batch_is_one_request_with_key_and_labels() -> None:
    service = Service(lambda image: Reply((ScoredLabel(image.decode(), 0.5),)))

    async def test() -> None:
        async with asked_of(service, max_labels=7) as backend:
            assert isinstance(backend, Backend)
            replies = await backend.classify(copies(b"a", b"b", b"c"))
        assert replies == [Reply((ScoredLabel(name, 0.5),)) for name in "abc"]

    run(test)
    assert (service.requests, service.max_labels, service.keys) == ([[1, 1, 1]], [7], [KEY])


def test_a_pictures_own_fault_stands_in_its_place() -> None:
    bad = RequestFault(Fault.BAD_IMAGE, "Bad image data.")
    service = Service(lambda image: bad if image == b"bad" else DOG)

    async def test() -> None:
        async with asked_of(service) as backend:
            first, second, third = await backend.classify(copies(b"one", b"bad", b"two"))
        assert (first, third) == (DOG, DOG)
        assert isinstance(second, RequestRejectedError)

    run(test)


def test_a_picture_without_labels_has_an_empty_reply() -> None:
    async def test() -> None:
        async with asked_of(Service(lambda _: Reply(()))) as backend:
            assert await backend.classify(copies(b"one")) == [Reply(())]

    run(test)


@pytest.mark.parametrize(
    ("fault", "kind", "maybe_billed"),
    [
        (Fault.BAD_REQUEST, RequestRejectedError, False),
        (Fault.UNAUTHENTICATED, AuthenticationError, False),
        (Fault.FORBIDDEN, AuthenticationError, False),
        (Fault.UNKNOWN_OPERATION, AuthenticationError, False),
        (Fault.THROTTLED, RateLimitedError, False),
        (Fault.QUOTA, QuotaExceededError, False),
        (Fault.INTERNAL, BackendUnavailableError, True),
        (Fault.UNAVAILABLE, BackendUnavailableError, False),
        (Fault.TIMEOUT, BackendTimeoutError, True),
    ],
)
def test_a_refused_request_was_sent_once_and_means(
    fault: Fault, kind: type[BackendError], maybe_billed: bool
) -> None:
    service = FailsAll(RequestFault(fault, "because", retry_after_s=2.5))

    async def test() -> None:
        async with asked_of(service) as backend:
            error = await failure(backend)
        assert type(error) is kind
        assert (error.maybe_billed, error.backend) == (maybe_billed, "google-vision")
        assert "because" in str(error)
        assert getattr(error, "retry_after", 2.5) == 2.5

    run(test)
    assert len(service.requests) == 1


def test_an_answer_that_was_paid_for_stands_beside_a_pictures_authentication_error() -> None:
    refused = RequestFault(Fault.FORBIDDEN, "no")
    service = Service(lambda image: refused if image == b"bad" else DOG)

    async def test() -> None:
        async with asked_of(service) as backend:
            answered, failed = await backend.classify(copies(b"one", b"bad"))
        assert answered == DOG
        assert isinstance(failed, AuthenticationError)

    run(test)


def test_a_batch_too_large_for_a_request_is_sent_as_several_and_answered_in_order() -> None:
    service = Service(lambda image: Reply((ScoredLabel(image[:1].decode(), 0.5),)))
    pictures = [bytes([97 + i]) * 3_000_000 for i in range(5)]

    async def test() -> None:
        async with asked_of(service) as backend:
            replies = await backend.classify(copies(*pictures))
        assert [reply.labels[0].name for reply in replies if isinstance(reply, Reply)] == list("abcde")

    run(test)
    assert sorted(map(len, service.requests)) == [2, 3]


def test_a_part_that_fails_fails_alone() -> None:
    class FailsSmall(Service):
        async def ask(self, question: Question) -> Sequence[Answer]:
            answers = await super().ask(question)
            if len(question.images) == 1:
                raise RequestFault(Fault.INTERNAL, "broken")
            return answers

    async def test() -> None:
        async with asked_of(FailsSmall()) as backend:
            replies = await backend.classify(copies(*[bytes(3_000_000)] * 4))
        assert list(replies[:3]) == [DOG] * 3
        assert isinstance(replies[3], BackendUnavailableError)
        assert replies[3].maybe_billed

    run(test)


def test_parts_that_are_refused_for_their_credentials_say_so_for_each_picture() -> None:
    service = FailsAll(RequestFault(Fault.UNAUTHENTICATED, "no"))

    async def test() -> None:
        async with asked_of(service) as backend:
            answers = await backend.classify(copies(*[bytes(6_000_000)] * 2))
        assert [type(answer) for answer in answers] == [AuthenticationError] * 2

    run(test)
    assert len(service.requests) == 2


def test_what_google_is_known_to_refuse_is_not_sent() -> None:
    service = Service()

    async def test() -> None:
        async with asked_of(service) as backend:
            large, raw = EncodedImage(bytes(20_000_001), "png", 1, 1), EncodedImage(b"abc", "raw", 1, 1)
            replies = await backend.classify([large, *copies(b"one"), raw])
            assert await backend.classify([]) == []
        assert replies[1] == DOG
        errors = [reply for reply in (replies[0], replies[2]) if isinstance(reply, RequestRejectedError)]
        assert [error.attempts for error in errors] == [0, 0]

    run(test)
    assert service.requests == [[3]]


def test_silence_is_a_timeout_that_may_have_been_billed() -> None:
    async def test() -> None:
        service = Hangs()
        async with asked_of(service, read_timeout_s=0.3) as backend:
            error = await failure(backend)
            await service.left.wait()
        assert isinstance(error, BackendTimeoutError)
        assert service.requests == [[3]]

    run(test)


def test_a_connection_that_breaks_after_the_request_may_have_been_billed() -> None:
    async def test() -> None:
        service = Hangs()
        server = await serve_grpc(service.ask, service.verify)
        async with breakable(server.port) as (port, break_off):
            backend = vision(port)
            asking = asyncio.create_task(failure(backend))
            await service.arrived.wait()
            break_off()
            error = await asking
            await backend.aclose()
        await server.stop()
        assert isinstance(error, BackendTimeoutError)
        assert error.maybe_billed
        assert service.requests == [[3]]

    run(test)


def test_a_server_that_stops_during_a_request_may_have_billed_it() -> None:
    async def test() -> None:
        service = Hangs()
        server = await serve_grpc(service.ask, service.verify)
        backend = vision(server.port)
        asking = asyncio.create_task(failure(backend))
        await service.arrived.wait()
        await server.stop()
        assert (await asking).maybe_billed
        await backend.aclose()

    run(test)


def test_a_port_where_nobody_listens_is_unavailable_at_once_and_not_billed() -> None:
    async def test() -> None:
        server = await serve_grpc(Service().ask, Service().verify)
        await server.stop()
        backend = vision(server.port)
        error = await failure(backend)
        await backend.aclose()
        assert isinstance(error, BackendUnavailableError)
        assert not error.maybe_billed

    run(test)


def test_a_host_that_never_completes_a_connection_is_not_billed() -> None:
    async def test() -> None:
        over = asyncio.Event()

        async def silent(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
            await over.wait()

        async with tcp_port(silent) as port:
            backend = vision(port, connect_timeout_s=0.2)
            error = await failure(backend)
            await backend.aclose()
            over.set()
        assert isinstance(error, BackendUnavailableError)
        assert not error.maybe_billed
        assert "no connection to 127.0.0.1" in str(error)

    run(test)


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        (b"\xff\xff\xff", "no BatchAnnotateImagesResponse"),
        (b"", "0 answers to 1"),
        (b"\x0a\x00\x0a\x00", "2 answers"),
    ],
)
def test_a_reply_out_of_the_format_is_malformed(reply: bytes, says: str) -> None:
    async def answer(_: bytes, context: Any) -> bytes:
        return reply

    async def test() -> None:
        async with raw_server(answer) as port:
            backend = vision(port)
            error = await failure(backend)
            await backend.aclose()
        assert isinstance(error, MalformedReplyError)
        assert says in str(error)

    run(test)


def test_an_unavailable_without_details_may_have_been_billed_and_is_sent_once() -> None:
    sends = []

    async def answer(_: bytes, context: Any) -> bytes:
        sends.append(1)
        await context.abort(grpc.StatusCode.UNAVAILABLE, "overloaded")
        raise AssertionError

    async def test() -> None:
        async with raw_server(answer) as port:
            backend = vision(port)
            error = await failure(backend)
            await backend.aclose()
        assert isinstance(error, BackendUnavailableError)
        assert error.maybe_billed

    run(test)
    assert len(sends) == 1


def test_closing_gives_up_what_is_under_way_and_closing_twice_is_fine() -> None:
    async def test() -> None:
        service = Hangs()
        async with asked_of(service) as backend:
            asking = asyncio.create_task(failure(backend))
            await service.arrived.wait()
            await backend.aclose()
            assert isinstance(await asking, BackendTimeoutError)
            await backend.aclose()
            assert "closed" in str(await failure(backend))
        assert len(service.requests) == 1

    run(test)


def test_a_cancelled_request_is_cancelled_and_leaves_the_server() -> None:
    async def test() -> None:
        service = Hangs()
        async with asked_of(service) as backend:
            asking = asyncio.create_task(backend.classify(copies(b"one")))
            await service.arrived.wait()
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            await service.left.wait()

    run(test)


def test_many_requests_share_one_connection_and_another_event_loop_gets_its_own() -> None:
    service = Service()
    backends: list[GoogleVision] = []

    async def ask(port: int) -> None:
        backends[:] = backends or [vision(port)]
        await asyncio.gather(*(backends[0].classify(copies(b"one")) for _ in range(20)))

    async def test() -> None:
        server = await serve_grpc(service.ask, service.verify)
        await ask(server.port)
        await asyncio.to_thread(asyncio.run, ask(server.port))
        await backends[0].aclose()
        await server.stop()

    run(test)
    assert len(service.requests) == 40


@pytest.fixture(scope="module")
def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def pem_of(key: rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(Encodings.PEM, PrivateFormat.PKCS8, NoEncryption())


def certificate_of(key: rsa.RSAPrivateKey) -> bytes:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "this machine")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now - timedelta(1), now + timedelta(1))
    hosts = x509.SubjectAlternativeName([x509.DNSName("localhost")])
    authority = x509.BasicConstraints(ca=True, path_length=0)
    builder = builder.add_extension(hosts, critical=False).add_extension(authority, critical=True)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encodings.PEM)


def test_over_tls_a_key_or_a_service_account_is_presented_and_an_unknown_certificate_is_not_billed(
    tmp_path: Path, rsa_key: rsa.RSAPrivateKey
) -> None:
    ca, account = tmp_path / "ca.pem", tmp_path / "account.json"
    ca.write_bytes(certificate_of(rsa_key))
    account.write_text(
        json.dumps(
            {
                "type": "service_account",
                "client_email": "me@project.example",
                "private_key": pem_of(rsa_key).decode(),
                "private_key_id": "1",
                "token_uri": "https://127.0.0.1:1/never-asked",
            }
        )
    )
    presented: list[dict[str, str]] = []

    async def answer(_: bytes, context: Any) -> bytes:
        presented.append(dict(context.invocation_metadata()))
        return b"\x0a\x00"

    async def ask(port: int, **options: Any) -> None:
        backend = GoogleVision(endpoint=f"localhost:{port}", **options)
        try:
            assert await backend.classify(copies(b"one")) == [Reply(())]
        finally:
            await backend.aclose()

    async def test() -> None:
        tls = grpc.ssl_server_credentials([(pem_of(rsa_key), ca.read_bytes())])
        async with raw_server(answer, tls) as port:
            await ask(port, verify=ca, api_key_env="VISION_KEY", environ=ENVIRON)
            await ask(port, verify=str(ca), credentials_file=account)
            with pytest.raises(BackendUnavailableError) as caught:
                await ask(port, api_key_env="VISION_KEY", environ=ENVIRON)
        assert not caught.value.maybe_billed

    run(test)
    assert [metadata.get("x-goog-api-key") for metadata in presented] == [KEY, None]
    assert presented[1]["authorization"].startswith("Bearer ey")


def test_a_missing_key_is_named_and_nothing_is_sent() -> None:
    with pytest.raises(MissingCredentialError, match="VISION_KEY"):
        GoogleVision(api_key_env="VISION_KEY", environ={})


def test_missing_default_credentials_are_told_before_anything_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/nowhere/key.json")

    async def test() -> None:
        backend = GoogleVision()
        with pytest.raises(MissingCredentialError, match="GOOGLE_APPLICATION_CREDENTIALS") as caught:
            await backend.classify(copies(b"one"))
        assert not isinstance(caught.value, auth_exceptions.GoogleAuthError)
        await backend.aclose()

    run(test)


def test_a_credentials_file_is_checked_when_it_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        GoogleVision(credentials_file=tmp_path / "none.json")
    (tmp_path / "key.json").write_text('{"private_key": "secret"}')
    with pytest.raises(ConfigError, match="service account") as caught:
        GoogleVision(credentials_file=str(tmp_path / "key.json"))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"batch": 17}, "batch is 17"),
        ({"batch": 0}, "batch is 0"),
        ({"max_labels": 0}, "max_labels"),
        ({"concurrency": 0}, "concurrency"),
        ({"read_timeout_s": 0.0}, "read_timeout_s"),
        ({"connect_timeout_s": float("nan")}, "connect_timeout_s"),
        ({"encoding": "raw"}, "encoding"),
        ({"endpoint": "http://127.0.0.1:1"}, "without http://"),
        ({"endpoint": "vision.example:443", "insecure": True}, "insecure"),
        ({"insecure": True}, "insecure"),
        ({"price_usd_per_1000": -1.0}, "price_usd_per_1000"),
        ({"verify": "/nowhere/ca.pem"}, "verify"),
        ({"credentials_file": "key.json"}, "exclude each other"),
    ],
)
def test_a_setting_that_cannot_work_is_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        GoogleVision(**{"api_key_env": "VISION_KEY", "environ": ENVIRON, **options})


def test_what_is_shown_of_a_backend_holds_no_secret() -> None:
    backend = GoogleVision(api_key_env="VISION_KEY", environ=ENVIRON, endpoint="eu-vision.googleapis.com")
    assert KEY not in f"{backend!r} {backend.fingerprint}"
    assert backend.fingerprint == {
        "name": "google-vision",
        "max_labels": "10",
        "endpoint": "eu-vision.googleapis.com",
    }
    assert (backend.batch_size, str(backend.encoding), backend.encoding.min_side_px) == (16, "png", 0)
    assert backend.price_usd == pytest.approx(0.0015)
