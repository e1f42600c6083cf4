"""Requests that no SDK sends, byte by byte: an answer below 500, in time, or a closed connection."""

from __future__ import annotations

import random
import re
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from smoothing_proxy.backends.scripted import ScriptedBackend
from smoothing_proxy.gateway.connections import PIPELINED
from tests.gateway.forms import forms
from tests.gateway.gateways import DOG, KEY_ID, SECRET, There, picture, serving

FORMS = forms(dict.fromkeys(("aws", "google", "azure", "clarifai", "openai", "native"), (KEY_ID, SECRET)))

PATIENCE_S = 10.0

LATE_S = 0.3
"""After which the gateway gives up on a request that does not arrive."""


@pytest.fixture(scope="module")
def there() -> Iterator[There]:
    with serving(body_timeout_s=LATE_S) as there:
        yield there


def connected(there: There) -> socket.socket:
    return socket.create_connection((there.address.host, there.address.port), timeout=PATIENCE_S)


def answer(wire: socket.socket) -> bytes:
    """All that comes before the connection ends. A reset is an end, too; only silence is none."""
    parts = []
    try:
        while part := wire.recv(65_536):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


def status(reply: bytes) -> int:
    """Of the first answer; 0 where there is none."""
    return int(reply.split(b" ", 2)[1]) if reply else 0


def closing(request: bytes) -> bytes:
    """The request, with the wish that the connection ends after it."""
    return request.replace(b"\r\n", b"\r\nConnection: close\r\n", 1)


def exchanged(there: There, request: bytes) -> int:
    with connected(there) as wire:
        try:
            wire.sendall(request)
        except (BrokenPipeError, ConnectionResetError):
            return 0
        return status(answer(wire))


Damage = Callable[[random.Random, bytes], bytes]


def flipped(rng: random.Random, request: bytes) -> bytes:
    damaged = bytearray(request)
    for _ in range(rng.randint(1, 8)):
        damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def truncated(rng: random.Random, request: bytes) -> bytes:
    return request[: rng.randrange(len(request))]


def doubled_header(rng: random.Random, request: bytes) -> bytes:
    head, _, body = request.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    line = rng.choice(lines[1:])
    if rng.random() < 0.5:
        line = line.partition(b":")[0] + b": " + rng.randbytes(6).hex().encode()
    lines.insert(rng.randrange(1, len(lines)), line)
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def other_type(rng: random.Random, request: bytes) -> bytes:
    types = (b"text/plain", b"multipart/form-data", b"application/x-www-form-urlencoded", b"x", b"", b"\xff/\xfe")
    head, _, body = request.partition(b"\r\n\r\n")
    kept = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"content-type")]
    kept.append(b"content-type: " + rng.choice(types))
    return b"\r\n".join(kept) + b"\r\n\r\n" + body


def chunked(rng: random.Random, request: bytes) -> bytes:
    """In chunks, now and then with a length that is wrong, or no number at all."""
    lengths = (b"%x",) * 30 + (b"zz", b"-1", b"ffffffffffffffff", b"")
    return in_chunks(rng, request, lengths, (b"0\r\n\r\n", b"", b"0\r\nx: y\r\n\r\n"))


def in_chunks(
    rng: random.Random,
    request: bytes,
    lengths: Sequence[bytes] = (b"%x",),
    ends: Sequence[bytes] = (b"0\r\n\r\n",),
) -> bytes:
    head, _, body = request.partition(b"\r\n\r\n")
    kept = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"content-length")]
    kept.append(b"transfer-encoding: chunked")
    parts = []
    while body:
        size = rng.randint(1, 200)
        stated = rng.choice(lengths).replace(b"%x", b"%x" % len(body[:size]))
        parts.append(stated + b"\r\n" + body[:size] + b"\r\n")
        body = body[size:]
    return b"\r\n".join(kept) + b"\r\n\r\n" + b"".join(parts) + rng.choice(ends)


def deep(rng: random.Random, request: bytes) -> bytes:
    opening = rng.choice((b"[", b'{"a":', b'{"Image":', b'{"requests":[', b'{"inputs":[{"data":'))
    return with_body(request, opening * rng.choice((100, 1_000, 100_000)))


def huge_numbers(rng: random.Random, request: bytes) -> bytes:
    number = rng.choice((b"1e999", b"-1e999", b"1" * 5_000, b"0." + b"1" * 5_000, b"NaN", b"-0", b"1e-999"))
    names = (b"MaxLabels", b"MinConfidence", b"n", b"temperature", b"max_tokens", b"target_radius", b"model")
    _, _, body = request.partition(b"\r\n\r\n")
    return with_body(request, b'{"' + rng.choice(names) + b'":' + number + b"," + body[1:])


def with_body(request: bytes, body: bytes) -> bytes:
    head, _, old = request.partition(b"\r\n\r\n")
    return head.replace(b"content-length: %d" % len(old), b"content-length: %d" % len(body)) + b"\r\n\r\n" + body


