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

__all__ = ["blank_in", "body_of", "check_options", "picture_in", "prompt_in"]


_ASKING = ("system", "developer", "user")


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
    for option in ("tools", "functions", "web_search_options"):
        if body.get(option):
            raise RequestFault(Fault.BAD_REQUEST, f"{option}: a classifier calls none; leave them out.")
    if body.get("logprobs"):
        raise RequestFault(Fault.BAD_REQUEST, "logprobs: a vote has none; leave them out.")
    if body.get("modalities") not in (None, ["text"]):
        raise RequestFault(Fault.BAD_REQUEST, "modalities: a label is text; leave them out.")


def picture_in(body: Mapping[str, Any]) -> bytes | str:
    """The encoded picture, or the address where it is.

    Raises RequestFault: BAD_REQUEST unless there is exactly one; BAD_IMAGE.
    """
    urls = [url for kind, url in _parts(body.get("messages")) if kind == "image_url"]
    if len(urls) != 1:
        raise RequestFault(Fault.BAD_REQUEST, f"messages: {len(urls)} pictures; exactly one is classified.")
    return _picture(urls[0])


def prompt_in(body: Mapping[str, Any]) -> str:
    """All that is said beside the picture, its white space folded. Raises RequestFault (BAD_REQUEST)."""
    said = " ".join(text for kind, text in _parts(body.get("messages")) if kind == "text")
    return " ".join(said.split())


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


def _parts(messages: object) -> Iterator[tuple[str, str]]:
    """What one side of a conversation has said: "text" and its words, "image_url" and its address.

    Raises RequestFault (BAD_REQUEST) where the other side has answered already, and for sound and files.
    """
    for message in messages if isinstance(messages, list) else []:
        if not isinstance(message, dict):
            raise RequestFault(Fault.BAD_REQUEST, "messages: each has to be an object.")
        if message.get("role", "user") not in _ASKING:
            raise RequestFault(Fault.BAD_REQUEST, "messages: one question is answered, no conversation.")
        content = message.get("content")
        if isinstance(content, str):
            yield "text", content
        for part in content if isinstance(content, list) else []:
            yield _part(part)


def _part(part: object) -> tuple[str, str]:
    kind = part.get("type") if isinstance(part, dict) else None
    if not isinstance(part, dict) or kind not in ("text", "image_url"):
        raise RequestFault(Fault.BAD_REQUEST, "messages: a question is text and a picture, and nothing else.")
    inner = part.get(kind)
    told = inner.get("url") if isinstance(inner, dict) else inner
    return kind, told if isinstance(told, str) else ""


def _picture(url: str) -> bytes | str:
    head, comma, data = url.partition(",")
    if not head.startswith("data:"):
        return url
    if not (comma and re.fullmatch(r"data:image/[\w.+-]+;base64", head)):
        raise RequestFault(Fault.BAD_IMAGE, "image_url: expected data:image/...;base64,...")
    try:
        picture = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise RequestFault(Fault.BAD_IMAGE, "image_url: the picture is not base64.") from None
    if not picture:
        raise RequestFault(Fault.BAD_IMAGE, "image_url: the picture is empty.")
    return picture
