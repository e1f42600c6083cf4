"""What a chat request asks of a classifier: one picture, sent along, and the shape of the answer."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from smoothing_proxy.wire.base import Fault, HttpRequest, RequestFault
from smoothing_proxy.wire.openai_schema import Blank, blank_of

__all__ = ["blank_in", "body_of", "check_options", "picture_in"]


def body_of(request: HttpRequest) -> dict[str, Any]:
    """The request's JSON object. Raises RequestFault (BAD_REQUEST)."""
    try:
        body = json.loads(request.body)
    except (ValueError, RecursionError):
        raise RequestFault(Fault.BAD_REQUEST, "We could not parse the JSON body of your request.") from None
    if not isinstance(body, dict):
        raise RequestFault(Fault.BAD_REQUEST, "The JSON body of your request is no object.")
    return body


def check_options(body: Mapping[str, Any]) -> None:
    """Raises RequestFault (BAD_REQUEST) for what a classifier cannot do: streams, several answers, calls."""
    if body.get("stream"):
        raise RequestFault(Fault.BAD_REQUEST, "stream: one label is not streamed; leave it out.")
    if body.get("n") not in (None, 1):
        raise RequestFault(Fault.BAD_REQUEST, "n: there is one answer to a picture; leave it out.")
    for option in ("tools", "functions"):
        if body.get(option):
            raise RequestFault(Fault.BAD_REQUEST, f"{option}: a classifier calls none; leave them out.")


def picture_in(body: Mapping[str, Any]) -> bytes:
    """The encoded picture. Raises RequestFault: BAD_REQUEST unless there is exactly one, sent along; BAD_IMAGE."""
    urls = list(_picture_urls(body.get("messages")))
    if len(urls) != 1:
        raise RequestFault(Fault.BAD_REQUEST, f"messages: {len(urls)} pictures; exactly one is classified.")
    return _picture(urls[0])


def blank_in(body: Mapping[str, Any]) -> Blank | None:
    """Where the answer goes; None for plain text. Raises RequestFault (BAD_REQUEST)."""
    wanted = body.get("response_format")
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    if wanted is None or kind == "text":
        return None
    if kind == "json_object":
        return Blank(("label",))
    if not isinstance(wanted, dict) or kind != "json_schema":
        raise RequestFault(Fault.BAD_REQUEST, "response_format: expected json_schema, json_object or text.")
    inner = wanted.get("json_schema")
    return blank_of(inner.get("schema") if isinstance(inner, dict) else None)


def _picture_urls(messages: object) -> Iterator[str]:
    for message in messages if isinstance(messages, list) else []:
        content = message.get("content") if isinstance(message, dict) else None
        for part in content if isinstance(content, list) else []:
            if isinstance(part, dict) and part.get("type") == "image_url":
                inner = part.get("image_url")
                url = inner.get("url") if isinstance(inner, dict) else inner
                yield url if isinstance(url, str) else ""


def _picture(url: str) -> bytes:
    head, comma, data = url.partition(",")
    if not head.startswith("data:"):
        raise RequestFault(Fault.BAD_REQUEST, "image_url: no address is fetched; send the picture as a data URL.")
    if not (comma and re.fullmatch(r"data:image/[\w.+-]+;base64", head)):
        raise RequestFault(Fault.BAD_IMAGE, "image_url: expected data:image/...;base64,...")
    try:
        picture = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise RequestFault(Fault.BAD_IMAGE, "image_url: the picture is not base64.") from None
    if not picture:
        raise RequestFault(Fault.BAD_IMAGE, "image_url: the picture is empty.")
    return picture
