"""AwsWire as the real boto3 meets it, in the hands of a user who only changed the endpoint."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from smoothing_proxy.wire.aws import reply_of
from smoothing_proxy.wire.base import Fault, HttpReply, HttpRequest, RequestFault
from tests.wire.aws_loopback import KEY, PUG, SECRET, loopback, rekognition

PICTURE = b"\x89PNG picture"
RECORDED = Path(__file__).with_name("recorded") / "aws"


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_MAX_ATTEMPTS", "AWS_RETRY_MODE", "AWS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))


@cache
def session(key: str, secret: str) -> Any:
    """A session loads the service's model once."""
    return boto3.Session(aws_access_key_id=key, aws_secret_access_key=secret, region_name="eu-west-1")


def client(endpoint: str | None, *, secret: str = SECRET, key: str = KEY, **config: Any) -> Any:
    return session(key, secret).client("rekognition", endpoint_url=endpoint, config=Config(**config))


def test_boto3_gets_labels_through_any_path_prefix() -> None:
    with loopback() as (url, asked):
        reply = client(f"{url}/proxy/a%20b").detect_labels(Image={"Bytes": PICTURE}, MaxLabels=2)
    assert [label["Name"] for label in reply["Labels"]] == ["Dog", "Pug"]
    assert reply["LabelModelVersion"] == "3.0"
    assert reply["ResponseMetadata"]["RequestId"] == "id-1"
    assert asked[0].path == "/proxy/a b"


def test_what_boto3_parsed_is_the_reply_that_was_given() -> None:
    with loopback() as (url, _):
        parsed = client(url).detect_labels(Image={"Bytes": PICTURE}, MinConfidence=0)
    reply = reply_of(parsed)
    assert sorted(reply.labels, key=str) == sorted(PUG.labels, key=str)
    assert (reply.model_version, reply.request_id) == ("3.0", "id-1")


def test_the_endpoint_is_taken_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with loopback() as (url, asked):
        monkeypatch.setenv("AWS_ENDPOINT_URL_REKOGNITION", url)
        assert client(None).detect_labels(Image={"Bytes": PICTURE})["Labels"]
    assert len(asked) == 1


@pytest.mark.parametrize(
    "case", json.loads((RECORDED / "replies.json").read_text()), ids=lambda case: case["name"]
)
def test_a_recorded_reply_means_the_same_to_boto3(case: dict[str, Any]) -> None:
    metadata = {"ResponseMetadata": case["reply"].pop("ResponseMetadata", {})}
    with loopback(lambda _: HttpReply(200, {}, json.dumps(case["reply"]).encode())) as (url, _):
        parsed = client(url).detect_labels(Image={"Bytes": PICTURE})
    assert reply_of({**parsed, **metadata}) == reply_of({**case["reply"], **metadata})


@pytest.mark.parametrize(
    ("credentials", "code", "status"),
    [
        ({"secret": "wrong"}, "InvalidSignatureException", 403),
        ({"key": "AKIDUNKNOWN"}, "UnrecognizedClientException", 403),
    ],
)
def test_wrong_credentials_are_refused(credentials: dict[str, str], code: str, status: int) -> None:
    with loopback() as (url, asked), pytest.raises(ClientError) as refused:
        client(url, **credentials).detect_labels(Image={"Bytes": PICTURE})
    assert refused.value.response["Error"]["Code"] == code
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == status
    assert len(asked) == 1


RAISED = [
    (Fault.BAD_REQUEST, "InvalidParameterException", 400),
    (Fault.BAD_IMAGE, "InvalidImageFormatException", 400),
    (Fault.IMAGE_TOO_LARGE, "ImageTooLargeException", 400),
    (Fault.UNAUTHENTICATED, "UnrecognizedClientException", 403),
    (Fault.FORBIDDEN, "AccessDeniedException", 400),
    (Fault.UNKNOWN_OPERATION, "UnknownOperationException", 404),
    (Fault.QUOTA, "ServiceQuotaExceededException", 400),
]
RETRIED = [
    (Fault.THROTTLED, "ThrottlingException", 500),
    (Fault.INTERNAL, "InternalServerError", 500),
    (Fault.UNAVAILABLE, "ServiceUnavailable", 503),
    (Fault.TIMEOUT, "InternalServerError", 504),
]


def fault_of(endpoint: str, **config: Any) -> tuple[str, int, str]:
    with pytest.raises(ClientError) as refused:
        client(endpoint, **config).detect_labels(Image={"Bytes": PICTURE})
    error, metadata = refused.value.response["Error"], refused.value.response["ResponseMetadata"]
    assert metadata["RequestId"] == "id-1"
    return error["Code"], metadata["HTTPStatusCode"], error["Message"]


@pytest.mark.parametrize(("fault", "code", "status"), RAISED + RETRIED)
def test_boto3_raises_every_fault(fault: Fault, code: str, status: int) -> None:
    def answer(request: HttpRequest) -> HttpReply:
        return rekognition(request, RequestFault(fault, "why", retry_after_s=0.001))

    with loopback(answer) as (url, asked):
        assert fault_of(url, retries={"total_max_attempts": 1}) == (code, status, "why")
    assert len(asked) == 1


def test_all_faults_are_in_the_tables() -> None:
    assert {fault for fault, _, _ in RAISED + RETRIED} == set(Fault)


@pytest.mark.parametrize("mode", ["legacy", "standard"])
@pytest.mark.parametrize(("fault", "code", "status"), RAISED)
def test_boto3_does_not_send_again_after(fault: Fault, code: str, status: int, mode: str) -> None:
    with loopback(lambda request: rekognition(request, RequestFault(fault, "why"))) as (url, asked):
        assert fault_of(url, retries={"mode": mode}) == (code, status, "why")
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("asked_for", "code"),
    [
        ({"Image": {"S3Object": {"Bucket": "bucket", "Name": "name"}}}, "InvalidS3ObjectException"),
        ({"Image": {}}, "InvalidParameterException"),
        ({"Image": {"Bytes": PICTURE}, "Features": ["IMAGE_PROPERTIES"]}, "InvalidParameterException"),
    ],
)
def test_what_is_not_served_is_refused(asked_for: dict[str, Any], code: str) -> None:
    with loopback() as (url, _), pytest.raises(ClientError) as refused:
        client(url).detect_labels(**asked_for)
    assert refused.value.response["Error"]["Code"] == code


def test_another_operation_is_refused() -> None:
    with loopback() as (url, _), pytest.raises(ClientError) as refused:
        client(url).detect_faces(Image={"Bytes": PICTURE})
    assert refused.value.response["Error"]["Code"] == "UnknownOperationException"
