"""Chat completions of OpenAI, and of the many servers that speak its format, as a classifier with a closed list.

The picture travels as a data URL, the labels as the enum of a strict JSON schema (structured output) and in the
prompt, for servers that pass over the schema. An answer is one label of the list or nothing.

Source: the vendor's reference of `POST /v1/chat/completions` as the types and the retries of its Python SDK 3.52
show it; the codes and sizes that only its documentation states are marked in the tables below.
"""

from __future__ import annotations

import base64
import hmac
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Literal, TypeAlias

from smoothing_proxy.errors import BackendError, MalformedReplyError
from smoothing_proxy.types import Reply, ScoredLabel
from smoothing_proxy.wire.base import (
    ElsewhereFault,
    Fault,
    FetchFault,
    HttpReply,
    HttpRequest,
    Limits,
    Place,
    Question,
    RequestFault,
)
from smoothing_proxy.wire.openai_request import blank_in, body_of, check_options, picture_in
from smoothing_proxy.wire.openai_schema import label_schema
from smoothing_proxy.wire.statuses import Failure, failure_error, failure_of, harmless

__all__ = ["Detail", "OpenAiWire", "chat_url", "error_of", "prompt_of", "reply_of", "request_body"]

Detail: TypeAlias = Literal["auto", "low", "high"]

_CHAT = "/chat/completions"
_NO_ADDRESS = "image_url: no address is fetched; send the picture as a data URL."
_OTHERS = re.compile(r"/v1/(models|responses|completions|embeddings)(/|$)")

_CODES: dict[str, Failure] = {
    "insufficient_quota": "quota",
    "billing_hard_limit_reached": "quota",
    "billing_not_active": "quota",
    "invalid_api_key": "auth",
    "model_not_found": "auth",
    "rate_limit_exceeded": "throttled",
    "content_policy_violation": "rejected",
    "content_filter": "rejected",
}
"""Error codes that say more than their status does, or the same where a compatible server has another status."""


def chat_url(base_url: str) -> str:
    """The address of chat completions: `base_url` may end before /v1, with it, or with the whole path."""
    base = base_url.rstrip("/")
    if base.endswith(_CHAT):
        return base
    return base + (_CHAT if re.search(r"/v\d+\w*(/openai)?$", base) else f"/v1{_CHAT}")


def prompt_of(labels: Sequence[str]) -> str:
    """What the model is told. The labels stand as a JSON list, so that no label can be read as an instruction."""
    listed = json.dumps(list(labels), ensure_ascii=False)
    return (
        "Classify the picture. Answer with the one label of this list that fits its main content best, written "
        f'exactly as in the list, as {{"label": "..."}} and nothing else: {listed}'
    )


def request_body(
    image: bytes,
    media_type: str,
    labels: Sequence[str],
    *,
    model: str,
    detail: Detail = "auto",
    temperature: float | None = 0.0,
    extra: Mapping[str, Any] | None = None,
) -> bytes:
    """The request about one picture. image: a PNG or JPEG file. media_type: "image/png" or "image/jpeg".

    temperature: None leaves it out, for models that take none. extra: further keys of the request.
    """
    url = f"data:{media_type};base64,{base64.b64encode(image).decode()}"
    content = [
        {"type": "text", "text": prompt_of(labels)},
        {"type": "image_url", "image_url": {"url": url, "detail": detail}},
    ]
    schema = {"name": "classification", "strict": True, "schema": label_schema(tuple(labels))}
    request = {
        **(extra or {}),
        "model": model,
        "messages": [{"role": "user", "content": content}],
        "response_format": {"type": "json_schema", "json_schema": schema},
        "n": 1,
        **({} if temperature is None else {"temperature": temperature}),
    }
    return json.dumps(request, separators=(",", ":")).encode()


