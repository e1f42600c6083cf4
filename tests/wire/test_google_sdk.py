"""Google's own client against servers that speak its format, by REST and by gRPC: what its user sees."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

import anyio.from_thread
import grpc  # type: ignore[import-untyped, unused-ignore]
import pytest
from google.api_core import exceptions
from google.api_core.client_options import ClientOptions
from google.api_core.exceptions import GoogleAPICallError as GoogleError
from google.cloud import vision_v1 as vision
from google.cloud.vision_v1.services.image_annotator import ImageAnnotatorClient
from google.cloud.vision_v1.services.image_annotator.transports import (
    ImageAnnotatorGrpcAsyncIOTransport,
    ImageAnnotatorGrpcTransport,
)

from smoothing_proxy.errors import ConfigError
from smoothing_proxy.serving.google_grpc import METHOD, serve_grpc
from smoothing_proxy.types import Reply, ScoredLabel
from smoothing_proxy.wire.base import Fault, HttpReply, HttpRequest, Question, RequestFault
from smoothing_proxy.wire.google import GoogleWire
from tests.wire.loopback import serving

WIRE = GoogleWire()
KEY = "test-key"
TIMEOUT_S = 20.0
METADATA = (("x-goog-api-key", KEY),)
DOG = Reply((ScoredLabel("cat", 0.25), ScoredLabel("dog", 0.75, "/m/2")))
BAD = RequestFault(Fault.BAD_IMAGE, "Bad image data.")

# What the client raises by REST, and by gRPC.
FAULTS: list[tuple[Fault, type[GoogleError], type[GoogleError]]] = [
    (Fault.BAD_REQUEST, exceptions.BadRequest, exceptions.InvalidArgument),
    (Fault.BAD_IMAGE, exceptions.BadRequest, exceptions.InvalidArgument),
    (Fault.IMAGE_TOO_LARGE, exceptions.BadRequest, exceptions.InvalidArgument),
    (Fault.UNAUTHENTICATED, exceptions.Unauthorized, exceptions.Unauthenticated),
    (Fault.FORBIDDEN, exceptions.Forbidden, exceptions.PermissionDenied),
    (Fault.UNKNOWN_OPERATION, exceptions.NotFound, exceptions.MethodNotImplemented),
    (Fault.THROTTLED, exceptions.TooManyRequests, exceptions.ResourceExhausted),
    (Fault.QUOTA, exceptions.Forbidden, exceptions.PermissionDenied),
    (Fault.INTERNAL, exceptions.InternalServerError, exceptions.InternalServerError),
    (Fault.UNAVAILABLE, exceptions.ServiceUnavailable, exceptions.ServiceUnavailable),
    (Fault.TIMEOUT, exceptions.GatewayTimeout, exceptions.DeadlineExceeded),
]


class Service:
    """Answers each picture with the next answer, or the whole with a fault. questions: as they came."""

    def __init__(self, *answers: Reply | RequestFault, fault: RequestFault | None = None) -> None:
        self.answers = answers
        self.fault = fault
        self.questions: list[Question] = []

    def answer(self, question: Question) -> Sequence[Reply | RequestFault]:
        self.questions.append(question)
        if self.fault is not None:
            raise self.fault
        return self.answers

    async def ask(self, question: Question) -> Sequence[Reply | RequestFault]:
        return self.answer(question)

    def http(self, request: HttpRequest) -> HttpReply:
        try:
            WIRE.verify(request, KEY, datetime.now(UTC))
            question = WIRE.read(request)
            return WIRE.write(request, question, self.answer(question), "id")
        except RequestFault as fault:
            return WIRE.refuse(request, fault, "id")


def verify(key: str) -> None:
    if key != KEY:
        raise RequestFault(Fault.UNAUTHENTICATED, "Request had invalid authentication credentials.")


@contextmanager
def grpc_address(service: Service) -> Iterator[str]:
    with anyio.from_thread.start_blocking_portal("asyncio") as portal:
        server = portal.call(serve_grpc, service.ask, verify)
        try:
            yield f"127.0.0.1:{server.port}"
        finally:
            portal.call(server.stop)


def rest_client(url: str, key: str = KEY) -> vision.ImageAnnotatorClient:
    return vision.ImageAnnotatorClient(
        transport="rest", client_options=ClientOptions(api_endpoint=url, api_key=key)
    )


@contextmanager
def grpc_client(address: str) -> Iterator[vision.ImageAnnotatorClient]:
    with grpc.insecure_channel(address) as channel:
        yield vision.ImageAnnotatorClient(transport=ImageAnnotatorGrpcTransport(channel=channel))


def asking(*images: bytes, feature: int = 4) -> vision.BatchAnnotateImagesRequest:
    return vision.BatchAnnotateImagesRequest(
        requests=[{"image": {"content": image}, "features": [{"type_": feature}]} for image in images]
    )


def raised(
    kind: type[GoogleError],
    client: ImageAnnotatorClient,
    asked: vision.BatchAnnotateImagesRequest,
    metadata: Sequence[tuple[str, str]] = (),
) -> GoogleError:
    with pytest.raises(kind) as caught:
        client.batch_annotate_images(asked, metadata=metadata, retry=None, timeout=TIMEOUT_S)
    return caught.value


def check_labels(response: vision.BatchAnnotateImagesResponse) -> None:
    first, second = response.responses
    assert [(label.description, label.mid) for label in first.label_annotations] == [("dog", "/m/2"), ("cat", "")]
    assert first.label_annotations[0].score == 0.75
    assert (second.error.code, second.error.message) == (3, "Bad image data.")
    assert not first.error.code


@pytest.mark.parametrize("prefix", ["", "/team/a"])
def test_the_rest_client_is_answered(prefix: str) -> None:
    service = Service(DOG, BAD)
    with serving(service.http) as url, rest_client(url + prefix) as client:
        check_labels(client.batch_annotate_images(asking(b"one", b"\xfftwo"), timeout=TIMEOUT_S))
    assert service.questions == [Question((b"one", b"\xfftwo"))]


def test_the_rest_clients_helper_for_one_picture_is_answered() -> None:
    with serving(Service(DOG).http) as url, rest_client(url) as client:
        reply = client.label_detection(  # type: ignore[attr-defined] # added to the class when it is imported
            image=io.BytesIO(b"picture"), max_results=1, timeout=TIMEOUT_S
        )
    assert [label.description for label in reply.label_annotations] == ["dog"]


def test_the_grpc_client_is_answered() -> None:
    service = Service(DOG, BAD)
    with grpc_address(service) as address, grpc_client(address) as client:
        check_labels(
            client.batch_annotate_images(asking(b"one", b"two"), metadata=METADATA, timeout=TIMEOUT_S, retry=None)
        )
    assert service.questions == [Question((b"one", b"two"))]


def test_the_async_client_is_answered() -> None:
    service = Service(DOG, BAD)

    async def ask() -> None:
        server = await serve_grpc(service.ask, verify)
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{server.port}")
        transport = ImageAnnotatorGrpcAsyncIOTransport(channel=channel)
        client = vision.ImageAnnotatorAsyncClient(transport=transport)
        bearer = (("authorization", f"Bearer {KEY}"),)
        check_labels(
            await client.batch_annotate_images(asking(b"1", b"2"), metadata=bearer, timeout=TIMEOUT_S, retry=None)
        )
        await channel.close()
        await server.stop()

    anyio.run(ask)


@pytest.mark.parametrize(("fault", "kind", "_"), FAULTS)
def test_the_rest_client_raises(fault: Fault, kind: type[GoogleError], _: type[GoogleError]) -> None:
    service = Service(fault=RequestFault(fault, "because", retry_after_s=3))
    with serving(service.http) as url, rest_client(url) as client:
        error = raised(kind, client, asking(b"one"))
    assert "because" in error.message
    # Its session takes a 401 for an expired token and tries to renew it, whatever `retry` says.
    assert len(service.questions) == (3 if fault is Fault.UNAUTHENTICATED else 1)
    assert [detail.get("retryDelay") for detail in error.details][-1] == "3s"


@pytest.mark.parametrize(("fault", "_", "kind"), FAULTS)
def test_the_grpc_client_raises(fault: Fault, _: type[GoogleError], kind: type[GoogleError]) -> None:
    service = Service(fault=RequestFault(fault, "because", retry_after_s=3))
    with grpc_address(service) as address, grpc_client(address) as client:
        error = raised(kind, client, asking(b"one"), METADATA)
    assert error.message == "because"
    assert len(service.questions) == 1
    assert error.details[-1].retry_delay.seconds == 3


@pytest.mark.parametrize("fault", [fault for fault in Fault if fault not in (Fault.UNAVAILABLE, Fault.TIMEOUT)])
def test_the_client_as_it_comes_sends_again_only_what_may_be_answered_later(fault: Fault) -> None:
    service = Service(fault=RequestFault(fault, "because"))
    with grpc_address(service) as address, grpc_client(address) as client, pytest.raises(GoogleError):
        client.batch_annotate_images(asking(b"one"), metadata=METADATA)
    assert len(service.questions) == 1


def test_a_wrong_key_is_refused_by_both() -> None:
    service = Service(DOG)
    with serving(service.http) as url, rest_client(url, "wrong") as client:
        raised(exceptions.Unauthorized, client, asking(b"one"))
    with grpc_address(service) as address, grpc_client(address) as client:
        raised(exceptions.Unauthenticated, client, asking(b"one"), (("x-goog-api-key", "wrong"),))
        raised(exceptions.Unauthenticated, client, asking(b"one"))
    assert service.questions == []


def test_other_methods_are_not_implemented_over_grpc() -> None:
    files = vision.BatchAnnotateFilesRequest(requests=[{}])
    with (
        grpc_address(Service(DOG)) as address,
        grpc_client(address) as client,
        pytest.raises(exceptions.MethodNotImplemented, match="BatchAnnotateImages"),
    ):
        client.batch_annotate_files(files, metadata=METADATA, retry=None, timeout=TIMEOUT_S)


def test_other_methods_are_not_found_over_rest() -> None:
    files = vision.BatchAnnotateFilesRequest(requests=[{}])
    with serving(Service(DOG).http) as url, rest_client(url) as client, pytest.raises(exceptions.NotFound):
        client.batch_annotate_files(files, retry=None, timeout=TIMEOUT_S)


def test_other_features_are_refused_by_both() -> None:
    service = Service(DOG)
    asked = asking(b"one", feature=vision.Feature.Type.TEXT_DETECTION)
    with serving(service.http) as url, rest_client(url) as client:
        assert "LABEL_DETECTION" in raised(exceptions.BadRequest, client, asked).message
    with grpc_address(service) as address, grpc_client(address) as client:
        assert "LABEL_DETECTION" in raised(exceptions.InvalidArgument, client, asked, METADATA).message
    assert service.questions == []


def test_bytes_that_are_no_message_are_an_invalid_argument() -> None:
    with (
        grpc_address(Service(DOG)) as address,
        grpc.insecure_channel(address) as channel,
        pytest.raises(grpc.RpcError) as caught,
    ):
        channel.unary_unary(METHOD)(b"\xff\xff", metadata=METADATA, timeout=TIMEOUT_S)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_a_servers_own_mistake_is_an_internal_error_that_tells_nothing(caplog: pytest.LogCaptureFixture) -> None:
    service = Service()  # no answer for one picture
    with grpc_address(service) as address, grpc_client(address) as client:
        error = raised(exceptions.InternalServerError, client, asking(b"one"), METADATA)
    assert error.message == "Internal error encountered."
    assert "a gRPC request failed" in caplog.text


def test_a_request_above_grpcs_usual_four_megabytes_is_taken() -> None:
    with grpc_address(Service(DOG, DOG)) as address, grpc_client(address) as client:
        reply = client.batch_annotate_images(
            asking(bytes(6_000_000), bytes(6_000_000)), metadata=METADATA, retry=None, timeout=TIMEOUT_S
        )
    assert len(reply.responses) == 2


def test_a_port_that_is_taken_is_refused() -> None:
    async def serve_twice() -> None:
        server = await serve_grpc(Service().ask, verify)
        try:
            with pytest.raises(ConfigError, match="cannot listen"):
                await serve_grpc(Service().ask, verify, port=server.port)
        finally:
            await server.stop()

    anyio.run(serve_twice)
