"""The vendors' own SDKs, pointed at the gateway and told nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from smoothing_proxy.backends.scripted import ScriptedBackend
from tests.gateway import sdks
from tests.gateway.gateways import KEY_ID, SECRET, There, by_level, picture, serving

WRONG = "the-secret-of-nobody"


@pytest.fixture(scope="module")
def there() -> Iterator[There]:
    with serving(ScriptedBackend(by_level, batch_size=8), verdict_ttl_s=0) as there:
        yield there


REFUSALS = {
    "boto3": "InvalidSignatureException",
    "google REST": "invalid authentication credentials",
    "google gRPC": "not known here",
    "google async": "not known here",
    "azure 4.0": "invalid subscription key",
    "azure 4.0 async": "invalid subscription key",
    "azure 3.2": "invalid subscription key",
    "clarifai": "Invalid API key",
    "openai": "Incorrect API key",
}


@pytest.mark.parametrize("name", sdks.ASKS)
def test_an_sdk_gets_a_hardened_answer(there: There, name: str) -> None:
    image = picture(20 + sum(map(ord, name)) % 60)
    found = sdks.ASKS[name](there, image)
    expected = [("dark", 0.8), ("shade", 0.6)]
    if name == "openai":  # which answers with one label, whose confidence it does not tell
        expected = [("dark", 1.0)]
    assert [label for label, _ in found] == [label for label, _ in expected]
    assert [confidence for _, confidence in found] == pytest.approx([confidence for _, confidence in expected])


@pytest.mark.parametrize("name", sdks.ASKS)
def test_an_sdk_with_a_wrong_key_is_told_in_its_own_way(there: There, name: str) -> None:
    asked = there.backend.asked
    with pytest.raises(Exception, match=REFUSALS[name]):
        sdks.ASKS[name](there, picture(), WRONG)
    assert there.backend.asked == asked


def test_boto3_finds_the_gateway_by_its_environment_alone(there: There, monkeypatch: pytest.MonkeyPatch) -> None:
    import boto3  # type: ignore[import-untyped, unused-ignore]

    for key, value in {
        "AWS_ENDPOINT_URL_REKOGNITION": there.url,
        "AWS_ACCESS_KEY_ID": KEY_ID,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "eu-west-1",
    }.items():
        monkeypatch.setenv(key, value)
    client = boto3.client("rekognition")
    reply = client.detect_labels(Image={"Bytes": picture(230)}, MaxLabels=1)
    client.close()
    assert [label["Name"] for label in reply["Labels"]] == ["light"]
    assert reply["LabelModelVersion"] == "v1"
    told = reply["ResponseMetadata"]["HTTPHeaders"]
    assert (told["x-smoothing-label"], told["x-smoothing-abstain"]) == ("light", "false")
    assert told["x-amzn-requestid"] == reply["ResponseMetadata"]["RequestId"]


@pytest.mark.parametrize(("listed", "said"), [(("light", "dark"), "dark"), (("light", "shade"), None)])
def test_one_label_of_a_closed_list_is_the_voted_one_or_none(
    there: There, listed: tuple[str, ...], said: str | None
) -> None:
    from openai import OpenAI
    from openai.types.chat import ChatCompletion

    from smoothing_proxy.wire.openai import request_body

    body = json.loads(request_body(picture(44), "image/png", listed, model="vision"))
    with OpenAI(base_url=f"{there.url}/v1", api_key=SECRET, max_retries=0) as client:
        completion: ChatCompletion = client.chat.completions.create(**body)
    message = completion.choices[0].message
    assert (message.content is None) == (message.refusal is not None) == (said is None)
    assert said is None or json.loads(message.content or "") == {"label": said}


def test_each_picture_of_a_google_request_has_its_own_answer(there: There) -> None:
    import grpc  # type: ignore[import-untyped, unused-ignore]
    from google.cloud.vision_v1 import types as vision

    feature = vision.Feature(type_=vision.Feature.Type.LABEL_DETECTION)
    contents = (picture(10), b"no picture", picture(240), picture(10))
    asked = vision.BatchAnnotateImagesRequest(
        requests=[
            vision.AnnotateImageRequest(image=vision.Image(content=content), features=[feature])
            for content in contents
        ]
    )
    with grpc.insecure_channel(f"127.0.0.1:{there.address.grpc_port}") as channel:
        call = channel.unary_unary(
            "/google.cloud.vision.v1.ImageAnnotator/BatchAnnotateImages",
            vision.BatchAnnotateImagesRequest.serialize,
            vision.BatchAnnotateImagesResponse.deserialize,
        )
        reply, told = call.with_call(asked, metadata=[("x-goog-api-key", SECRET)], timeout=20)
    found = [one.error.code or one.label_annotations[0].description for one in reply.responses]
    assert found == ["dark", 3, "light", "dark"]
    proof = dict(told.initial_metadata())
    assert proof["x-smoothing-label"] == "dark, , light, dark"
    ids = proof["x-smoothing-verdict-id"].split(", ")
    assert ids[0] == ids[3] != ids[2]
    assert ids[1] == ""
