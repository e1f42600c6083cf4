"""A simulator that is asked in order and out of order: keys, limits, bodies, batches."""

from __future__ import annotations

import asyncio
import json
import ssl
import subprocess
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest

from smoothing_proxy.backends.base import Backend
from smoothing_proxy.backends.local.callable import callable_backend
from smoothing_proxy.backends.scripted import ScriptedBackend
from smoothing_proxy.errors import BackendError, ConfigError
from smoothing_proxy.images.codec import Encoding, encode
from smoothing_proxy.settings_file import parse_settings
from smoothing_proxy.simulator.server import running
from smoothing_proxy.simulator.settings import SimulatorSettings
from smoothing_proxy.wire.base import Limits
from tests.simulator.asking import Seen, bench, run
from tests.simulator.plain_wire import AUTHORIZATION, PLAIN, PlainWire, body, picture

NOISE = encode(np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8), Encoding("png")).data
LARGE = encode(np.random.default_rng(1).integers(0, 256, (90, 90, 3), np.uint8), Encoding("png")).data


def asked(data: Any = None, backend: Backend | None = None, **how: Any) -> Seen:
    async def work() -> Seen:
        async with bench(backend) as there:
            return await there.ask(data, **how)

    return run(work)


def answers(seen: Seen) -> list[str]:
    """Best label or fault of each picture."""
    assert seen.status == 200, seen.body
    found = json.loads(seen.body)["answers"]
    return [answer["error"] if "error" in answer else answer["labels"][0][0] for answer in found]


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        ("Plain simulator simulator-secret", 200),
        ("Plain simulator-secret simulator-secret", 200),
        ("Plain simulator wrong", 401),
        ("Plain nobody simulator-secret", 401),
        ("Plain s\u00e9cret s\u00e9cret", 401),
        ("Basic c2ltdWxhdG9y", 401),
        ("", 401),
    ],
)
def test_only_the_key_is_let_in(authorization: str, status: int) -> None:
    assert asked(headers={"authorization": authorization}).status == status


@pytest.mark.parametrize(
    ("image", "answer"),
    [
        (picture(side=16), "cat"),
        (picture(kind="jpeg"), "cat"),
        (NOISE, "cat"),
        (LARGE, "image too large"),
        (picture(side=7), "bad image"),
        (picture(side=65), "bad image"),
        (picture()[:-40], "bad image"),
        (b"GIF89a" + bytes(20), "bad image"),
        (b"not a picture", "bad image"),
        (b"", "bad image"),
    ],
)
def test_a_picture_outside_of_the_limits_is_its_own_fault_and_not_billed(image: bytes, answer: str) -> None:
    async def work() -> tuple[Seen, dict[str, Any]]:
        async with bench() as there:
            return await there.ask(body(picture(), image)), await there.till()

    seen, till = run(work)
    assert answers(seen) == ["cat", answer]
    assert till["billed"] == 1 + (answer == "cat")


@pytest.mark.parametrize(
    ("image", "answer"),
    [(picture(), "cat"), (picture()[:-40], "cat"), (picture(side=7), "bad image"), (LARGE, "image too large")],
)
def test_without_checks_a_picture_is_judged_by_its_header(image: bytes, answer: str) -> None:
    async def work() -> Seen:
        async with bench(settings=SimulatorSettings(check_pictures=False)) as there:
            return await there.ask(body(image))

    assert answers(run(work)) == [answer]


@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_the_classifier_sees_the_picture_that_was_sent(check: bool, kind: Any) -> None:
    async def work() -> Seen:
        backend = callable_backend(lambda pixels: [f"{shade.shape}{int(shade.mean())}" for shade in pixels])
        async with bench(backend, settings=SimulatorSettings(check_pictures=check)) as there:
            seen = await there.ask(body(picture(40, 16, kind), picture(200, 24, kind)))
        await backend.aclose()
        return seen

    assert answers(run(work)) == ["(16, 16, 3)40", "(24, 24, 3)200"]


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (body(*[picture()] * 4), 200),
        (body(*[picture()] * 5), 400),
        (b"{", 400),
        (b"", 400),
        (b" " * 100_001, 413),
    ],
)
def test_a_request_outside_of_the_limits_is_refused_as_a_whole(data: bytes, status: int) -> None:
    assert asked(data).status == status


@pytest.mark.parametrize(("size", "status"), [(1_000, 200), (100_001, 413)])
def test_bodies_may_come_in_chunks_of_no_announced_length(size: int, status: int) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        whole = body(picture()).ljust(size)
        for start in range(0, len(whole), 100):
            yield whole[start : start + 100]

    assert asked(chunks()).status == status


def test_a_client_that_waits_to_be_told_to_go_on_is_told() -> None:
    async def work() -> Seen:
        async with bench() as there:
            url = f"{there.address.url}/plain"
            async with there.client.post(
                url, data=body(picture()), headers=AUTHORIZATION, expect100=True
            ) as reply:
                return Seen("reply", reply.status)

    assert run(work).status == 200


