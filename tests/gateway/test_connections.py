"""Heads in pieces, trailers without end and bodies that cannot be read on: what uvicorn leaves to us."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from smoothing_proxy.gateway.connections import HEAD_BYTES, _without_upgrade
from tests.gateway.forms import forms
from tests.gateway.gateways import KEY_ID, SECRET, There, picture, serving
from tests.gateway.test_fuzz_wire import answer, closing, connected, status, until_bodies_are_gone

FORMS = forms(dict.fromkeys(("aws", "google", "azure", "clarifai", "openai", "native"), (KEY_ID, SECRET)))


@pytest.fixture(scope="module")
def there() -> Iterator[There]:
    with serving(trusted_proxies=["127.0.0.0/8"]) as there:  # which makes another scope of each request's
        yield there


WISH = b"\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
HEAD = b"POST / HTTP/1.1" + WISH + b"Host: x\r\nContent-Length: 3\r\n\r\n"


@pytest.mark.parametrize("upgrade_first", [True, False])
def test_a_head_in_any_two_pieces_loses_its_wish_for_another_protocol_and_nothing_else(
    upgrade_first: bool,
) -> None:
    head = (
        HEAD
        if upgrade_first
        else HEAD.replace(b"Upgrade: h2c\r\n", b"").replace(b"\r\n\r\n", b"\r\nUpgrade: h2c\r\n\r\n")
    )
    whole = re.sub(rb"Upgrade: h2c\r\n", b"", head) + b"abc"
    for at in range(len(head)):
        first, kept = _without_upgrade(head[:at])
        second, left = _without_upgrade(kept + head[at:] + b"abc")
        assert (first + second, left) == (whole, b""), head[:at]
    byte_by_byte, kept = b"", b""
    for byte in head:
        fed, kept = _without_upgrade(kept + bytes([byte]))
        byte_by_byte += fed
    assert (byte_by_byte + b"abc", kept) == (whole, b"")


def test_a_client_whose_wish_for_another_protocol_comes_in_two_pieces_is_answered_in_this_one(
    there: There,
) -> None:
    request = closing(FORMS["azure"].raw(there.url, picture(4))).replace(b"\r\n", WISH, 1)
    for at in (request.index(b"h2c"), request.index(b"Upgrade: ") - 1, request.index(b"\r\n\r\n") + 2):
        with connected(there) as wire:
            wire.sendall(request[:at])
            there.client.get("/health/live")  # meanwhile it has read the first piece
            wire.sendall(request[at:])
            assert status(answer(wire)) == 200


def chunked(request: bytes, body: bytes) -> bytes:
    """The head of the request, with this in the place of its body."""
    head = re.sub(rb"content-length: \d+", b"transfer-encoding: chunked", request.partition(b"\r\n\r\n")[0])
    return head + b"\r\n\r\n" + body


BROKEN = {
    "no number": b"zz\r\nabc",
    "a chunk that goes on": b"3\r\nabcdef\r\n",
    "a bad trailer": b"0\r\nx y\r\n\r\n",
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("body", BROKEN.values(), ids=BROKEN)
def test_a_body_that_cannot_be_read_on_is_refused_in_the_vendors_own_words(
    there: There, form: str, body: bytes
) -> None:
    with connected(there) as wire:
        wire.sendall(chunked(FORMS[form].raw(there.url, b""), b"3\r\nabc\r\n" + body))
        reply = answer(wire)
    head, _, said = reply.partition(b"\r\n\r\n")
    assert (status(reply), reply.count(b"HTTP/1.1")) == (400, 1)
    assert b"connection: close" in head.lower()
    assert b"chunks" in said
    assert json.loads(said)
    until_bodies_are_gone(there)


def test_what_cannot_be_read_after_a_whole_request_ends_the_connection_after_its_answer(there: There) -> None:
    request = FORMS["native"].raw(there.url, picture(9))
    with connected(there) as wire:
        wire.sendall(request + b"this is no HTTP\r\n\r\n")
        reply = answer(wire)
    assert re.findall(rb"HTTP/1.1 (\d+)", reply) == [b"200"]


@pytest.mark.parametrize(
    "flood", [b"x-long: y\r\n" * 20, b"x" * 200], ids=["many trailers", "one trailer without an end"]
)
def test_trailers_without_an_end_are_refused_before_they_are_many(there: There, flood: bytes) -> None:
    sent = 0
    with connected(there) as wire:
        wire.sendall(chunked(FORMS["azure"].raw(there.url, b""), b"3\r\nabc\r\n0\r\n"))
        try:
            while sent < 400 * HEAD_BYTES:  # more than all the buffers on the way
                wire.sendall(flood * 100)
                sent += 100 * len(flood)
            raise AssertionError("they were all taken")
        except (BrokenPipeError, ConnectionResetError):
            pass
    until_bodies_are_gone(there)


def test_trailers_are_no_headers(there: There) -> None:
    """Or one who is let in by nobody could be by a trailer."""
    image = picture(17)
    request = chunked(
        closing(FORMS["azure"].raw(there.url, b"")),
        b"%x\r\n" % len(image) + image + b"\r\n0\r\nx-smoothing-target-radius: nonsense\r\n\r\n",
    )
    with connected(there) as wire:
        wire.sendall(request)
        assert status(answer(wire)) == 200
