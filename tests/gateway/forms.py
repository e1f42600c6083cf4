"""One request in each vendor's format, written by hand, so that it can be damaged."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import httpx

__all__ = ["Form", "forms", "one_of"]

JSON = {"content-type": "application/json"}


@dataclass(frozen=True)
class Form:
    """How one vendor is asked. key: id and secret; the first is AWS's alone."""

    vendor: str
    path: str
    headers: Mapping[str, str] = field(repr=False)
    key: tuple[str, str] = field(repr=False)

    def body(self, image: bytes) -> bytes:
        """Asks for the labels of a picture."""
        data = base64.b64encode(image).decode()
        match self.vendor:
            case "aws":
                asked: object = {"Image": {"Bytes": data}}
            case "google":
                asked = {"requests": [{"image": {"content": data}, "features": [{"type": "LABEL_DETECTION"}]}]}
            case "clarifai":
                asked = {"inputs": [{"data": {"image": {"base64": data}}}]}
            case "openai":
                url = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}
                asked = {
                    "model": "m",
                    "messages": [{"role": "user", "content": [url]}],
                    "response_format": one_of("Dog", "cat"),
                }
            case _:
                return image
        return json.dumps(asked).encode()

    def sent(self, client: httpx.Client, body: bytes) -> httpx.Response:
        """The answer to a request with this body, properly signed."""
        request = client.build_request("POST", self.path, content=body, headers=dict(self.headers))
        if self.vendor == "aws":
            request.headers.update(signature(str(request.url), body, self.headers, self.key))
        return client.send(request)

    def raw(self, url: str, body: bytes) -> bytes:
        """The request as it goes over the wire to this address."""
        headers = dict(self.headers)
        if self.vendor == "aws":
            headers |= signature(f"{url}{self.path}", body, self.headers, self.key)
        headers |= {"host": url.removeprefix("http://"), "content-length": str(len(body))}
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"POST {self.path} HTTP/1.1\r\n{head}\r\n".encode() + body


def one_of(*labels: str) -> dict[str, object]:
    """OpenAI's structured output: one label of a closed list."""
    label = {"type": "string", "enum": list(labels)}
    schema = {"type": "object", "properties": {"label": label}, "required": ["label"]}
    return {"type": "json_schema", "json_schema": {"name": "classification", "schema": schema}}


def signature(url: str, body: bytes, headers: Mapping[str, str], key: tuple[str, str]) -> dict[str, str]:
    """SigV4, as botocore signs."""
    from botocore.auth import SigV4Auth  # type: ignore[import-untyped, unused-ignore]
    from botocore.awsrequest import AWSRequest  # type: ignore[import-untyped, unused-ignore]
    from botocore.credentials import Credentials  # type: ignore[import-untyped, unused-ignore]

    signed = AWSRequest("POST", url, data=body, headers=dict(headers))
    SigV4Auth(Credentials(*key), "rekognition", "us-east-1").add_auth(signed)
    return dict(signed.headers.items())


def forms(keys: Mapping[str, tuple[str, str]]) -> dict[str, Form]:
    """For each vendor that there is a key for."""
    return {vendor: Form(vendor, *_address(vendor, key[1]), key=key) for vendor, key in keys.items()}


def _address(vendor: str, secret: str) -> tuple[str, Mapping[str, str]]:
    """Path, and headers with the key as the vendor's customers present it."""
    addresses: dict[str, tuple[str, Mapping[str, str]]] = {
        "aws": (
            "/",
            {"content-type": "application/x-amz-json-1.1", "x-amz-target": "RekognitionService.DetectLabels"},
        ),
        "google": ("/v1/images:annotate", {"x-goog-api-key": secret, **JSON}),
        "azure": (
            "/vision/v3.2/tag",
            {"ocp-apim-subscription-key": secret, "content-type": "application/octet-stream"},
        ),
        "clarifai": ("/v2/models/general-image-recognition/outputs", {"authorization": f"Key {secret}", **JSON}),
        "openai": ("/v1/chat/completions", {"authorization": f"Bearer {secret}", **JSON}),
        "native": ("/v1/predict", {"authorization": f"Bearer {secret}", "content-type": "image/png"}),
    }
    return addresses[vendor]