@pytest.mark.parametrize(("path", "status"), [("/other", 404), ("/_simulator/else", 404), ("/plain?x=1", 200)])
def test_other_addresses_are_not_served(path: str, status: int) -> None:
    assert asked(path=path).status == status


def test_a_client_that_leaves_in_the_middle_of_its_request_is_not_billed() -> None:
    async def work() -> dict[str, Any]:
        async with bench() as there:
            _, writer = await asyncio.open_connection("127.0.0.1", there.address.port)
            writer.write(b"POST /plain HTTP/1.1\r\nhost: x\r\ncontent-length: 500\r\n\r\nhalf")
            await writer.drain()
            await there.until(lambda till: till["requests"] == 1)
            writer.close()
            return await there.settled()

    till = run(work)
    assert (till["outcomes"], till["billed"]) == ({"not received": 1}, 0)


def test_questions_that_arrive_together_are_asked_in_batches() -> None:
    sizes: list[int] = []
    all_arrived = threading.Event()

    def slow(pixels: Any) -> list[str]:
        sizes.append(len(pixels))
        all_arrived.wait(10)
        return ["cat"] * len(pixels)

    async def work() -> list[int]:
        backend = callable_backend(slow, batch_size=8)
        async with bench(backend) as there:
            asked = [asyncio.ensure_future(there.ask(body(picture(level)), wait_s=20)) for level in range(24)]
            await there.until(lambda till: till["distinct"] == 24)
            await asyncio.sleep(0.2)  # for the last of them to be decoded
            all_arrived.set()
            seen = await asyncio.gather(*asked)
        await backend.aclose()
        return [one.status for one in seen]

    assert run(work) == [200] * 24
    assert sum(sizes) == 24
    assert max(sizes) == 8
    assert len(sizes) <= 5, "two that were first, and the rest in full batches"


class Broken:
    """A backend whose every request fails as `error`."""

    name, price_usd, concurrency, batch_size, remote = "broken", 0.0, 2, 4, False
    encoding = Encoding()
    fingerprint: Mapping[str, str] = {}

    def __init__(self, error: Exception) -> None:
        self.error = error

    async def classify(self, copies: Sequence[Any]) -> Any:
        raise self.error

    async def aclose(self) -> None: ...


@pytest.mark.parametrize("error", [BackendError("gone"), ConfigError("no such file"), RuntimeError("a bug")])
def test_a_classifier_that_fails_is_an_internal_error_and_not_billed(error: Exception) -> None:
    async def work() -> tuple[Seen, Seen, int]:
        async with bench(Broken(error)) as there:
            return await there.ask(), await there.ask(), (await there.till())["billed"]

    first, second, billed = run(work)
    assert (answers(first), answers(second), billed) == (["internal error"], ["internal error"], 0)


def test_a_port_that_is_taken_is_named() -> None:
    async def work() -> None:
        async with bench() as there:
            taken = SimulatorSettings(port=there.address.port)
            async with running(taken, PLAIN, ScriptedBackend("cat")):
                pass

    with pytest.raises(ConfigError, match="cannot listen on"):
        run(work)


def test_a_stop_does_not_wait_for_replies_that_hang() -> None:
    async def work() -> str:
        async with bench(hang=1.0) as there:
            hanging = asyncio.ensure_future(there.ask())
            await asyncio.sleep(0.1)
            assert not hanging.done()
        return "stopped"

    assert run(work) == "stopped"


def test_https(tmp_path: Path) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    made = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    subprocess.run(
        ["openssl", *made.split(), "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", cert],
        check=True,
        capture_output=True,
        timeout=20,
    )

    async def work(**faults: Any) -> tuple[str, str]:
        settings = SimulatorSettings(tls_cert=cert, tls_key=key)
        trust = ssl.create_default_context(cafile=str(cert))
        async with (
            bench(settings=settings, **faults) as there,
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trust)) as client,
        ):
            seen = await type(there)(there.address, client).ask()
            return there.address.url[:8], f"{seen.what} {seen.status}"

    assert run(work) == ("https://", "reply 200")
    assert run(lambda: work(reset_after=1.0)) == ("https://", "reset 0")


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"tls_cert": "cert.pem"}, "both are needed, or neither"),
        ({"port": 70_000}, "port"),
        ({"secret": ""}, "secret"),
    ],
)
def test_settings_that_make_no_sense_are_refused(values: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        parse_settings(SimulatorSettings, values, source="command line")


def test_a_missing_certificate_is_named(tmp_path: Path) -> None:
    settings = SimulatorSettings(tls_cert=tmp_path / "cert.pem", tls_key=tmp_path / "key.pem")

    async def work() -> None:
        async with running(settings, PlainWire(Limits(1, 1)), ScriptedBackend("cat")):
            pass

    with pytest.raises(ConfigError, match=r"cert\.pem"):
        run(work)


def test_the_secret_is_not_in_the_settings_text() -> None:
    assert "simulator-secret" not in repr(SimulatorSettings())