DAMAGES: dict[str, Damage] = {
    "bytes flipped": flipped,
    "truncated": truncated,
    "a header twice": doubled_header,
    "another content type": other_type,
    "chunked": chunked,
    "deep JSON": deep,
    "huge numbers": huge_numbers,
}


def damaged(form: str, damage: str, rng: random.Random, url: str) -> bytes:
    """A request with a body that differs each time. AWS's is signed after its body was changed, not before."""
    body = FORMS[form].body(picture(rng.randrange(256), 80))
    if damage in ("deep JSON", "huge numbers") and form == "aws":
        body = DAMAGES[damage](rng, b"\r\n\r\n" + body).partition(b"\r\n\r\n")[2]
        return closing(FORMS[form].raw(url, body))
    return closing(DAMAGES[damage](rng, FORMS[form].raw(url, body)))


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "count",
    [
        pytest.param(4, id="some"),
        pytest.param(100, id="many", marks=[pytest.mark.slow, pytest.mark.timeout(1_800)]),
    ],
)
def test_damaged_requests_are_answered_or_refused(there: There, form: str, damage: str, count: int) -> None:
    rng = random.Random(f"{form} {damage}")
    for number in range(count):
        request = damaged(form, damage, rng, there.url)
        assert exchanged(there, request) < 500, (number, request[:2_000])
    assert there.client.get("/health/live").status_code == 200
    assert there.gateway.bodies == 0


@pytest.mark.parametrize("form", FORMS)
def test_whole_requests_are_answered(there: There, form: str) -> None:
    """Or the tests of damaged ones would show nothing."""
    request = closing(FORMS[form].raw(there.url, FORMS[form].body(picture(3, 80))))
    assert exchanged(there, request) == 200
    assert exchanged(there, in_chunks(random.Random(1), request)) == 200


@pytest.mark.parametrize("upgrade", ["h2c", "websocket", "TLS/1.2"])
def test_a_client_that_would_rather_speak_another_protocol_is_answered_in_this_one(
    there: There, upgrade: str
) -> None:
    request = FORMS["azure"].raw(there.url, picture(4, 80))
    wish = f"\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: {upgrade}\r\nHTTP2-Settings: AAMAAABk".encode()
    request = request.replace(b"\r\n", wish + b"\r\n", 1)
    with connected(there) as wire:
        for _ in range(2):
            wire.sendall(request)
            reply = b""
            while b'"Dog"' not in reply:
                part = wire.recv(65_536)
                assert part, reply
                reply += part
            assert status(reply) == 200


@pytest.mark.parametrize("beginning", [b"", b"\r\n", b"POST", b"POST / HTTP/1.1\r\nHost: x\r\nX-Part"])
def test_a_head_that_never_arrives_is_given_up(there: There, beginning: bytes) -> None:
    with connected(there) as wire:
        wire.sendall(beginning)
        assert status(answer(wire)) == 400


def test_a_head_that_arrives_byte_by_byte_is_given_up_just_so(there: There) -> None:
    request, began = FORMS["native"].raw(there.url, picture()), time.monotonic()
    with connected(there) as wire:
        wire.settimeout(0.02)
        reply = b""
        for byte in request * 100:
            try:
                wire.sendall(bytes([byte]))
                reply = wire.recv(100)
            except TimeoutError:
                continue
            except OSError:
                break
            break
    assert time.monotonic() - began < PATIENCE_S
    assert status(reply) in (0, 400)


def test_a_head_without_end_is_refused(there: There) -> None:
    with connected(there) as wire:
        try:
            wire.sendall(b"GET /health/live HTTP/1.1\r\n" + b"x-long: y\r\n" * 100_000)
            assert status(answer(wire)) == 400
        except (BrokenPipeError, ConnectionResetError):
            pass  # the refusal came in the middle of it


AHEAD = b"GET /health/live HTTP/1.1\r\nhost: here\r\n\r\n"


@pytest.fixture(scope="module")
def slow() -> Iterator[There]:
    """One whose answers take about half a second."""
    with serving(ScriptedBackend(DOG, concurrency=1, latency_s=0.04), verdict_ttl_s=0) as there:
        yield there


def test_requests_that_are_sent_ahead_are_answered_in_their_order(slow: There) -> None:
    with connected(slow) as wire:
        wire.sendall(FORMS["native"].raw(slow.url, picture(8, 80)) + (PIPELINED - 1) * AHEAD + closing(AHEAD))
        replies = answer(wire)
    assert re.findall(rb"HTTP/1.1 (\d+)", replies) == [b"200"] * (PIPELINED + 1)
    assert b"copies" in replies.partition(b"live")[0]


@pytest.mark.parametrize(
    "ahead",
    [1_000 * AHEAD, AHEAD[:-2] + b"x-long: y\r\n" * 50_000],
    ids=["many requests", "a head without an end"],
)
def test_a_client_that_sends_too_much_ahead_is_let_go_at_once(slow: There, ahead: bytes) -> None:
    with connected(slow) as wire:
        wire.sendall(FORMS["native"].raw(slow.url, picture(len(ahead) % 256, 80)))
        try:
            wire.sendall(ahead)
            replies = answer(wire)
        except (BrokenPipeError, ConnectionResetError):
            replies = b""
    assert replies == b""
    until_bodies_are_gone(slow)
    assert slow.client.get("/health/ready").status_code == 200


