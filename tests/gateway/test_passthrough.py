"""What cannot be hardened: refused, or carried to the vendor as it came and with other credentials."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import pytest

from smoothing_proxy.backends.aws_rekognition import AwsRekognition
from smoothing_proxy.backends.azure_vision import AzureVision
from smoothing_proxy.backends.google_vision import GoogleVision
from smoothing_proxy.errors import BudgetExceededError, ConfigError
from smoothing_proxy.gateway.ledger_store import LedgerStore
from smoothing_proxy.gateway.ports import Caller
from smoothing_proxy.ledger.gateway.nouns import KeyTerms, Spend
from smoothing_proxy.ledger.gateway.store import GatewayStore
from smoothing_proxy.transport.settings import TransportSettings
from smoothing_proxy.types import Cost
from smoothing_proxy.wire import sigv4
from smoothing_proxy.wire.base import HttpRequest
from smoothing_proxy.wire.errands import errand_of
from tests.gateway import sdks
from tests.gateway.gateways import KEY_ID, PASSING, PASSING_ID, SECRET, There, picture, serving
from tests.gateway.upstream import Upstream, grpc_upstream, http_upstream

OURS, OUR_SECRET = "AKIAOFTHEGATEWAY", "the-gateways-own-secret"
QUICK = TransportSettings(requests_per_s=1_000)
FACES = {"FaceDetails": [{"Confidence": 99.5}]}
ON = {"enabled": True}


@contextmanager
def before_aws(monkeypatch: pytest.MonkeyPatch, **settings: Any) -> Iterator[tuple[There, Upstream]]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", OURS)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", OUR_SECRET)
    with http_upstream() as upstream:
        upstream.answer = (200, FACES)
        backend = AwsRekognition(region="eu-west-1", endpoint=upstream.url, price_usd_per_1000=1.0)
        with serving(backend, transport=QUICK, **settings) as there:
            yield there, upstream
            there.portal.call(backend.aclose)


def test_another_operation_is_signed_anew_and_answered_by_the_vendor(monkeypatch: pytest.MonkeyPatch) -> None:
    image = picture()
    with before_aws(monkeypatch, passthrough=ON) as (there, upstream), sdks.rekognition(there) as client:
        reply = client.detect_faces(Image={"Bytes": image}, Attributes=["ALL"])
        metrics = there.client.get("/metrics").text
        spent = there.store.spent(KEY_ID)
    assert reply["FaceDetails"] == FACES["FaceDetails"]
    told = reply["ResponseMetadata"]["HTTPHeaders"]
    assert (told["x-smoothing-hardened"], told["x-amzn-requestid"]) == ("false", "of-the-vendor")
    assert "set-cookie" not in told
    (asked,) = upstream.asked
    sigv4.verify(asked, OUR_SECRET, datetime.now(UTC), service="rekognition")
    assert sigv4.authorization(asked).access_key == OURS
    assert asked.headers["x-amz-target"] == "RekognitionService.DetectFaces"
    assert json.loads(asked.body).keys() == {"Image", "Attributes"}
    assert not any(KEY_ID in value or SECRET in value for value in asked.headers.values())
    assert spent == 1
    assert 'outcome="passed on",vendor="aws"' in metrics


REFUSED = {
    "off": ({}, "detect_faces", {"Bytes": b"x"}, "UnknownOperationException"),
    "an operation that is not listed": (
        {**ON, "operations": ("DetectText",)},
        "detect_faces",
        {"Bytes": b"x"},
        "AccessDeniedException",
    ),
    "an operation that keeps something": (ON, "list_collections", None, "AccessDeniedException"),
    "a picture in a bucket": (
        ON,
        "detect_faces",
        {"S3Object": {"Bucket": "bucket", "Name": "n"}},
        "AccessDeniedException",
    ),
}


@pytest.mark.parametrize(("passthrough", "operation", "image", "code"), REFUSED.values(), ids=REFUSED)
def test_what_may_not_be_passed_on_is_refused_and_the_vendor_is_not_asked(
    monkeypatch: pytest.MonkeyPatch, passthrough: dict[str, Any], operation: str, image: Any, code: str
) -> None:
    with before_aws(monkeypatch, passthrough=passthrough) as (there, upstream), sdks.rekognition(there) as client:
        with pytest.raises(client.exceptions.ClientError) as refused:
            getattr(client, operation)(**({} if image is None else {"Image": image}))
        assert there.store.spent(KEY_ID) == 0
    assert refused.value.response["Error"]["Code"] == code
    assert upstream.asked == []


@pytest.mark.parametrize(
    ("status", "code", "told", "spent"),
    [
        (400, "InvalidImageFormatException", "InvalidImageFormatException", 0),
        (500, "ThrottlingException", "ThrottlingException", 0),
        (500, "InternalServerError", "InternalServerError", 1),
        (403, "UnrecognizedClientException", "InternalServerError", 0),
    ],
)
def test_the_vendors_errors_are_told_as_they_are_but_for_our_own_credentials(
    monkeypatch: pytest.MonkeyPatch, status: int, code: str, told: str, spent: int
) -> None:
    with before_aws(monkeypatch, passthrough=ON) as (there, upstream), sdks.rekognition(there) as client:
        upstream.answer = (status, {"__type": code, "message": f"of {OURS}"})
        with pytest.raises(client.exceptions.ClientError) as refused:
            client.detect_text(Image={"Bytes": picture()})
        assert there.store.spent(KEY_ID) == spent
    assert refused.value.response["Error"]["Code"] == told
    assert (OURS in str(refused.value)) == (code == told)
    assert len(upstream.asked) == 1


def test_a_key_may_be_let_through_alone_and_only_within_its_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    with before_aws(monkeypatch) as (there, upstream):
        with sdks.rekognition(there, PASSING, PASSING_ID) as client:
            features = ["GENERAL_LABELS", "IMAGE_PROPERTIES"]
            client.detect_labels(Image={"Bytes": picture()}, Features=features)
            client.detect_faces(Image={"Bytes": picture()})
            with pytest.raises(client.exceptions.ClientError, match="ServiceQuotaExceededException"):
                client.detect_faces(Image={"Bytes": picture()})
        with sdks.rekognition(there) as client, pytest.raises(client.exceptions.ClientError, match="UnknownOp"):
            client.detect_faces(Image={"Bytes": picture()})
        assert there.store.spent(PASSING_ID) == 3
    assert len(upstream.asked) == 2


@pytest.mark.parametrize(("header", "value"), [("target-radius", "0.1"), ("per-label", "true")])
def test_a_proof_is_not_asked_of_what_cannot_be_hardened(
    monkeypatch: pytest.MonkeyPatch, header: str, value: str
) -> None:
    def wish(request: Any, **_: object) -> None:
        request.headers[f"x-smoothing-{header}"] = value

    with before_aws(monkeypatch, passthrough=ON) as (there, upstream), sdks.rekognition(there) as client:
        client.meta.events.register("before-sign.rekognition.DetectFaces", wish)
        with pytest.raises(client.exceptions.ClientError, match="UnknownOperationException"):
            client.detect_faces(Image={"Bytes": picture()})
    assert upstream.asked == []


def test_a_key_that_always_gets_a_certificate_is_not_let_through_unless_by_name() -> None:
    with http_upstream() as upstream:
        backend = AzureVision(endpoint=upstream.url, environ={"AZURE_VISION_KEY": OUR_SECRET})
        with serving(backend, transport=QUICK, passthrough=ON) as there:
            told = {
                caller.id: there.gateway.passage.open_to("azure", caller)
                for caller in (
                    Caller("usual"),
                    Caller("certify", certify=True),
                    Caller("radius", target_radius=0.1),
                    Caller("named", certify=True, passthrough=True),
                )
            }
            there.portal.call(backend.aclose)
    assert told == {"usual": True, "certify": False, "radius": False, "named": True}


@pytest.mark.parametrize(
    "body",
    [
        b'{"Image": {"S3Object": {"Bucket": "b", "Name": "n"}}, "Image": {"Bytes": "eA=="}}',
        b'{"Image": {"S3Object": {"Name": "n"}, "S3Object": null, "Bytes": "eA=="}}',
    ],
)
def test_what_stands_twice_in_a_body_leaves_as_it_was_looked_through(body: bytes) -> None:
    headers = {"x-amz-target": "RekognitionService.DetectFaces", "content-type": "application/x-amz-json-1.1"}
    errand = errand_of("aws", HttpRequest("POST", "/", headers, body))
    assert (errand.references, b"Bucket" in errand.request.body, b'"n"' in errand.request.body) == (False,) * 3
    assert json.loads(errand.request.body) == json.loads(body)


@pytest.mark.parametrize(
    ("query", "media", "units", "references"),
    [
        ({"visualFeatures": "Tags,Faces", "details": "Landmarks"}, "image/png", 3, False),
        ({"VisualFeatures": "Tags,Faces,Adult"}, "application/octet-stream", 3, False),
        ({"FEATURES": "caption,read", "visualfeatures": "Tags"}, "application/octet-stream", 3, False),
        ({}, "application/json", 1, True),
        ({}, "text/json", 1, True),
        ({}, "application/vnd.x+json", 1, True),
    ],
)
def test_azures_features_are_counted_in_any_spelling_and_an_address_is_known_in_any_json(
    query: dict[str, str], media: str, units: int, references: bool
) -> None:
    request = HttpRequest("POST", "/vision/v3.2/analyze", {"content-type": media}, b"x", query)
    errand = errand_of("azure", request)
    assert (errand.units, errand.references) == (units, references)


def annotated(body: bytes) -> bytes:
    """Google's answer: a label and a face for every picture, whatever was asked."""
    from google.cloud.vision_v1 import types as vision

    request = vision.BatchAnnotateImagesRequest.deserialize(body)
    label = vision.EntityAnnotation(description="cat", score=0.9, mid="/m/cat")
    one = vision.AnnotateImageResponse(
        label_annotations=[label], face_annotations=[vision.FaceAnnotation(detection_confidence=0.5)]
    )
    reply = vision.BatchAnnotateImagesResponse(responses=[one] * len(request.requests))
    return bytes(vision.BatchAnnotateImagesResponse.serialize(reply))