def reply_of(
    reply: HttpReply, labels: Sequence[str], *, backend: str = "openai-vision", with_fingerprint: bool = False
) -> Reply:
    """One label of the list with confidence 1.0, or an empty reply for any other answer.

    Any other answer is a refusal, a text that is neither {"label": L} nor L, a label outside of the list, one that
    was cut off or filtered. The confidence is always 1.0: a vote needs none, and the log-probability of a label's
    tokens is neither calibrated nor offered by all servers.
    model_version: `model` of the reply, the dated name of what answered. with_fingerprint: system_fingerprint as
    well; it also changes with the vendor's machines, and each change voids the certificate under way.
    Raises MalformedReplyError for a body outside of the format.
    """
    body = _json(reply.body, backend)
    choices = body.get("choices") if isinstance(body, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not (isinstance(body, dict) and isinstance(choice, dict) and isinstance(message, dict)):
        raise _malformed("its answer is no chat completion with a message", reply.body, backend)
    content = message.get("content")
    if content is not None and not isinstance(content, str):
        raise _malformed("its answer's message is neither text nor null", reply.body, backend)
    cut = choice.get("finish_reason") in ("length", "content_filter") or message.get("refusal")
    label = None if cut or content is None else _label_in(content, labels)
    return Reply(
        () if label is None else (ScoredLabel(label, 1.0),),
        _version(body, with_fingerprint=with_fingerprint),
        _text(body.get("id")),
    )


def error_of(reply: HttpReply, *, backend: str, retry_after: float | None = None) -> BackendError:
    """What a reply with another status than 200 means. retry_after: seconds that its headers ask to wait.

    The error's code decides where it says more than the status. Its words are kept but for refused credentials,
    where servers have been seen to repeat the key.
    """
    try:
        body = _json(reply.body, backend)
    except MalformedReplyError:
        body = None
    error = body.get("error") if isinstance(body, dict) else None
    fields = error if isinstance(error, dict) else {"message": error}
    named = (failure for key in ("code", "type") if (failure := _CODES.get(_text(fields.get(key)))))
    failure = next(named, None) or failure_of(reply.status)
    words = "" if failure == "auth" and reply.status in (401, 403) else harmless(fields.get("message"))
    code = harmless(fields.get("code"))
    said = ": ".join(part for part in (f"HTTP {reply.status}", code, words) if part)
    return failure_error(failure, f"{backend}: {said}", backend=backend, retry_after=retry_after)


class OpenAiWire:
    """Chat completions about exactly one picture, answered with one label. A `Wire`.

    The labels are the enum of the request's JSON schema; without a schema any label is the answer, as plain text.
    An answer of no label is written as a refusal. Tokens are not counted here: `usage` is zero, and so is
    `created`, for want of a clock.
    """

    name = "openai"
    limits = Limits(image_bytes=20 * 2**20, request_bytes=50 * 2**20)

    def serves(self, request: HttpRequest) -> bool:
        """Chat completions under any prefix, and the vendor's other addresses, which `read` refuses."""
        path = request.path.rstrip("/")
        return path.endswith(_CHAT) or _OTHERS.search(path) is not None

    def key(self, request: HttpRequest) -> str:
        """The bearer token."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise RequestFault(
                Fault.UNAUTHENTICATED, "You did not provide an API key: expected `Authorization: Bearer KEY`."
            )
        return token.strip()

    def verify(self, request: HttpRequest, secret: str, now: datetime) -> None:
        """The token is the secret itself."""
        if not hmac.compare_digest(self.key(request).encode(errors="replace"), secret.encode()):
            raise RequestFault(Fault.UNAUTHENTICATED, "Incorrect API key provided.")

    def read(self, request: HttpRequest) -> Question:
        """One picture sent along as a data URL, and a schema with an enum or none. See Wire.read."""
        if not request.path.rstrip("/").endswith(_CHAT):
            raise RequestFault(Fault.UNKNOWN_OPERATION, "Only POST /v1/chat/completions is answered here.")
        if request.method != "POST":
            raise RequestFault(Fault.UNKNOWN_OPERATION, f"Not allowed to {request.method} on this address.")
        body = body_of(request)
        check_options(body)
        picture = picture_in(body)
        here = picture if isinstance(picture, bytes) else b""
        if len(here) > self.limits.image_bytes:
            raise RequestFault(
                Fault.IMAGE_TOO_LARGE, f"The picture is larger than {self.limits.image_bytes} bytes."
            )
        blank = blank_in(body)
        model = body.get("model")
        if not isinstance(model, str) or not model:
            raise RequestFault(Fault.BAD_REQUEST, "you must provide a model parameter")
        question = Question((here,), 1, labels=blank.labels if blank else (), model=model)
        if isinstance(picture, str):
            places = {0: Place(picture, self.limits.image_bytes)}
            raise ElsewhereFault(_NO_ADDRESS, replace(question, places=places))
        return question

    def write(
        self, request: HttpRequest, question: Question, answers: Sequence[Reply | RequestFault], request_id: str
    ) -> HttpReply:
        """A chat completion whose text is the best label, in the shape that the schema asks for."""
        (answer,) = answers
        if isinstance(answer, RequestFault):
            return self.refuse(request, answer, request_id)
        label = _best(answer, question.labels)
        blank = blank_in(body_of(request))
        refusal = "No label of this picture is certain enough." if label is None else None
        content = label if label is None or blank is None else blank.filled(label)
        message = {"role": "assistant", "content": content, "refusal": refusal}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
        completion = {
            "id": f"chatcmpl-{request_id}",
            "object": "chat.completion",
            "created": 0,
            "model": answer.model_version or question.model,
            "choices": [choice],
            "usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
            "system_fingerprint": None,
        }
        return _reply(200, completion, request_id)

    def refuse(self, request: HttpRequest, fault: RequestFault, request_id: str) -> HttpReply:
        """The error body that the SDK turns into its exception.

        A quota that is used up has the status of a throttle, which the SDK would send again: it is told not to.
        """
        status, kind, code = _FAULTS[fault.fault]
        if isinstance(fault, FetchFault) and fault.unreachable:
            code = "invalid_image_url"
        headers = {"x-should-retry": "false"} if fault.fault is Fault.QUOTA else {}
        if fault.retry_after_s is not None:
            headers["retry-after"] = str(max(0, -int(-fault.retry_after_s // 1)))
        error = {"message": fault.message, "type": kind, "param": None, "code": code}
        return _reply(status, {"error": error}, request_id, headers)


_FAULTS: dict[Fault, tuple[int, str, str | None]] = {
    Fault.BAD_REQUEST: (400, "invalid_request_error", None),
    Fault.BAD_IMAGE: (400, "invalid_request_error", "image_parse_error"),  # documentation
    Fault.IMAGE_TOO_LARGE: (400, "invalid_request_error", "image_too_large"),  # documentation
    Fault.UNAUTHENTICATED: (401, "invalid_request_error", "invalid_api_key"),
    Fault.FORBIDDEN: (403, "invalid_request_error", "insufficient_permissions"),  # documentation
    Fault.UNKNOWN_OPERATION: (404, "invalid_request_error", "unknown_url"),
    Fault.THROTTLED: (429, "requests", "rate_limit_exceeded"),
    Fault.QUOTA: (429, "insufficient_quota", "insufficient_quota"),
    Fault.INTERNAL: (500, "server_error", None),
    Fault.UNAVAILABLE: (503, "server_error", None),
    Fault.TIMEOUT: (504, "server_error", None),
}
"""Fault -> status, `type` and `code` of the error."""


def _json(body: bytes, backend: str) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise _malformed(f"its answer ({len(body)} bytes) is not JSON", body, backend) from None


def _malformed(why: str, body: bytes, backend: str) -> MalformedReplyError:
    return MalformedReplyError(f"{backend}: {why}", backend=backend, reply=body)


def _text(value: object) -> str:
    """Valid Unicode: JSON may hold lone surrogates, which no database takes."""
    return value.encode(errors="replace").decode() if isinstance(value, str) else ""


def _label_in(content: str, labels: Sequence[str]) -> str | None:
    """The label that the text is, alone or as {"label": L}; an object with more than that is no answer."""
    text = content.strip()
    if text in labels:
        return text
    try:
        pairs = json.loads(text, object_pairs_hook=list)
    except (ValueError, RecursionError):
        return None
    return next((label for label in labels if pairs == [("label", label)]), None)


def _version(body: Mapping[str, Any], *, with_fingerprint: bool) -> str:
    parts = [_text(body.get("model")), _text(body.get("system_fingerprint")) if with_fingerprint else ""]
    return "/".join(part for part in parts if part)


def _best(answer: Reply, labels: Sequence[str]) -> str | None:
    """The label of highest confidence, ties by name, out of those that may be answered."""
    allowed = [label for label in answer.labels if not labels or label.name in labels]
    best = min(allowed, key=lambda label: (-label.confidence, label.name or label.id), default=None)
    return None if best is None else best.name or best.id


def _reply(status: int, body: object, request_id: str, headers: Mapping[str, str] | None = None) -> HttpReply:
    known = {"content-type": "application/json", "x-request-id": request_id}
    return HttpReply(status, {**known, **(headers or {})}, json.dumps(body).encode())
