"""Chat requests and answers for the tests of both directions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from smoothing_proxy.images.codec import Encoding, encode
from smoothing_proxy.wire.base import HttpReply, HttpRequest
from smoothing_proxy.wire.openai import request_body
from tests.backends.backend_asking import noise_pictures

RECORDED = Path(__file__).parent / "recorded" / "openai"
LABELS = ("dog", "cat", "hot dog")
PNG = encode(noise_pictures(1, 8, 8)[0], Encoding("png")).data


def recorded(name: str, status: int = 200) -> HttpReply:
    return HttpReply(status, {"content-type": "application/json"}, (RECORDED / name).read_bytes())


def completion(content: object, **choice: Any) -> HttpReply:
    """The recorded completion with another text, and further fields of its choice or message."""
    body = json.loads((RECORDED / "completion.json").read_bytes())
    message = {"role": "assistant", "content": content, "refusal": choice.pop("refusal", None)}
    body["choices"] = [{**body["choices"][0], "message": message, **choice}]
    return HttpReply(200, {}, json.dumps(body).encode())


def chat_request(**changes: Any) -> HttpRequest:
    """The client's own request with other or, for None, without some fields."""
    body = {**json.loads(request_body(PNG, "image/png", LABELS, model="m")), **changes}
    body = {name: value for name, value in body.items() if value is not None}
    headers = {"authorization": "Bearer secret", "content-type": "application/json"}
    return HttpRequest("POST", "/v1/chat/completions", headers, json.dumps(body).encode())


def schema_format(schema: object) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": schema}}


def picture_message(*urls: str) -> list[dict[str, Any]]:
    parts = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return [{"role": "user", "content": [{"type": "text", "text": "What is it?"}, *parts]}]
