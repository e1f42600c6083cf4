"""Pictures in buckets: the vendors' own libraries against a bucket on loopback."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from smoothing_proxy.gateway.fetch_buckets import BucketPictures, object_in
from smoothing_proxy.gateway.references_settings import ReferencesTable
from smoothing_proxy.wire.base import Fault, FetchFault, Place
from tests.gateway.gateways import picture
from tests.gateway.picture_hosts import PictureHost, picture_host

MOST = 100_000
TABLE = ReferencesTable(buckets=("s3://pictures", "gs://pictures"), timeout_s=5.0)


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[PictureHost]:
    with picture_host() as host:
        for name, value in {
            "AWS_ENDPOINT_URL_S3": host.url,
            "AWS_ACCESS_KEY_ID": "OFTHEGATEWAY",
            "AWS_SECRET_ACCESS_KEY": "secret-of-the-gateway",
            "AWS_REGION": "eu-west-1",
            "STORAGE_EMULATOR_HOST": host.url.removeprefix("http://"),
        }.items():
            monkeypatch.setenv(name, value)
        yield host


PATHS = {"s3": "/pictures/{}", "gs": "/storage/v1/b/pictures/o/{}"}


@pytest.mark.anyio
@pytest.mark.parametrize("scheme", ["s3", "gs"])
async def test_an_object_is_read_whole(host: PictureHost, scheme: str) -> None:
    host.put(PATHS[scheme].format("a.png"), picture())
    assert await BucketPictures(TABLE).fetch(Place(f"{scheme}://pictures/a.png", MOST), MOST) == picture()


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("scheme", "name", "fault", "said"),
    [
        ("s3", "large.png", Fault.IMAGE_TOO_LARGE, "larger than"),
        ("s3", "forbidden.png", Fault.BAD_REQUEST, "no such object"),
        ("s3", "missing.png", Fault.BAD_REQUEST, "no such object"),
        ("gs", "large.png", Fault.IMAGE_TOO_LARGE, "larger than"),
        ("gs", "endless.png", Fault.IMAGE_TOO_LARGE, "larger than"),  # S3 always says how long an object is
        ("gs", "forbidden.png", Fault.BAD_REQUEST, "no such object"),
        ("gs", "missing.png", Fault.BAD_REQUEST, "no such object"),
    ],
)
async def test_an_object_that_cannot_be_had_is_a_fault(
    host: PictureHost, scheme: str, name: str, fault: Fault, said: str
) -> None:
    host.put(PATHS[scheme].format("large.png"), bytes(MOST + 1))
    host.put(PATHS[scheme].format("forbidden.png"), b"<Error><Code>AccessDenied</Code></Error>", 403)
    host.endless = (PATHS[scheme].format("endless.png"),)
    host.put(host.endless[0], b"")
    with pytest.raises(FetchFault, match=said) as raised:
        await BucketPictures(TABLE).fetch(Place(f"{scheme}://pictures/{name}", MOST), MOST)
    assert raised.value.fault is fault


@pytest.mark.anyio
@pytest.mark.parametrize("scheme", ["s3", "gs"])
async def test_a_bucket_that_cannot_be_reached_tells_nothing_of_where_it_is(
    monkeypatch: pytest.MonkeyPatch, host: PictureHost, scheme: str
) -> None:
    for name in ("AWS_ENDPOINT_URL_S3", "STORAGE_EMULATOR_HOST"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with pytest.raises(FetchFault) as raised:
        await BucketPictures(TABLE).fetch(Place(f"{scheme}://pictures/a.png", MOST), MOST)
    assert raised.value.message == "the picture could not be fetched: its bucket cannot be reached from here"


@pytest.mark.anyio
@pytest.mark.parametrize("scheme", ["s3", "gs"])
async def test_without_credentials_a_bucket_cannot_be_reached(
    monkeypatch: pytest.MonkeyPatch, host: PictureHost, tmp_path: Path, scheme: str
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "STORAGE_EMULATOR_HOST"):
        monkeypatch.delenv(name)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE", "CLOUDSDK_CONFIG", "HOME"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    with pytest.raises(FetchFault, match="bucket cannot be reached"):
        await BucketPictures(TABLE).fetch(Place(f"{scheme}://pictures/a.png", MOST), MOST)
    assert host.asked == []


@pytest.mark.anyio
async def test_google_is_asked_with_the_gateways_own_account(
    monkeypatch: pytest.MonkeyPatch, host: PictureHost, tmp_path: Path
) -> None:
    monkeypatch.delenv("STORAGE_EMULATOR_HOST")
    key = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
    account = {
        "type": "service_account",
        "client_email": "gateway@project.example",
        "private_key": key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
        "token_uri": f"{host.url}/token",
        "project_id": "project",
    }
    (tmp_path / "account.json").write_text(json.dumps(account))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "account.json"))
    token = {"access_token": "of-the-gateway", "expires_in": 3_600, "token_type": "Bearer"}
    host.put("/token", json.dumps(token).encode(), 200, {"content-type": "application/json"})
    host.put("/storage/v1/b/pictures/o/a%2Fb.png", picture())
    pictures = BucketPictures(TABLE, google=host.url)
    assert await pictures.fetch(Place("gs://pictures/a/b.png", MOST), MOST) == picture()
    assert [request.method for request in host.asked] == ["POST", "GET"]
    assert host.asked[1].headers["authorization"] == "Bearer of-the-gateway"


@pytest.mark.parametrize(
    ("address", "found"),
    [
        ("s3://pictures/a/b c.png", ("s3://pictures", "a/b c.png")),
        ("gs://pictures/a", ("gs://pictures", "a")),
        ("s3://pictures/a//b", ("s3://pictures", "a//b")),
        ("s3://pictures/", None),
        ("s3://pictures", None),
        ("s3://pictures/../others/a", None),
        ("s3://pictures/a/./b", None),
        ("s3://pictures/a\nb", None),
        ("https://pictures/a", None),
        ("", None),
    ],
)
def test_a_name_never_leads_out_of_its_bucket(address: str, found: Any) -> None:
    assert object_in(address) == found


@pytest.mark.parametrize(
    ("address", "allowed"),
    [
        ("s3://pictures/a", True),
        ("s3://pictures2/a", False),
        ("S3://pictures/a", False),
        ("s3:///a", False),
        ("s3://pictures@others/a", False),
    ],
)
def test_only_listed_buckets_are_read(address: str, allowed: bool) -> None:
    assert BucketPictures(TABLE).allows(Place(address, MOST)) is allowed
