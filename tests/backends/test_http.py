"""Against real sockets: what each way to fail is called, and how often a request arrives."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smoothing_proxy.backends.http import KEPT_ROUTES, LARGEST_REPLY, HttpApi, http_url, json_of, retry_after_s
from smoothing_proxy.errors import (
    BackendError,
    BackendTimeoutError,
    BackendUnavailableError,
    ConfigError,
    MalformedReplyError,
)
from smoothing_proxy.wire.base import HttpReply

pytestmark = pytest.mark.anyio

SECRET = "key-0123456789"
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Server:
    """Reads whole requests, then does as it is told. requests: how many it has read to their end."""

    def __init__(self, then: Handler) -> None:
        self.then = then
        self.requests = 0
        self.connections = 0
        self.bodies: list[bytes] = []
        self.heads: list[bytes] = []
        self.asked = asyncio.Event()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(
                    int(line[16:]) for line in head.lower().splitlines() if line[:15] == b"content-length:"
                )
                self.bodies.append(await reader.readexactly(length))
                self.heads.append(head)
                self.requests += 1
                self.asked.set()
                await self.then(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass


@contextlib.asynccontextmanager
async def listening(handler: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """The address of a server whose every connection ends with it."""
    tasks: list[asyncio.Task[None]] = []

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handler(reader, writer)
        finally:
            writer.transport.abort() if tls else writer.close()

    def started(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.append(asyncio.create_task(connected(reader, writer)))

    server = await asyncio.start_server(started, "127.0.0.1", 0, ssl=tls)
    port = server.sockets[0].getsockname()[1]
    try:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{port}"
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def opened(
    *, concurrency: int = 4, connect_timeout_s: float = 5.0, read_timeout_s: float = 5.0, verify: str = ""
) -> AsyncIterator[HttpApi]:
    api = HttpApi(
        "vendor",
        concurrency=concurrency,
        connect_timeout_s=connect_timeout_s,
        read_timeout_s=read_timeout_s,
        verify=verify,
    )
    try:
        yield api
    finally:
        await api.aclose()


async def post(api: HttpApi, url: str, content: bytes = b"picture", *, method: str = "POST") -> HttpReply:
    async with asyncio.timeout(10):
        return await api.send(
            method, f"{url}/classify", headers={"authorization": f"Key {SECRET}"}, content=content
        )


def writes(data: bytes) -> Handler:
    async def handler(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()

    return handler


async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def reset(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


async def hang(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await reader.read()


async def drip(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n")
    while True:
        writer.write(b".")
        await writer.drain()
        await asyncio.sleep(0.02)


def answered(status: str = "200 OK", *, headers: str = "", body: bytes = b"{}") -> Handler:
    return writes(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body)


def said_of(error: BaseException | None) -> str:
    """All that a log could print of the error and of what is behind it."""
    said = ""
    while error is not None:
        said += f"{error!s} {error!r} {vars(error)!r}"
        error = error.__cause__ or error.__context__
    return said


@pytest.mark.parametrize("size", [0, 1, 2**20, 2**20 + 1, 3_000_000])
async def test_a_body_of_any_size_arrives_whole_with_its_length(size: int) -> None:
    server = Server(answered())
    picture = bytes(range(256)) * (size // 256) + bytes(size % 256)
    async with listening(server) as url, opened() as api:
        await post(api, url, picture)
    assert server.bodies == [picture]
    assert b"transfer-encoding" not in server.heads[0].lower()


@pytest.mark.parametrize(
    "status", ["200 OK", "307 Temporary Redirect", "429 Too Many Requests", "500 No", "503 No"]
)
async def test_any_status_is_an_answer_and_is_asked_for_once(status: str) -> None:
    server = Server(answered(status, headers="Location: /again\r\nRetry-After: 7\r\nX-B: 1\r\n", body=b'{"a": 1}'))
    async with listening(server) as url, opened() as api:
        reply = await post(api, url, b"\x89PNG")
    assert (reply.status, reply.body) == (int(status[:3]), b'{"a": 1}')
    assert (reply.headers["retry-after"], reply.headers["x-b"]) == ("7", "1")
    assert server.bodies == [b"\x89PNG"]
    assert f"authorization: key {SECRET}".encode() in server.heads[0].lower()


@pytest.mark.parametrize(
    ("then", "read_timeout_s", "error", "words"),
    [
        (hang_up, 5.0, BackendTimeoutError, "broke"),
        (reset, 5.0, BackendTimeoutError, "broke"),
        (hang, 0.25, BackendTimeoutError, "read timeout"),
        (drip, 1.0, BackendTimeoutError, "no complete answer"),
        (
            writes(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nConnection: close\r\n\r\n{"),
            5.0,
            BackendTimeoutError,
            "read",
        ),
        (writes(b"220 mail.example.com ESMTP\r\n\r\n"), 5.0, MalformedReplyError, "not HTTP"),
        (answered(headers="Content-Encoding: gzip\r\n", body=b"no gzip"), 5.0, MalformedReplyError, "not HTTP"),
    ],
)
async def test_a_failure_after_the_request_was_sent_may_be_billed_and_is_sent_once(
    then: Handler, read_timeout_s: float, error: type[BackendError], words: str
) -> None:
    server = Server(then)
    async with listening(server) as url, opened(connect_timeout_s=0.5, read_timeout_s=read_timeout_s) as api:
        with pytest.raises(error, match=words) as raised:
            await post(api, url, b"picture" * 10_000)
    assert raised.value.maybe_billed
    assert raised.value.backend == "vendor"
    assert server.requests == 1
    assert SECRET not in said_of(raised.value)


@pytest.mark.parametrize("method", ["POST", "PUT"])
async def test_a_kept_connection_that_breaks_is_not_asked_again(method: str) -> None:
    server = Server(answered())

    async def then(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await (answered() if server.requests == 1 else hang_up)(reader, writer)

    server.then = then
    async with listening(server) as url, opened() as api:
        await post(api, url, method=method)
        with pytest.raises(BackendTimeoutError):
            await post(api, url, method=method)
    assert (server.requests, server.connections) == (2, 1)


async def test_a_connection_that_was_closed_while_idle_is_replaced() -> None:
    async def then(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answered()(reader, writer)
        writer.close()

    server = Server(then)
    async with listening(server) as url, opened() as api:
        for _ in range(3):
            await post(api, url)
            await asyncio.sleep(0.05)
    assert (server.requests, server.connections) == (3, 3)


async def test_a_body_that_nobody_reads_ends_in_time() -> None:
    async def deaf(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(5)
        writer.close()

    async with listening(deaf) as url, opened(connect_timeout_s=0.1, read_timeout_s=0.2) as api:
        with pytest.raises(BackendTimeoutError, match="no complete answer"):
            await post(api, url, bytes(20_000_000))


async def test_a_refusal_before_the_body_was_read_is_heard() -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await answered("401 Unauthorized", headers="Connection: close\r\n")(reader, writer)
        while await reader.read(2**20):
            pass
        writer.close()

    async with listening(refuse) as url, opened() as api:
        assert (await post(api, url, bytes(5_000_000))).status == 401


async def test_an_endless_answer_is_cut() -> None:
    server = Server(answered(body=bytes(LARGEST_REPLY + 1)))
    async with listening(server) as url, opened() as api:
        with pytest.raises(MalformedReplyError, match="larger") as raised:
            await post(api, url)
    assert len(raised.value.reply) <= 2**16


async def test_where_nothing_listens_nothing_is_billed() -> None:
    async with listening(Server(hang)) as url:
        pass
    async with opened() as api:
        with pytest.raises(BackendUnavailableError, match="no connection") as raised:
            await post(api, url)
        assert not raised.value.maybe_billed
        with pytest.raises(BackendUnavailableError, match="host's name"):
            await post(api, "http://no-such-host.invalid")


async def test_a_connection_that_is_never_made_is_a_connect_timeout() -> None:
    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with listening(mute) as url, opened(connect_timeout_s=0.2) as api:
        with pytest.raises(BackendUnavailableError, match="connect timeout"):
            await post(api, url.replace("http:", "https:"))


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that signs itself, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    made, key = folder / "cert.pem", folder / "key.pem"
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=127.0.0.1 "
        f"-addext subjectAltName=IP:127.0.0.1 -keyout {key} -out {made}"
    )
    subprocess.run(command.split(), check=True, capture_output=True, timeout=30)
    return made, key


async def test_tls_is_checked_against_the_named_authority(certificate: tuple[Path, Path]) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(*certificate)
    server = Server(answered())
    async with listening(server, tls) as url:
        async with opened(verify=str(certificate[0])) as api:
            assert (await post(api, url)).status == 200
        async with opened() as api:
            with pytest.raises(BackendUnavailableError, match="`verify`"):
                await post(api, url)
    assert server.requests == 1


async def test_plain_http_where_tls_is_expected_is_no_secure_connection() -> None:
    async with listening(writes(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as url, opened() as api:
        with pytest.raises(BackendUnavailableError, match="no secure connection"):
            await post(api, url.replace("http:", "https:"))


async def test_a_proxy_of_the_environment_is_used_and_blamed(monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = Server(answered(body=b'"by proxy"'))
    async with listening(proxy) as url:
        monkeypatch.setenv("http_proxy", url)
        async with opened() as api:
            assert (await post(api, "http://vendor.invalid")).body == b'"by proxy"'
    assert proxy.heads[0].startswith(b"POST http://vendor.invalid/classify HTTP/1.1")
    async with opened() as api:
        with pytest.raises(BackendUnavailableError, match="HTTPS_PROXY"):
            await post(api, "http://vendor.invalid")


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_proxy_is_told_the_user_in_its_address(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    heads: list[bytes] = []

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        await answered("502 No", headers="Connection: close\r\n")(reader, writer)

    async with listening(refuse) as url, opened() as api:
        monkeypatch.setenv(f"{scheme}_proxy", url.replace("//", "//user:word@"))
        with contextlib.suppress(BackendUnavailableError):
            await post(api, f"{scheme}://vendor.invalid", b"")
    assert b"proxy-authorization: basic dxnlcjp3b3jk\r\n" in heads[0].lower()


@pytest.mark.parametrize(
    ("exception", "proxied"), [("*", False), ("localhost,127.0.0.1", False), ("127.0.0.2", True), ("", True)]
)
async def test_no_proxy_is_obeyed(exception: str, proxied: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy, vendor = Server(answered()), Server(answered())
    async with listening(proxy) as proxy_url, listening(vendor) as url, opened() as api:
        monkeypatch.setenv("http_proxy", proxy_url)
        monkeypatch.setenv("no_proxy", exception)
        await post(api, url)
    assert (proxy.requests, vendor.requests) == (int(proxied), int(not proxied))


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1080", "http://[::1", "http://"])
async def test_what_is_no_proxys_address_is_a_setting_to_change(
    proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", proxy)
    async with opened() as api:
        with pytest.raises(ConfigError, match="HTTP_PROXY"):
            await post(api, "http://vendor.invalid")


async def test_a_proxy_that_refuses_the_tunnel_is_blamed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await answered("407 Proxy Authentication Required")(reader, writer)
        writer.close()

    async with listening(refuse) as url:
        monkeypatch.setenv("https_proxy", url)
        async with opened() as api:
            with pytest.raises(BackendUnavailableError, match="HTTPS_PROXY"):
                await post(api, "https://vendor.invalid")


async def test_no_more_requests_are_under_way_than_asked_for_and_the_others_wait() -> None:
    most = under_way = 0

    async def slowly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal most, under_way
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.02)
        under_way -= 1
        await answered()(reader, writer)

    server = Server(slowly)
    async with listening(server) as url, opened(concurrency=3) as api:
        replies = await asyncio.gather(*(post(api, url) for _ in range(60)))
    assert [reply.status for reply in replies] == [200] * 60
    assert most == server.connections == 3


async def test_a_request_that_is_cancelled_gives_its_place_back() -> None:
    server = Server(hang)
    async with listening(server) as url, opened(concurrency=1) as api:
        task = asyncio.create_task(post(api, url))
        async with asyncio.timeout(5):
            await server.asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        server.then = answered()
        assert (await post(api, url)).status == 200


async def test_closing_twice_is_fine_and_then_nothing_is_sent() -> None:
    server = Server(answered())
    async with listening(server) as url, opened() as api:
        await post(api, url)
        await api.aclose()
        await api.aclose()
        with pytest.raises(BackendError, match="closed"):
            await post(api, url)
    assert server.requests == 1


async def test_closing_ends_what_is_under_way_and_sends_nothing_that_waits() -> None:
    server = Server(hang)
    async with listening(server) as url, opened(concurrency=1) as api:
        tasks = [asyncio.create_task(post(api, url)) for _ in range(3)]
        async with asyncio.timeout(5):
            await server.asked.wait()
        await api.aclose()
        sent, *waited = await asyncio.gather(*tasks, return_exceptions=True)
    assert type(sent) is BackendTimeoutError
    assert [(type(error), str(error)) for error in waited] == [(BackendError, "vendor was closed")] * 2
    assert server.requests == 1


async def test_of_any_number_of_addresses_only_some_are_remembered() -> None:
    async with listening(Server(answered())) as url, opened() as api:
        for number in range(KEPT_ROUTES + 2):
            assert (await post(api, f"{url}/?{number}")).status == 200
        assert len(api._routes) <= KEPT_ROUTES


def test_another_event_loop_is_refused() -> None:
    async def ask(api: HttpApi) -> None:
        async with listening(Server(answered())) as url:
            await post(api, url)

    async def ask_and_close() -> HttpApi:
        async with opened() as api:
            await ask(api)
            with pytest.raises(BackendError, match="event loop"):
                await asyncio.to_thread(asyncio.run, ask(api))
        return api

    asyncio.run(ask_and_close())


@pytest.mark.parametrize(
    ("url", "value", "words"),
    [
        ("ftp://host", "k", "https://"),
        ("/path", "k", "https://"),
        ("http://[::1", "k", "no URL"),
        ("http://127.0.0.1:1", f"{SECRET}\n", "'key'.*line end"),
        ("http://127.0.0.1:1", f"{SECRET}\u201d", "quotation mark"),
    ],
)
async def test_what_cannot_be_sent_is_a_setting_to_change(url: str, value: str, words: str) -> None:
    async with opened() as api:
        with pytest.raises(ConfigError, match=words) as raised:
            await api.send("POST", url, headers={"key": value}, content=b"")
    assert SECRET not in said_of(raised.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"concurrency": 0}, "concurrency is 0"),
        ({"connect_timeout_s": 0.0}, "connect_timeout_s is 0"),
        ({"read_timeout_s": float("nan")}, "read_timeout_s is nan"),
        ({"verify": "no-such-file.pem"}, "no such file"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, object], words: str) -> None:
    usual: dict[str, object] = {"concurrency": 1, "connect_timeout_s": 1.0, "read_timeout_s": 1.0}
    with pytest.raises(ConfigError, match=words):
        HttpApi("vendor", **(usual | options))  # type: ignore[arg-type]


async def test_a_file_that_holds_no_certificate_is_named(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("not PEM")
    async with opened(verify=str(tmp_path / "ca.pem")) as api:
        with pytest.raises(ConfigError, match=r"ca\.pem"):
            await post(api, "https://127.0.0.1:1")


DATE = r"\A[A-Z][a-z]{2}, [0-9]{2} (Jan|Nov) [0-9]{4} [0-9]{2}:[0-9]{2}:[0-9]{2} (GMT|[+-][0-9]{4})\Z"
NOW = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": " 1.5 "}, 1.5),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "Sat, 21 Nov 2026 12:01:40 GMT"}, 100.0),
        ({"retry-after": "Sat, 21 Nov 2026 13:01:40 +0100"}, 100.0),
        ({"retry-after": "Sat, 21 Nov 2026 11:00:00 GMT"}, 0.0),
        ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
        ({"x-ms-retry-after-ms": "1500"}, 1.5),
        ({}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "1e999"}, None),
        ({"retry-after": "Sat, 99 Nov 2026 25:61:61 GMT"}, None),
    ],
)
def test_how_long_to_wait_is_read(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_s(headers, NOW) == seconds


@given(st.dictionaries(st.sampled_from(["retry-after", "retry-after-ms"]), st.text() | st.from_regex(DATE)))
def test_any_header_is_a_time_to_wait_or_none(headers: dict[str, str]) -> None:
    seconds = retry_after_s(headers, NOW)
    assert seconds is None or 0 <= seconds < float("inf")


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"a": NaN}', b"\xff\xfe", b"[" * 100_000, b'{"a": 1'])
def test_a_body_that_is_no_json_is_kept_in_the_error(body: bytes) -> None:
    with pytest.raises(MalformedReplyError, match="HTTP 200") as raised:
        json_of(HttpReply(200, {}, body), "vendor")
    assert raised.value.reply == body


def test_a_json_body_is_read() -> None:
    assert json_of(HttpReply(200, {}, b'{"a": [1.5, null]}'), "vendor") == {"a": [1.5, None]}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("vision.example.com", "https://"),
        ("ftp://example.com", "https://"),
        ("", "https://"),
        ("http://[::1", "https://"),
        (f"https://user:{SECRET}@example.com", "without a user"),
        (f"https://example.com/?key={SECRET}", "without a user"),
    ],
)
def test_an_address_that_cannot_be_one_is_refused_without_repeating_it(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=f"vendor: endpoint: .*{words}") as raised:
        http_url(text, source="vendor: endpoint")
    assert SECRET not in said_of(raised.value)


def test_an_address_keeps_its_path_and_loses_its_last_slash() -> None:
    assert http_url("http://127.0.0.1:80/gateway/", source="") == "http://127.0.0.1:80/gateway"
