"""Verdicts for who has nothing but the picture and a key: Google's clients show no header."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from smoothing_proxy.gateway.native_front import MOST_VERDICTS
from tests.gateway import sdks
from tests.gateway.gateways import KEY_ID, OTHER, SECRET, There, picture, serving
from tests.ledger.gateway.stores import HandClock, open_store


@pytest.fixture(scope="module")
def there() -> Iterator[There]:
    with serving() as running:
        yield running


def about(there: There, image: bytes, **headers: str) -> httpx.Response:
    sha256 = hashlib.sha256(image).hexdigest()
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return there.client.get("/v1/verdicts", params={"sha256": sha256}, headers=names)


@pytest.mark.parametrize("ask", [sdks.google_rest, sdks.google_grpc])
def test_a_user_of_googles_client_finds_the_verdict_by_the_picture(there: There, ask: Any) -> None:
    image = picture(11 if ask is sdks.google_rest else 12)
    assert about(there, image, x_goog_api_key=SECRET).json() == {"verdicts": []}
    labels = ask(there, image)
    (verdict,) = about(there, image, x_goog_api_key=SECRET).json()["verdicts"]
    assert (verdict["label"], verdict["hardened"], verdict["copies"]) == ("Dog", True, 12)
    assert [label["name"] for label in verdict["labels"]] == [name for name, _ in labels]
    read = there.client.get(f"/v1/verdicts/{verdict['id']}", headers={"x-goog-api-key": SECRET})
    assert read.json() == verdict


def test_they_are_told_to_their_own_key_alone(there: There) -> None:
    image = picture(13)
    verdict = there.ask(image=image).json()
    found = {
        f"Bearer {SECRET}": [verdict],
        f"Key {SECRET}": [verdict],
        f"Bearer {OTHER}": [],
    }
    for authorization, verdicts in found.items():
        assert about(there, image, authorization=authorization).json()["verdicts"] == verdicts
    assert about(there, image, authorization="Bearer nobody").status_code == 401
    assert about(there, image).status_code == 401


def test_a_signed_request_finds_them_too(there: There) -> None:
    from botocore.auth import SigV4Auth  # type: ignore[import-untyped, unused-ignore]
    from botocore.awsrequest import AWSRequest  # type: ignore[import-untyped, unused-ignore]
    from botocore.credentials import Credentials  # type: ignore[import-untyped, unused-ignore]

    image = picture(14)
    sdks.boto3(there, image)
    url = f"{there.url}/v1/verdicts?sha256={hashlib.sha256(image).hexdigest()}"
    signed = AWSRequest("GET", url)
    SigV4Auth(Credentials(KEY_ID, SECRET), "rekognition", "us-east-1").add_auth(signed)
    (verdict,) = httpx.get(url, headers=dict(signed.headers)).json()["verdicts"]
    assert verdict["label"] == "Dog"


def test_the_newest_comes_first(there: There) -> None:
    image = picture(15)
    ids = [
        there.ask("/v1/certify", image, headers={"x-smoothing-target-radius": radius}).json()["id"]
        for radius in ("0.1", "0.2", "0.1")
    ]
    told = [verdict["id"] for verdict in about(there, image, x_api_key=SECRET).json()["verdicts"]]
    assert told == [ids[1], ids[0]]


@pytest.mark.parametrize("sha256", [None, "", "x" * 64, "0" * 63, "0" * 65, "0" * 64 + "\n", "'; --"])
def test_what_is_no_sha256_is_refused(there: There, sha256: str | None) -> None:
    params = {} if sha256 is None else {"sha256": sha256}
    reply = there.client.get("/v1/verdicts", params=params, headers={"x-api-key": SECRET})
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "bad_request")


def test_an_unhardened_answer_is_marked_where_googles_client_cannot_show_it() -> None:
    with serving(harden=False, vendors=("google",)) as there:
        assert sdks.google_grpc(there, picture(16))
        (verdict,) = about(there, picture(16), x_goog_api_key=SECRET).json()["verdicts"]
    assert (verdict["hardened"], verdict["label"], verdict["radius"]) == (False, None, 0.0)


def test_the_database_tells_the_same(tmp_path: Path) -> None:
    async def work() -> None:
        clock = HandClock()
        async with open_store(str(tmp_path / "gateway.db"), clock) as store:
            ann, _ = await store.create_key("ann", "google")
            bob, _ = await store.create_key("bob", "google")
            for number in range(MOST_VERDICTS + 1):
                clock.time += 1
                await store.remember(ann.id, "a" * 64, f"settings {number}", f"[{number}]")
            await store.remember(ann.id, "b" * 64, "settings", "[]")
            newest = [f"[{number}]" for number in range(MOST_VERDICTS, 0, -1)]
            assert await store.verdicts("a" * 64, ann.id, MOST_VERDICTS) == newest
            assert await store.verdicts("a" * 64, bob.id, MOST_VERDICTS) == []

    anyio.run(work)