@contextmanager
def before_google(**settings: Any) -> Iterator[tuple[There, list[Any]]]:
    with grpc_upstream(annotated) as (endpoint, calls):
        backend = GoogleVision(api_key_env="OURS", endpoint=endpoint, insecure=True, environ={"OURS": OUR_SECRET})
        with serving(backend, transport=QUICK, **settings) as there:
            yield there, calls
            there.portal.call(backend.aclose)


def one_of_each() -> list[Any]:
    """A picture whose labels are wanted, and one whose faces are."""
    from google.cloud.vision_v1 import types as vision

    kinds = (vision.Feature.Type.LABEL_DETECTION, vision.Feature.Type.FACE_DETECTION)
    return [
        vision.AnnotateImageRequest(image=vision.Image(content=picture()), features=[vision.Feature(type_=kind)])
        for kind in kinds
    ]


@contextmanager
def google_client(there: There, transport: str) -> Iterator[Any]:
    import grpc  # type: ignore[import-untyped, unused-ignore]
    from google.api_core.client_options import ClientOptions
    from google.cloud import vision
    from google.cloud.vision_v1.services.image_annotator.transports import ImageAnnotatorGrpcTransport

    if transport == "rest":
        options = ClientOptions(api_endpoint=there.url, api_key=SECRET)
        with vision.ImageAnnotatorClient(client_options=options, transport="rest") as client:
            yield client
        return
    with grpc.insecure_channel(f"127.0.0.1:{there.address.grpc_port}") as channel:
        yield vision.ImageAnnotatorClient(transport=ImageAnnotatorGrpcTransport(channel=channel))


