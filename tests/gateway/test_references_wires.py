"""How each vendor's format names a picture that is elsewhere."""

from __future__ import annotations

import json
from typing import Any

import pytest

from smoothing_proxy.gateway.app import every_wire
from smoothing_proxy.wire.base import ElsewhereFault, HttpRequest, RequestFault

WIRES = {wire.name: wire for wire in every_wire()}
URL = "https://images.example.com/a.png"
LABELS = [{"type": "LABEL_DETECTION"}]
OUTPUTS = "/v2/models/general-image-recognition/outputs"
AZURE = {"api-version": "2023-10-01", "features": "tags"}
PIXEL = "iVBORw0KGgo="


def aws(image: Any) -> HttpRequest:
    headers = {"x-amz-target": "RekognitionService.DetectLabels", "content-type": "application/x-amz-json-1.1"}
    return HttpRequest("POST", "/", headers, json.dumps({"Image": image}).encode())


def azure(body: bytes, media: str = "application/json") -> HttpRequest:
    path = "/computervision/imageanalysis:analyze"
    return HttpRequest(
        "POST", path, {"content-type": media}, body, AZURE, f"{path}?api-version=2023-10-01&features=tags"
    )


def google(*images: Any) -> HttpRequest:
    requests = [{"image": image, "features": LABELS} for image in images]
    return HttpRequest("POST", "/v1/images:annotate", {}, json.dumps({"requests": requests}).encode())


def clarifai(*images: Any) -> HttpRequest:
    inputs = [{"data": {"image": image}} for image in images]
    return HttpRequest("POST", OUTPUTS, {}, json.dumps({"inputs": inputs}).encode())


def openai(url: Any) -> HttpRequest:
    schema = {
        "type": "object",
        "properties": {"label": {"type": "string", "enum": ["a", "b"]}},
        "required": ["label"],
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    messages = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]
    body = {"model": "m", "messages": messages, "response_format": wanted}
    return HttpRequest("POST", "/v1/chat/completions", {}, json.dumps(body).encode())


@pytest.mark.parametrize(
    ("vendor", "request_", "places"),
    [
        ("aws", aws({"S3Object": {"Bucket": "b", "Name": "a/ö.png"}}), {0: ("s3://b/a/ö.png", "")}),
        ("aws", aws({"S3Object": {"Bucket": "b", "Name": "n", "Version": "v"}}), {0: ("s3://b/n", "v")}),
        ("aws", aws({"S3Object": {"Bucket": "b/c", "Name": "n"}}), {0: ("s3:///n", "")}),
        ("aws", aws({"S3Object": {"Name": 7}}), {0: ("s3:///", "")}),
        ("aws", aws({"S3Object": "x"}), {0: ("s3:///", "")}),
        ("azure", azure(json.dumps({"url": URL}).encode()), {0: (URL, "")}),
        ("azure", azure(b"{"), {0: ("", "")}),
        ("google", google({"source": {"imageUri": URL}}), {0: (URL, "")}),
        ("google", google({"source": {"gcsImageUri": "gs://b/n"}}), {0: ("gs://b/n", "")}),
        ("google", google({"content": PIXEL}, {"source": {"imageUri": "gs://b/n"}}), {1: ("gs://b/n", "")}),
        ("clarifai", clarifai({"base64": PIXEL}, {"url": URL}), {1: (URL, "")}),
        ("openai", openai(URL), {0: (URL, "")}),
    ],
)
def test_a_request_says_where_its_pictures_are(
    vendor: str, request_: HttpRequest, places: dict[int, tuple[str, str]]
) -> None:
    with pytest.raises(ElsewhereFault) as raised:
        WIRES[vendor].read(request_)
    question = raised.value.question
    assert {number: (place.address, place.version) for number, place in question.places.items()} == places
    assert all((image == b"") == (number in places) for number, image in enumerate(question.images))


@pytest.mark.parametrize(
    ("vendor", "request_"),
    [
        ("aws", aws({"S3Object": {"Bucket": "b", "Name": "n"}, "Bytes": PIXEL})),
        ("google", google({"content": PIXEL, "source": {"imageUri": URL}})),
        ("google", google({"source": {"imageUri": URL}}, {})),
        ("clarifai", clarifai({"base64": PIXEL, "url": URL})),
        ("clarifai", clarifai({"url": URL}, {})),
        ("openai", openai("data:image/png;base64,")),
    ],
)
def test_a_picture_is_in_one_place_only(vendor: str, request_: HttpRequest) -> None:
    with pytest.raises(RequestFault) as raised:
        WIRES[vendor].read(request_)
    assert not isinstance(raised.value, ElsewhereFault)