def test_a_client_that_closes_its_half_after_a_whole_request_is_answered(there: There) -> None:
    for form in FORMS.values():
        request = form.raw(there.url, form.body(picture(5, 80)))
        with connected(there) as wire:
            wire.sendall(request)
            wire.shutdown(socket.SHUT_WR)
            assert status(answer(wire)) == 200, form.vendor


def test_a_client_that_closes_its_half_too_early_is_let_go_at_once(there: There) -> None:
    request = FORMS["native"].raw(there.url, picture(6, 80))
    with connected(there) as wire:
        wire.sendall(request[:-10])
        wire.shutdown(socket.SHUT_WR)
        assert status(answer(wire)) < 500
    until_bodies_are_gone(there)


def test_a_stranger_hears_the_refusal_after_a_body_that_nobody_reads_and_may_ask_again(there: There) -> None:
    azure = FORMS["azure"]
    stranger = azure.raw(there.url, bytes(2**20)).replace(SECRET.encode(), b"a-key-of-nobodys")
    again = closing(azure.raw(there.url, azure.body(picture(5, 80))))
    with connected(there) as wire:
        wire.sendall(stranger)
        wire.sendall(again)
        replies = answer(wire)
    assert re.findall(rb"HTTP/1.1 (\d+)", replies) == [b"401", b"200"]


def test_a_body_that_goes_on_for_ever_after_its_refusal_is_let_go(there: There) -> None:
    azure = FORMS["azure"]
    stranger = azure.raw(there.url, bytes(1_000)).replace(SECRET.encode(), b"a-key-of-nobodys")
    with connected(there) as wire:
        wire.sendall(stranger[:-10])
        refusal = wire.recv(65_536)
        wire.sendall(stranger[-10:-5])
        replies = refusal + answer(wire)
    assert re.findall(rb"HTTP/1.1 (\d+)", replies) == [b"401"]


def test_clients_that_leave_in_the_middle_leave_nothing_behind(there: There) -> None:
    for number in range(20):
        with connected(there) as wire:
            wire.sendall(FORMS["azure"].raw(there.url, picture(number, 80))[: 100 * number + 50])
    until_bodies_are_gone(there)
    assert there.client.get("/health/ready").status_code == 200


def until_bodies_are_gone(there: There) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while there.gateway.bodies or len(there.gateway.jobs):
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize(
    "count", [pytest.param(40, id="some"), pytest.param(2_000, id="many", marks=pytest.mark.slow)]
)
def test_damaged_protobuf_over_grpc_is_refused(there: There, count: int) -> None:
    import grpc  # type: ignore[import-untyped, unused-ignore]

    rng = random.Random(11)
    whole = annotation(picture(7, 80))
    codes = set()
    with grpc.insecure_channel(f"127.0.0.1:{there.address.grpc_port}") as channel:
        call: Any = channel.unary_unary("/google.cloud.vision.v1.ImageAnnotator/BatchAnnotateImages")
        for number in range(count):
            damage = rng.choice((flipped, truncated, flipped_at_the_head))
            body = damage(rng, whole) if number else b""
            try:
                call(body, metadata=[("x-goog-api-key", SECRET)], timeout=PATIENCE_S)
            except grpc.RpcError as error:
                codes.add(error.code().name)  # type: ignore[attr-defined, unused-ignore]
    assert codes == {"INVALID_ARGUMENT"}


def test_grpc_bodies_beyond_the_memory_for_them_are_told_to_come_back() -> None:
    import grpc  # type: ignore[import-untyped, unused-ignore]

    with serving(bodies_bytes=2**20) as there:
        with grpc.insecure_channel(f"127.0.0.1:{there.address.grpc_port}") as channel:
            call: Any = channel.unary_unary("/google.cloud.vision.v1.ImageAnnotator/BatchAnnotateImages")
            with pytest.raises(grpc.RpcError) as seen:
                call(bytes(2**20 + 1), metadata=[("x-goog-api-key", SECRET)], timeout=PATIENCE_S)
            assert seen.value.code().name == "RESOURCE_EXHAUSTED"  # type: ignore[attr-defined, unused-ignore]
            assert call(annotation(picture(8)), metadata=[("x-goog-api-key", SECRET)], timeout=PATIENCE_S)
        assert there.gateway.bodies == 0


def flipped_at_the_head(rng: random.Random, message: bytes) -> bytes:
    return flipped(rng, message[:12]) + message[12:]


def annotation(image: bytes) -> bytes:
    from google.cloud import vision

    feature = vision.Feature(type_=vision.Feature.Type.LABEL_DETECTION)
    one = vision.AnnotateImageRequest(image=vision.Image(content=image), features=[feature])
    message = vision.BatchAnnotateImagesRequest(requests=[one])
    return bytes(vision.BatchAnnotateImagesRequest.serialize(message))