@pytest.mark.parametrize("transport", ["rest", "grpc"])
def test_a_google_batch_is_passed_on_whole_or_refused_whole(transport: str) -> None:
    from google.api_core.exceptions import BadRequest

    call: dict[str, Any] = {"retry": None, "timeout": 20}
    if transport == "grpc":
        call["metadata"] = [("x-goog-api-key", SECRET)]
    with before_google() as (there, calls), google_client(there, transport) as client:
        with pytest.raises(BadRequest, match=r"requests\[1\].features"):
            client.batch_annotate_images(requests=one_of_each(), **call)
        assert (there.store.spent(KEY_ID), calls) == (0, [])
    with before_google(passthrough=ON) as (there, calls), google_client(there, transport) as client:
        reply = client.batch_annotate_images(requests=one_of_each(), **call)
        spent = there.store.spent(KEY_ID)
    found = [(one.label_annotations[0].description, len(one.face_annotations)) for one in reply.responses]
    assert found == [("cat", 1)] * 2, "nothing is taken out of the vendor's answer, not even what was not asked"
    (passed,) = calls
    assert (passed.key, spent) == (OUR_SECRET, 2)
    assert not any(SECRET in value for value in passed.metadata.values())


def test_a_google_answer_over_grpc_says_that_it_is_not_hardened() -> None:
    import grpc
    from google.cloud.vision_v1 import types as vision

    asked = vision.BatchAnnotateImagesRequest(requests=one_of_each())
    with (
        before_google(passthrough=ON) as (there, _),
        grpc.insecure_channel(f"127.0.0.1:{there.address.grpc_port}") as channel,
    ):
        method = channel.unary_unary("/google.cloud.vision.v1.ImageAnnotator/BatchAnnotateImages")
        body = vision.BatchAnnotateImagesRequest.serialize(asked)
        reply, call = method.with_call(body, metadata=[("x-goog-api-key", SECRET)], timeout=20)
    assert reply == annotated(body)
    assert dict(call.initial_metadata())["x-smoothing-hardened"] == "false"


