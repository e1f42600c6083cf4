"""Pictures that were not sent along, fetched by the gateway and hardened: every front, money, the same again."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from smoothing_proxy.backends.scripted import ScriptedBackend
from smoothing_proxy.errors import AuthenticationError
from smoothing_proxy.gateway.inquiries import Inquiry
from smoothing_proxy.gateway.ports import Caller
from smoothing_proxy.gateway.references import references_of
from smoothing_proxy.gateway.references_settings import ReferencesTable
from smoothing_proxy.wire.openai_schema import label_schema
from tests.gateway import sdks
from tests.gateway.gateways import KEY_ID, SECRET, There, by_level, picture, serving
from tests.gateway.picture_hosts import PictureHost, picture_host
from tests.gateway.test_admin import administered
from tests.gateway.test_passthrough import before_aws

HOST = "images.example.com"
LIGHT, DARK = picture(220), picture(30)


async def at_home(host: str, port: int) -> Sequence[str]:
    """Every name is at 127.0.0.1."""
    return ["127.0.0.1"]


def listed(host: PictureHost, **values: Any) -> ReferencesTable:
    usual = {"hosts": (HOST,), "schemes": ("http",), "ports": (host.port,), "allow_private": True}
    return ReferencesTable(**{**usual, **values})


@contextmanager
def fetching(host: PictureHost, backend: Any = None, **values: Any) -> Iterator[There]:
    """A gateway that tells light from dark, and fetches from `host` by the name images.example.com."""
    table, settings = listed(host, **values.pop("table", {})), values
    backend = backend or ScriptedBackend(by_level, batch_size=8)
    with serving(backend, references=references_of(table, at_home), **settings) as there:
        yield there


@pytest.fixture
def host() -> Iterator[PictureHost]:
    with picture_host() as host:
        host.put("/light.png", LIGHT)
        host.put("/pictures/folder/a%20light%20one.png", LIGHT)
        yield host


def address(host: PictureHost, path: str = "/light.png") -> str:
    return f"http://{HOST}:{host.port}{path}"


def ask(there: There, url: str, secret: str = SECRET, path: str = "/v1/predict", **headers: str) -> httpx.Response:
    return there.client.post(path, json={"url": url}, headers={"x-api-key": secret, **headers})


def native(there: There, url: str) -> str:
    return str(ask(there, url).raise_for_status().json()["label"])


def google_rest(there: There, url: str) -> str:
    from google.api_core.client_options import ClientOptions
    from google.cloud import vision

    options = ClientOptions(api_endpoint=there.url, api_key=SECRET)
    with vision.ImageAnnotatorClient(client_options=options, transport="rest") as client:
        return _annotated(client, url)


def google_grpc(there: There, url: str) -> str:
    import grpc  # type: ignore[import-untyped, unused-ignore]
    from google.cloud import vision
    from google.cloud.vision_v1.services.image_annotator.transports import ImageAnnotatorGrpcTransport

    with grpc.insecure_channel(f"127.0.0.1:{there.address.grpc_port}") as channel:
        client = vision.ImageAnnotatorClient(transport=ImageAnnotatorGrpcTransport(channel=channel))
        return _annotated(client, url, metadata=[("x-goog-api-key", SECRET)])


def _annotated(client: Any, url: str, **call: Any) -> str:
    """Two pictures in a request: one that is sent along, one that is elsewhere."""
    from google.cloud import vision

    feature = vision.Feature(type_=vision.Feature.Type.LABEL_DETECTION)
    elsewhere = vision.Image(source=vision.ImageSource(image_uri=url))
    images = [vision.Image(content=DARK), elsewhere]
    requests = [vision.AnnotateImageRequest(image=image, features=[feature]) for image in images]
    replies = client.batch_annotate_images(requests=requests, retry=None, timeout=20, **call).responses
    assert replies[0].label_annotations[0].description == "dark"
    return str(replies[1].label_annotations[0].description)


def azure_40(there: There, url: str) -> str:
    from azure.ai.vision.imageanalysis import ImageAnalysisClient
    from azure.ai.vision.imageanalysis.models import VisualFeatures
    from azure.core.credentials import AzureKeyCredential

    with ImageAnalysisClient(there.url, AzureKeyCredential(SECRET), retry_total=0) as client:
        result = client.analyze_from_url(url, [VisualFeatures.TAGS])
    assert (result.metadata.width, result.metadata.height) == (96, 96)
    assert result.tags is not None
    return str(result.tags.list[0].name)


def azure_32(there: There, url: str) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the SDK's own dependencies
        from azure.cognitiveservices.vision.computervision import ComputerVisionClient
        from msrest.authentication import CognitiveServicesCredentials

        client: Any = ComputerVisionClient(there.url, CognitiveServicesCredentials(SECRET))  # type: ignore[no-untyped-call]
        client.config.retry_policy.policy.total = 0
        with client:
            return str(client.tag_image(url).tags[0].name)


def clarifai(there: There, url: str) -> str:
    from clarifai_grpc.channel.clarifai_channel import ClarifaiChannel  # type: ignore[import-untyped, unused-ignore]
    from clarifai_grpc.grpc.api import resources_pb2, service_pb2, service_pb2_grpc  # type: ignore[import-untyped, unused-ignore]

    stub = service_pb2_grpc.V2Stub(ClarifaiChannel.get_json_channel(base_url=there.url))
    request = service_pb2.PostModelOutputsRequest(
        model_id="general-image-recognition",
        inputs=[resources_pb2.Input(data=resources_pb2.Data(image=resources_pb2.Image(url=url)))],
    )
    reply = stub.PostModelOutputs(request, metadata=(("authorization", f"Key {SECRET}"),))
    if not reply.outputs:
        raise sdks.AnnotationError(reply.status.code, reply.status.details)
    return str(reply.outputs[0].data.concepts[0].name)


CHOICE: Any = {
    "type": "json_schema",
    "json_schema": {"name": "classification", "strict": True, "schema": label_schema(("light", "dark"))},
}


def openai(there: There, url: str) -> str:
    from openai import OpenAI

    with OpenAI(base_url=f"{there.url}/v1", api_key=SECRET, max_retries=0, timeout=20) as client:
        content: Any = [{"type": "image_url", "image_url": {"url": url}}]
        completion = client.chat.completions.create(
            model="vision", messages=[{"role": "user", "content": content}], response_format=CHOICE
        )
    return str(json.loads(completion.choices[0].message.content or "")["label"])


FRONTS: dict[str, Callable[[There, str], str]] = {
    "native": native,
    "google REST": google_rest,
    "google gRPC": google_grpc,
    "azure 4.0": azure_40,
    "azure 3.2": azure_32,
    "clarifai": clarifai,
    "openai": openai,
}


@pytest.mark.parametrize("front", FRONTS)
def test_every_front_hardens_a_picture_at_a_listed_address(host: PictureHost, front: str) -> None:
    with fetching(host) as there:
        assert FRONTS[front](there, address(host)) == "light"
    assert len(host.asked) == 1
    assert there.backend.asked == there.store.spent(KEY_ID) >= 12


@pytest.mark.parametrize(
    ("front", "said"), [("azure 4.0", "InvalidImageUrl"), ("openai", "invalid_image_url"), ("google REST", "404")]
)
def test_a_picture_that_is_not_there_is_told_in_the_vendors_words(
    host: PictureHost, front: str, said: str
) -> None:
    with fetching(host) as there, pytest.raises(Exception, match=r"404|InvalidImageUrl") as raised:
        FRONTS[front](there, address(host, "/missing.png"))
    assert said in f"{raised.value} {getattr(raised.value, 'code', '')}"
    assert there.backend.asked == 0


def test_an_object_that_is_not_there_is_told_as_by_rekognition(host: PictureHost, credentials: None) -> None:
    with (
        fetching(host, table={"buckets": ("s3://pictures",)}) as there,
        sdks.rekognition(there) as client,
        pytest.raises(client.exceptions.InvalidS3ObjectException, match="no such object"),
    ):
        client.detect_labels(Image={"S3Object": {"Bucket": "pictures", "Name": "missing.png"}})
    assert there.backend.asked == 0


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch, host: PictureHost) -> None:
    for name, value in {
        "AWS_ENDPOINT_URL_S3": host.url,
        "AWS_ACCESS_KEY_ID": "OFTHEGATEWAY",
        "AWS_SECRET_ACCESS_KEY": "secret-of-the-gateway",
        "AWS_REGION": "eu-west-1",
        "STORAGE_EMULATOR_HOST": host.url,
    }.items():
        monkeypatch.setenv(name, value)


def test_rekognitions_client_gets_hardened_labels_of_a_picture_in_s3(host: PictureHost, credentials: None) -> None:
    place = {"Bucket": "pictures", "Name": "folder/a light one.png", "Version": "v2"}
    with fetching(host, table={"buckets": ("s3://pictures",)}) as there, sdks.rekognition(there) as client:
        labels = client.detect_labels(Image={"S3Object": place})["Labels"]
    (asked,) = host.asked
    assert labels[0]["Name"] == "light"
    assert asked.target == "/pictures/folder/a%20light%20one.png?versionId=v2"
    assert "Credential=OFTHEGATEWAY/" in asked.headers["authorization"]


def test_a_picture_in_google_cloud_storage_is_fetched(host: PictureHost, credentials: None) -> None:
    host.put("/storage/v1/b/pictures/o/folder%2Fa.png", LIGHT)
    with fetching(host, table={"buckets": ("gs://pictures",)}) as there:
        assert google_rest(there, "gs://pictures/folder/a.png") == "light"
    (asked,) = host.asked
    assert asked.target.endswith("?alt=media")


@pytest.mark.parametrize("front", FRONTS)
def test_without_the_table_nothing_is_fetched(host: PictureHost, front: str) -> None:
    with (
        serving(ScriptedBackend(by_level)) as there,
        pytest.raises(Exception, match=r"fetched|sent along|InvalidRequest|403"),
    ):
        FRONTS[front](there, address(host))
    assert (host.asked, there.backend.asked) == ([], 0)


@pytest.mark.parametrize(
    "url",
    ["http://evil.example/a", "http://127.0.0.1/a", "s3://others/a", "gs://pictures/a", "s3://pictures/../a", "x"],
)
def test_what_is_not_listed_is_refused_and_costs_nothing(host: PictureHost, url: str) -> None:
    with fetching(host, table={"buckets": ("s3://pictures",)}) as there:
        refused = ask(there, url)
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "forbidden")
    assert "no picture is fetched from there" in refused.text
    assert (host.asked, there.backend.asked) == ([], 0)


def test_a_vendors_client_hears_what_is_not_listed_in_its_own_words(host: PictureHost) -> None:
    from botocore.exceptions import ClientError  # type: ignore[import-untyped, unused-ignore]

    with (
        fetching(host) as there,
        sdks.rekognition(there) as client,
        pytest.raises(ClientError, match=r"InvalidS3Object.*no picture is fetched from there") as raised,
    ):
        client.detect_labels(Image={"S3Object": {"Bucket": "others", "Name": "n"}})
    assert raised.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/missing.png", b"", 400),
        ("/text.png", b"no picture", 422),
        ("/large.png", bytes(3_000), 413),
        ("/bomb.png", picture(1, 2_000), 422),
    ],
)
def test_a_fetch_that_fails_is_never_paid(host: PictureHost, path: str, body: bytes, status: int) -> None:
    if body:
        host.put(path, body)
    with fetching(host, table={"picture_bytes": 2_000 if len(body) == 3_000 else 10**6}, side_px=1_000) as there:
        refused = ask(there, address(host, path), **{"idempotency-key": "one"})
        assert refused.status_code == status
        assert "127.0.0.1" not in refused.text
        host.put(path, LIGHT[:2_000] if len(body) == 3_000 else LIGHT)
        again = ask(there, address(host, path), **{"idempotency-key": "one"})
    assert there.backend.asked == there.store.spent(KEY_ID)
    if status == 400:  # what was told about a picture is told again, what kept it away is not
        assert again.json()["label"] == "light"


def test_a_slow_host_is_given_up_in_time(host: PictureHost) -> None:
    host.waiting = ("/light.png",)
    with fetching(host, table={"timeout_s": 0.2}) as there:
        refused = ask(there, address(host))
        assert "did not arrive within 0.2 s" in refused.json()["error"]["message"]
        assert len(there.gateway.jobs) == 0
    assert there.backend.asked == 0


def test_one_picture_that_cannot_be_had_leaves_the_others_unasked(host: PictureHost) -> None:
    inputs = [{"data": {"image": {"url": address(host, path)}}} for path in ("/light.png", "/missing.png")]
    with fetching(host) as there:
        reply = there.client.post(
            "/v2/models/general-image-recognition/outputs",
            json={"inputs": inputs},
            headers={"authorization": f"Key {SECRET}"},
        )
    assert "picture 1: the picture could not be fetched" in reply.json()["status"]["details"]
    assert there.backend.asked == 0


def test_a_named_request_is_answered_again_though_its_picture_is_gone(host: PictureHost) -> None:
    with fetching(host, verdict_ttl_s=0) as there:
        first = ask(there, address(host), **{"idempotency-key": "one"})
        host.answers.clear()
        again = ask(there, address(host), **{"idempotency-key": "one"})
        other = ask(there, address(host), **{"idempotency-key": "two"})
    assert again.json() == first.json()
    assert again.headers["x-smoothing-replayed"] == "true"
    assert other.status_code == 400
    assert len(host.asked) == 2


def test_azures_reply_that_is_told_again_knows_the_size_of_a_picture_that_is_gone(host: PictureHost) -> None:
    with fetching(host) as there:
        replies = []
        for _ in range(2):
            reply = there.client.post(
                "/vision/v3.2/tag",
                json={"url": address(host)},
                headers={"ocp-apim-subscription-key": SECRET, "x-ms-client-request-id": "one"},
            ).json()
            replies.append((reply["tags"], reply["metadata"]["width"], reply["metadata"]["height"]))
            host.answers.clear()
    assert replies[0] == replies[1]
    assert replies[0][1:] == (96, 96)


def test_without_a_name_the_answer_is_about_what_lies_there_now(host: PictureHost) -> None:
    with fetching(host, verdict_ttl_s=0) as there:
        labels = []
        for image in (LIGHT, LIGHT, DARK, LIGHT):
            host.put("/light.png", image)
            labels.append(ask(there, address(host)).json()["label"])
        spent = there.store.spent(KEY_ID)
    assert labels == ["light", "light", "dark", "light"]
    assert len(host.asked) == 4
    assert there.backend.asked == spent == 2 * 12


def test_a_verdict_is_known_by_the_bytes_wherever_they_come_from(host: PictureHost) -> None:
    with fetching(host) as there:
        sent = there.ask(image=LIGHT)
        fetched = ask(there, address(host))
    assert fetched.json() == sent.json()
    assert fetched.headers["x-smoothing-replayed"] == "true"


def halfway(asked: list[str]) -> ScriptedBackend:
    """Dies once, at the ninth question, after which the request is to be sent again."""

    def failing(pixels: Any) -> Any:
        reply = by_level(pixels)
        asked.append(reply.labels[0].name)
        if len(asked) == 9:
            raise AuthenticationError("refused", backend="scripted")
        return reply

    return ScriptedBackend(failing, batch_size=1)


def asked_twice(client: httpx.Client, host: PictureHost, secret: str) -> tuple[int, dict[str, Any]]:
    """The status of the first attempt and, of the second one, its answer: by then another picture lies there."""
    headers = {"authorization": f"Bearer {secret}", "idempotency-key": "one"}
    first = client.post("/v1/predict", json={"url": address(host)}, headers=headers)
    host.put("/light.png", DARK)
    again = client.post("/v1/predict", json={"url": address(host)}, headers=headers)
    return first.status_code, again.json()


def test_the_draws_of_one_picture_never_count_for_another(host: PictureHost) -> None:
    asked: list[str] = []
    with fetching(host, halfway(asked)) as there:
        status, again = asked_twice(there.client, host, SECRET)
    assert (status, asked[:8]) == (500, ["light"] * 8)
    assert (again["label"], set(again["votes"])) == ("dark", {"dark"})


def test_nor_do_they_over_a_database(host: PictureHost, tmp_path: Path) -> None:
    asked: list[str] = []
    references = references_of(listed(host), at_home)
    with administered(tmp_path, halfway(asked), references) as there:
        secret = there.create()["secret"]
        status, again = asked_twice(there.admin, host, secret)
        replayed = there.admin.post(
            "/v1/predict",
            json={"url": address(host)},
            headers={"authorization": f"Bearer {secret}", "idempotency-key": "one"},
        )
    assert (status, asked[:8]) == (500, ["light"] * 8)
    assert (again["label"], set(again["votes"])) == ("dark", {"dark"})
    assert replayed.json() == again
    assert len(host.asked) == 2


def test_a_picture_keeps_its_number_unless_it_was_fetched() -> None:
    wish: Any = None
    sent = Inquiry(Caller("one"), (b"a", b"b"), wish, "digest")
    fetched = Inquiry(Caller("one"), (b"a", b"b"), wish, "digest", fetched=True)
    shas = ["00000010" + "0" * 56, "00000020" + "0" * 56]
    assert [sent.number(sha, shas) for sha in shas] == [0, 1]
    assert [fetched.number(sha, shas) for sha in shas] == [1, 2]


def test_the_votes_about_a_fetched_picture_are_told_as_they_grow(host: PictureHost) -> None:
    with fetching(host) as there:
        streamed = ask(there, address(host), accept="text/event-stream").text
    events = [line.partition(": ")[2] for line in streamed.splitlines() if line.startswith("event")]
    data = [json.loads(line[6:]) for line in streamed.splitlines() if line.startswith("data: ")]
    assert events[-1] == "verdict"
    assert data[-1]["label"] == "light"
    assert "votes" in events


def test_too_many_fetched_pictures_at_once_are_refused_and_let_go(host: PictureHost) -> None:
    host.put("/large.png", bytes(2**20 + 1))
    with fetching(host, table={"fetched_bytes": 2**20}) as there:
        refused = ask(there, address(host, "/large.png"))
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "throttled")
        assert native(there, address(host)) == "light"
        assert there.gateway.references._held == 0  # type: ignore[attr-defined]


def test_what_is_listed_is_hardened_and_only_the_rest_passes(
    host: PictureHost, credentials: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.put("/pictures/light.png", LIGHT)
    references = references_of(listed(host, buckets=("s3://pictures",)), at_home)
    on = {"enabled": True, "references": True}
    with (
        before_aws(monkeypatch, passthrough=on, references=references) as (there, upstream),
        sdks.rekognition(there) as client,
    ):
        upstream.answer = (200, {"Labels": [{"Name": "light", "Confidence": 90.0}], "LabelModelVersion": "1"})

        def told(bucket: str) -> tuple[str, str | None]:
            reply = client.detect_labels(Image={"S3Object": {"Bucket": bucket, "Name": "light.png"}})
            headers = reply["ResponseMetadata"]["HTTPHeaders"]
            return reply["Labels"][0]["Name"], headers.get("x-smoothing-hardened")

        assert told("pictures") == ("light", None)
        hardened, bodies = len(upstream.asked), [json.loads(request.body) for request in upstream.asked]
        assert hardened >= 12
        assert all("Bytes" in body["Image"] for body in bodies)
        assert told("others") == ("light", "false")
        (passed,) = upstream.asked[hardened:]
    assert json.loads(passed.body)["Image"]["S3Object"]["Bucket"] == "others"
    assert [request.path for request in host.asked] == ["/pictures/light.png"]
