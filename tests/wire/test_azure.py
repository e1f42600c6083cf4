"""Azure's tags: its own SDKs against the server's side, and the client's side against every kind of answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any

import pytest
from azure.ai.vision.imageanalysis import ImageAnalysisClient
from azure.ai.vision.imageanalysis.aio import ImageAnalysisClient as AioClient
from azure.ai.vision.imageanalysis.models import VisualFeatures
from azure.cognitiveservices.vision.computervision import ComputerVisionClient
from azure.cognitiveservices.vision.computervision.models import (
    ComputerVisionErrorResponseException,
    VisualFeatureTypes,
)
from azure.core.credentials import AzureKeyCredential
from azure.core.exceptions import (
    ClientAuthenticationError,
    HttpResponseError,
    ResourceNotFoundError,
)
from hypothesis import given
from hypothesis import strategies as st
from msrest.authentication import CognitiveServicesCredentials

from smoothing_proxy.errors import (
    AuthenticationError,
    BackendError,
    BackendTimeoutError,
    BackendUnavailableError,
    MalformedReplyError,
    QuotaExceededError,
    RateLimitedError,
    RequestRejectedError,
)
from smoothing_proxy.types import Reply, ScoredLabel
from smoothing_proxy.wire.azure import AzureWire, Version, error_of, reply_of, tag_url
from smoothing_proxy.wire.base import Fault, HttpReply, HttpRequest, Question, RequestFault
from tests.wire.loopback import serving
from tests.wire.wire_server import NOW, PANDA, RECORDED, SECRET, answering, jpeg, picture

WIRE = AzureWire()
MODERN = "/computervision/imageanalysis:analyze"
TAGS = {"api-version": "2023-10-01", "features": "tags"}
KEYED = {"ocp-apim-subscription-key": SECRET, "content-type": "application/octet-stream"}


def asking(
    path: str = MODERN,
    query: dict[str, str] | None = None,
    headers: dict[str, str] | None = None,
    body: bytes = b"picture",
    method: str = "POST",
) -> HttpRequest:
    return HttpRequest(method, path, KEYED if headers is None else headers, body, TAGS if query is None else query)


def tags_of(result: Any) -> list[tuple[str, float]]:
    return [(tag.name, tag.confidence) for tag in result]


BEST_FIRST = [("panda", 0.75), ("mammal", 0.25)]


@pytest.mark.parametrize("prefix", ["", "/gateway/eu", "/"])
@pytest.mark.parametrize("image", [picture(), jpeg()])
def test_the_sdk_of_4_0_gets_tags(prefix: str, image: bytes) -> None:
    seen: list[HttpRequest] = []
    with (
        serving(answering(WIRE, PANDA, seen)) as url,
        ImageAnalysisClient(url + prefix, AzureKeyCredential(SECRET)) as client,
    ):
        result = client.analyze(image, [VisualFeatures.TAGS], smart_crops_aspect_ratios=[1.0], language="en")
    assert result.tags is not None
    assert tags_of(result.tags.list) == BEST_FIRST
    assert (result.model_version, result.metadata.width, result.metadata.height) == ("2023-10-01", 80, 60)
    assert [request.body for request in seen] == [image]


@pytest.mark.anyio
async def test_the_asynchronous_sdk_of_4_0_gets_tags() -> None:
    with serving(answering(WIRE, PANDA, [])) as url:
        async with AioClient(url, AzureKeyCredential(SECRET)) as client:
            result = await client.analyze(picture(), [VisualFeatures.TAGS], model_version="2023-10-01")
    assert result.tags is not None
    assert tags_of(result.tags.list) == BEST_FIRST


@contextmanager
def older(url: str) -> Iterator[Any]:
    client: Any = ComputerVisionClient(url, CognitiveServicesCredentials(SECRET))  # type: ignore[no-untyped-call]
    with client:
        yield client


@pytest.mark.parametrize(
    "ask",
    [
        lambda client, image: client.tag_image_in_stream(BytesIO(image)),
        lambda client, image: client.analyze_image_in_stream(BytesIO(image), [VisualFeatureTypes.tags]),
    ],
)
def test_the_sdk_of_3_2_gets_tags_for_a_body_without_a_length(
    ask: Callable[[Any, bytes], Any],
) -> None:
    seen: list[HttpRequest] = []
    image = picture()
    with serving(answering(WIRE, PANDA, seen)) as url, older(url) as client:
        result = ask(client, image)
    assert tags_of(result.tags) == BEST_FIRST
    assert (result.metadata.width, result.metadata.height, result.metadata.format) == (80, 60, "Png")
    assert (result.request_id, result.model_version) == ("request-1", "2023-10-01")
    assert [request.body for request in seen] == [image]
    assert "content-length" not in seen[0].headers


FAULTS: list[tuple[Fault, type[HttpResponseError], int, type[BackendError], bool]] = [
    (Fault.BAD_REQUEST, HttpResponseError, 400, RequestRejectedError, False),
    (Fault.BAD_IMAGE, HttpResponseError, 400, RequestRejectedError, False),
    (Fault.IMAGE_TOO_LARGE, HttpResponseError, 400, RequestRejectedError, False),
    (Fault.UNAUTHENTICATED, ClientAuthenticationError, 401, AuthenticationError, False),
    (Fault.FORBIDDEN, HttpResponseError, 403, AuthenticationError, False),
    (Fault.UNKNOWN_OPERATION, ResourceNotFoundError, 404, AuthenticationError, False),
    (Fault.THROTTLED, HttpResponseError, 429, RateLimitedError, False),
    (Fault.QUOTA, HttpResponseError, 403, QuotaExceededError, False),
    (Fault.INTERNAL, HttpResponseError, 500, BackendUnavailableError, True),
    (Fault.UNAVAILABLE, HttpResponseError, 503, BackendUnavailableError, False),
    (Fault.TIMEOUT, HttpResponseError, 408, BackendTimeoutError, True),
]


def test_every_fault_has_its_row() -> None:
    assert [row[0] for row in FAULTS] == list(Fault)


@pytest.mark.parametrize(("fault", "raised", "status", "ours", "maybe_billed"), FAULTS)
def test_a_fault_is_raised_by_the_sdk_and_understood_by_us(
    fault: Fault, raised: type[HttpResponseError], status: int, ours: type[BackendError], maybe_billed: bool
) -> None:
    refusal = RequestFault(fault, "because of the test", retry_after_s=6.2)
    with (
        serving(answering(WIRE, refusal, [])) as url,
        ImageAnalysisClient(url, AzureKeyCredential(SECRET), retry_total=0) as client,
        pytest.raises(raised, match="because of the test") as caught,
    ):
        client.analyze(picture(), [VisualFeatures.TAGS])
    assert (type(caught.value), caught.value.status_code) == (raised, status)
    error = error_of(WIRE.refuse(asking(), refusal, "r"), backend="azure-vision", retry_after=6.2)
    assert type(error) is ours
    assert error.maybe_billed is maybe_billed
    assert str(error).startswith(f"azure-vision: HTTP {status}")
    assert "because of the test" in str(error)


@pytest.mark.parametrize("fault", list(Fault))
def test_the_sdk_of_3_2_understands_every_error(fault: Fault) -> None:
    with serving(answering(WIRE, RequestFault(fault, "because"), [])) as url, older(url) as client:
        client.config.retry_policy.retries = 0
        with pytest.raises(ComputerVisionErrorResponseException) as caught:
            client.tag_image_in_stream(BytesIO(picture()))
    error: Any = caught.value.error
    assert "because" in error.error.message


@pytest.mark.parametrize(
    ("fault", "sends"),
    [
        (Fault.QUOTA, 1),
        (Fault.BAD_IMAGE, 1),
        (Fault.FORBIDDEN, 1),
        (Fault.UNAUTHENTICATED, 1),
        (Fault.TIMEOUT, 1),
        (Fault.THROTTLED, 4),
        (Fault.UNAVAILABLE, 4),
    ],
)
def test_only_what_is_worth_it_is_sent_again_by_the_sdk(fault: Fault, sends: int) -> None:
    seen: list[HttpRequest] = []
    with (
        serving(answering(WIRE, RequestFault(fault, "no", retry_after_s=0.0), seen)) as url,
        ImageAnalysisClient(url, AzureKeyCredential(SECRET), retry_backoff_factor=0) as client,
        pytest.raises(HttpResponseError),
    ):
        client.analyze(picture(), [VisualFeatures.TAGS])
    assert len(seen) == sends


def test_a_wrong_key_is_refused_by_the_sdks_own_error() -> None:
    with (
        serving(answering(WIRE, PANDA, [], secret="another")) as url,
        ImageAnalysisClient(url, AzureKeyCredential(SECRET)) as client,
        pytest.raises(ClientAuthenticationError, match="invalid subscription key") as caught,
    ):
        client.analyze(picture(), [VisualFeatures.TAGS])
    assert SECRET not in str(caught.value)


def test_a_picture_elsewhere_is_refused() -> None:
    with (
        serving(answering(WIRE, PANDA, [])) as url,
        ImageAnalysisClient(url, AzureKeyCredential(SECRET)) as client,
        pytest.raises(HttpResponseError, match="not fetched from a URL"),
    ):
        client.analyze_from_url("https://example.com/panda.png", [VisualFeatures.TAGS])


@pytest.mark.parametrize(
    ("request_", "fault", "words"),
    [
        (asking(query={"features": "tags"}), Fault.BAD_REQUEST, "api-version"),
        (asking(query={**TAGS, "api-version": "2099-01-01"}), Fault.BAD_REQUEST, "api-version"),
        (asking(query={**TAGS, "features": "tags,read"}), Fault.BAD_REQUEST, "features"),
        (asking(query={"api-version": "2023-10-01"}), Fault.BAD_REQUEST, "features"),
        (asking(query={**TAGS, "language": "ja"}), Fault.BAD_REQUEST, "language"),
        (asking(query={**TAGS, "model-version": "newest"}), Fault.BAD_REQUEST, "model-version"),
        (asking("/vision/v3.2/analyze", {}), Fault.BAD_REQUEST, "visualFeatures"),
        (asking("/vision/v3.2/analyze", {"visualFeatures": "Tags,Faces"}), Fault.BAD_REQUEST, "visualFeatures"),
        (asking("/vision/v3.2/analyze", {"visualFeatures": "Tags", "details": "x"}), Fault.BAD_REQUEST, "details"),
        (asking("/vision/v3.2/ocr"), Fault.UNKNOWN_OPERATION, "not found"),
        (asking("/vision/v2.0/tag"), Fault.UNKNOWN_OPERATION, "not found"),
        (asking(method="GET"), Fault.UNKNOWN_OPERATION, "not found"),
        (asking(headers={**KEYED, "content-type": "multipart/form-data"}), Fault.BAD_REQUEST, "content type"),
        (asking(body=b""), Fault.BAD_REQUEST, "empty"),
        (asking(body=bytes(20 * 2**20)), Fault.IMAGE_TOO_LARGE, "20971519"),
        (asking("/vision/v3.2/tag", {}, body=bytes(4 * 2**20)), Fault.IMAGE_TOO_LARGE, "4194303"),
    ],
)
def test_what_is_not_served_is_refused(request_: HttpRequest, fault: Fault, words: str) -> None:
    with pytest.raises(RequestFault, match=words) as raised:
        WIRE.read(request_)
    assert raised.value.fault is fault


@pytest.mark.parametrize(
    ("request_", "model"),
    [
        (asking(), ""),
        (asking(query={**TAGS, "features": "Tags", "model-version": "latest"}), ""),
        (asking(query={**TAGS, "model-version": "2023-10-01", "gender-neutral-caption": "true"}), "2023-10-01"),
        (asking("/vision/v3.2/tag", {"model-version": "2021-05-01", "language": "en"}), "2021-05-01"),
        (asking("/a/b/vision/v3.2/analyze", {"visualFeatures": "Tags", "overload": "stream"}), ""),
        (asking(headers={"authorization": "Bearer t", "content-type": "image/png"}), ""),
    ],
)
def test_what_is_served_is_read(request_: HttpRequest, model: str) -> None:
    assert WIRE.read(request_) == Question((b"picture",), model=model)


@pytest.mark.parametrize(
    ("path", "headers", "served"),
    [
        (MODERN, {}, True),
        ("/prefix" + MODERN, {}, True),
        ("/vision/v3.2/tag", {}, True),
        ("/vision/v3.2/describe", {}, True),
        ("/", {"ocp-apim-subscription-key": "k"}, True),
        ("/v1/images:annotate", {"authorization": "Bearer t"}, False),
        ("/television/v3", {}, False),
        ("/v2/users/u/apps/a/models/m/outputs", {}, False),
    ],
)
def test_its_own_requests_are_known(path: str, headers: dict[str, str], served: bool) -> None:
    assert WIRE.serves(HttpRequest("POST", path, headers)) is served


@pytest.mark.parametrize(
    ("headers", "key"),
    [
        ({"ocp-apim-subscription-key": "k"}, "k"),
        ({"authorization": "Bearer t"}, "t"),
        ({"authorization": "Basic t"}, None),
        ({}, None),
    ],
)
def test_the_key_is_found(headers: dict[str, str], key: str | None) -> None:
    request = HttpRequest("POST", MODERN, headers)
    if key is None:
        with pytest.raises(RequestFault) as raised:
            WIRE.key(request)
        assert raised.value.fault is Fault.UNAUTHENTICATED
    else:
        assert WIRE.key(request) == key
        WIRE.verify(request, key, NOW)


@pytest.mark.parametrize(
    ("name", "version", "model_version"),
    [("analyze-4.0.json", "4.0", "2023-10-01"), ("tag-3.2.json", "3.2", "2021-05-01")],
)
def test_a_recorded_answer_is_read(name: str, version: Version, model_version: str) -> None:
    body = (RECORDED / "azure" / name).read_bytes()
    reply = reply_of(HttpReply(200, {"apim-request-id": "r"}, body), version, backend="azure-vision")
    labels = (
        ScoredLabel("mammal", 0.9982016086578369),
        ScoredLabel("giant panda", 0.9940553903579712),
        ScoredLabel("outdoor", 0.0),
    )
    assert reply == Reply(labels, model_version, "r")


@pytest.mark.parametrize("version", ["4.0", "3.2"])
def test_what_the_server_writes_the_client_reads(version: Version) -> None:
    path, query = (MODERN, TAGS) if version == "4.0" else ("/vision/v3.2/tag", {})
    written = WIRE.write(asking(path, query), Question((b"no picture",)), [PANDA], "request-1")
    read = reply_of(written, version, backend="azure-vision")
    assert [(label.name, label.confidence) for label in read.labels] == BEST_FIRST
    assert (read.model_version, read.request_id) == (PANDA.model_version, "request-1")


def both(tag: str) -> bytes:
    """A body of either version with one tag."""
    return f'{{"tagsResult": {{"values": [{tag}]}}, "tags": [{tag}]}}'.encode()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"{}",
        b"null",
        both('{"name": "", "confidence": 0.5}'),
        both('{"name": "a", "confidence": 1.5}'),
        both('{"name": "a", "confidence": -1}'),
        both('{"name": "a", "confidence": "1"}'),
        both('{"name": "a", "confidence": NaN}'),
        both('{"name": "a", "confidence": true}'),
        both('{"name": "a"}'),
    ],
)
@pytest.mark.parametrize("version", ["4.0", "3.2"])
def test_an_answer_in_another_shape_is_kept_in_the_error(body: bytes, version: Version) -> None:
    with pytest.raises(MalformedReplyError, match=f"azure-vision.*version {version}") as raised:
        reply_of(HttpReply(200, {}, body), version, backend="azure-vision")
    assert raised.value.reply == body


NESTED = {"error": {"code": "InvalidRequest", "innererror": {"code": "InvalidImageSize", "message": "too small"}}}


@pytest.mark.parametrize(
    ("status", "body", "kind", "words"),
    [
        (400, NESTED, RequestRejectedError, "InvalidImageSize too small"),
        (401, {"error": {"code": "401", "message": "Access denied"}}, AuthenticationError, "check the endpoint"),
        (403, {"error": {"code": "Forbidden", "message": "public access is off"}}, AuthenticationError, "public"),
        (
            403,
            {"statusCode": 403, "message": "Out of call volume quota. Quota will be "},
            QuotaExceededError,
            "403",
        ),
        (429, {"error": {"message": "Out of call volume quota for F0"}}, QuotaExceededError, "then resume"),
        (429, {"error": {"message": "exceeded call rate limit of your tier"}}, RateLimitedError, "concurrency"),
        (404, {"error": {"code": "404", "message": "Resource not found"}}, AuthenticationError, "Resource"),
        (413, b"", RequestRejectedError, "HTTP 413"),
        (500, b"<html>oops</html>", BackendUnavailableError, "HTTP 500"),
        (502, b"", BackendUnavailableError, "HTTP 502"),
        (503, b"\xff\xfe", BackendUnavailableError, "HTTP 503"),
        (504, b"[" * 100_000, BackendTimeoutError, "HTTP 504"),
        (301, b"", AuthenticationError, "HTTP 301"),
        (400, {"error": {"message": f"key {'k' * 40} is bad"}}, RequestRejectedError, r"key \.\.\. is bad"),
    ],
)
def test_an_error_of_the_service_is_understood(
    status: int, body: dict[str, Any] | bytes, kind: type[BackendError], words: str
) -> None:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    error = error_of(HttpReply(status, {}, raw), backend="azure-vision", retry_after=3.0)
    assert type(error) is kind
    assert error.maybe_billed is (status in (500, 502, 504))
    assert getattr(error, "retry_after", 3.0) == 3.0
    with pytest.raises(BackendError, match=words):
        raise error


def test_only_throttling_and_being_down_carry_a_time_to_wait() -> None:
    carrying = [
        fault
        for fault in Fault
        if "retry-after" in WIRE.refuse(asking(), RequestFault(fault, "", retry_after_s=1.5), "r").headers
    ]
    assert carrying == [Fault.THROTTLED, Fault.UNAVAILABLE]


def test_the_address_of_each_version() -> None:
    assert tag_url("https://a", "4.0") == f"https://a{MODERN}?api-version=2023-10-01&features=tags"
    assert tag_url("https://a", "3.2", model_version="2021-05-01") == (
        "https://a/vision/v3.2/tag?model-version=2021-05-01"
    )


TEXT = st.text(max_size=20)


@given(
    path=st.sampled_from([MODERN, "/vision/v3.2/tag", "/vision/v3.2/analyze"]) | TEXT,
    query=st.dictionaries(st.sampled_from(["api-version", "features", "language", "model-version"]) | TEXT, TEXT),
    headers=st.dictionaries(st.sampled_from(["content-type", "authorization"]), TEXT),
    body=st.binary(max_size=50),
    method=st.sampled_from(["POST", "GET"]),
)
def test_reading_raises_nothing_but_request_faults(
    path: str, query: dict[str, str], headers: dict[str, str], body: bytes, method: str
) -> None:
    request = HttpRequest(method, path, headers, body, query)
    for act in (WIRE.read, WIRE.key, WIRE.serves):
        try:
            act(request)
        except RequestFault as fault:
            assert WIRE.refuse(request, fault, "r").status >= 400  # noqa: PT017 (either may happen)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | TEXT,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["error", "innererror", "code", "message", "tags", "tagsResult", "values", "name"]),
            inner,
        )
    ),
    max_leaves=12,
)


@given(
    body=st.binary(max_size=80) | JSON.map(lambda value: json.dumps(value).encode()), status=st.integers(300, 599)
)
def test_any_answer_is_a_reply_or_one_of_our_errors(body: bytes, status: int) -> None:
    for version in ("4.0", "3.2"):
        try:
            assert isinstance(reply_of(HttpReply(200, {}, body), version, backend="b"), Reply)
        except MalformedReplyError as error:
            assert error.reply == body  # noqa: PT017
    assert isinstance(error_of(HttpReply(status, {}, body), backend="b"), BackendError)


@given(image=st.binary(max_size=60) | st.binary(max_size=40).map(lambda tail: picture()[:20] + tail))
def test_any_picture_gets_its_tags_written(image: bytes) -> None:
    written = WIRE.write(asking(), Question((image,)), [PANDA], "r")
    assert json.loads(written.body)["metadata"].keys() == {"width", "height"}