def test_other_features_of_azure_go_below_the_configured_endpoint_with_its_own_key() -> None:
    with http_upstream() as upstream:
        upstream.answer = (200, {"modelVersion": "v", "captionResult": {"text": "a cat", "confidence": 0.5}})
        backend = AzureVision(endpoint=f"{upstream.url}/vision-of-ours", environ={"AZURE_VISION_KEY": OUR_SECRET})
        with serving(backend, transport=QUICK, passthrough=ON) as there:
            headers: Any = {"ocp-apim-subscription-key": SECRET, "content-type": "application/octet-stream"}
            path = "/some/prefix/computervision/imageanalysis:analyze"
            query = {
                "api-version": "2024-02-01",
                "features": "caption,read",
                "gender-neutral-caption": "true",
                "Subscription-Key": SECRET,
            }
            reply = there.client.post(path, params=query, content=picture(), headers=headers)
            elsewhere = [
                there.client.post(path, content=picture(), headers=headers).status_code
                for path in ("/vision/v3.2/models/../../admin", "/vision/v3.2/read/analyze", "/computervision/x")
            ]
            odd = {**headers, "content-type": "é/é".encode("latin-1")}
            elsewhere.append(there.client.post("/vision/v3.2/ocr", content=picture(), headers=odd).status_code)
            spent = there.store.spent(KEY_ID)
            there.portal.call(backend.aclose)
    assert reply.json()["captionResult"]["text"] == "a cat"
    assert reply.headers["x-smoothing-hardened"] == "false"
    assert elsewhere == [404, 404, 404, 400]
    (asked,) = upstream.asked
    assert asked.target == (
        "/vision-of-ours/computervision/imageanalysis:analyze"
        "?api-version=2024-02-01&features=caption,read&gender-neutral-caption=true"
    )
    assert (asked.headers["ocp-apim-subscription-key"], asked.body) == (OUR_SECRET, picture())
    assert spent == 2


def test_one_vendors_requests_do_not_go_to_another(monkeypatch: pytest.MonkeyPatch) -> None:
    with before_aws(monkeypatch, passthrough=ON) as (there, upstream):
        headers = {"ocp-apim-subscription-key": SECRET, "content-type": "application/octet-stream"}
        reply = there.client.post("/vision/v3.2/describe", content=picture(), headers=headers)
    assert (reply.status_code, upstream.asked) == (404, [])


def test_the_database_knows_who_may_pass_and_what_it_came_to(tmp_path: Path) -> None:
    async def work() -> None:
        async with await GatewayStore.open(tmp_path / "gateway.db", secret_key=bytes(32)) as inner:
            key, token = await inner.create_key("ann", "azure", KeyTerms(passthrough=True, calls_limit=2))
            store = LedgerStore(inner)
            caller = await store.check_token("azure", token)
            assert caller is not None
            assert caller.passthrough is True
            for cost in (Cost(queries=1), Cost(), Cost(unknown=1)):
                reservation = await store.reserve(caller.id, 1, 0.5)
                await store.pass_on(reservation, "describe")
                await store.settle(reservation, cost)
            assert await inner.spend(key.id, "month") == Spend(calls=1, unknown=1, usd=1.0)
            with pytest.raises(BudgetExceededError):
                await store.reserve(caller.id, 1, 0.5)

    anyio.run(work)


def test_a_passthrough_before_a_classifier_of_this_machine_is_refused() -> None:
    with pytest.raises(ConfigError, match="scripted takes no requests as they are"), serving(passthrough=ON):
        pass
