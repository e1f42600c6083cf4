"""The vendor's own SDK against a server that speaks OpenAiWire: what its user sees."""

from __future__ import annotations

import base64
import enum
from datetime import UTC, datetime
from typing import Any

import anyio
import openai
import pytest
from pydantic import BaseModel

from smoothing_proxy.types import Reply, ScoredLabel
from smoothing_proxy.wire.base import Fault, HttpReply, HttpRequest, RequestFault
from smoothing_proxy.wire.openai import OpenAiWire
from tests.wire.loopback import serving
from tests.wire.openai_exchanges import PNG

WIRE = OpenAiWire()
KEY = "sk-test-key"
TIMEOUT_S = 20.0
DOG = Reply((ScoredLabel("cat", 0.2), ScoredLabel("dog", 0.7)), model_version="model-2026-01-01")


class Kind(enum.Enum):
    DOG = "dog"
    CAT = "cat"


class Answer(BaseModel):
    kind: Kind


class Talkative(BaseModel):
    kind: Kind
    reason: str


class Gateway:
    """Answers every picture with the same thing. asked: how many requests came."""

    def __init__(self, answer: Reply | RequestFault) -> None:
        self.answer = answer
        self.asked = 0
        self.images: list[bytes] = []

    def __call__(self, request: HttpRequest) -> HttpReply:
        self.asked += 1
        try:
            WIRE.verify(request, KEY, datetime.now(UTC))
            question = WIRE.read(request)
        except RequestFault as fault:
            return WIRE.refuse(request, fault, "r-refused")
        self.images += question.images
        return WIRE.write(request, question, [self.answer], "r-1")


def messages(url: str | None = None) -> Any:
    picture = {"url": url or f"data:image/png;base64,{base64.b64encode(PNG).decode()}"}
    parts = [{"type": "text", "text": "Which?"}, {"type": "image_url", "image_url": picture}]
    return [{"role": "user", "content": parts}]


def client(url: str, *, key: str = KEY, max_retries: int = 0) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=max_retries, timeout=TIMEOUT_S)


def refusal_of(url: str, *, key: str = KEY, **options: Any) -> openai.APIStatusError:
    with client(url, key=key) as api, pytest.raises(openai.APIStatusError) as caught:
        api.chat.completions.create(**{"model": "m", "messages": messages(), **options})
    return caught.value


def test_the_sync_sdk_parses_the_label_into_its_users_own_type() -> None:
    gateway = Gateway(DOG)
    with serving(gateway) as url, client(url) as api:
        completion = api.chat.completions.parse(model="m", messages=messages(), response_format=Answer)
    assert completion.choices[0].message.parsed == Answer(kind=Kind.DOG)
    assert completion.model == "model-2026-01-01"
    assert completion.usage is not None
    assert completion.usage.total_tokens == 0
    assert completion._request_id == "r-1"
    assert gateway.images == [PNG]


def test_the_async_sdk_gets_the_label_as_text() -> None:
    async def ask(url: str) -> str | None:
        async with openai.AsyncOpenAI(base_url=url + "/v1", api_key=KEY, max_retries=0, timeout=TIMEOUT_S) as api:
            completion = await api.chat.completions.create(model="m", messages=messages())
            return completion.choices[0].message.content

    with serving(Gateway(DOG)) as url:
        assert anyio.run(ask, url) == "dog"


def test_no_label_is_a_refusal_to_the_sdk() -> None:
    with serving(Gateway(Reply(()))) as url, client(url) as api:
        completion = api.chat.completions.parse(model="m", messages=messages(), response_format=Answer)
    assert completion.choices[0].message.parsed is None
    assert completion.choices[0].message.refusal


@pytest.mark.parametrize(
    ("options", "status", "words"),
    [
        ({"stream": True}, 400, "stream"),
        ({"messages": messages("https://example.com/a.png")}, 400, "no address is fetched"),
        ({"n": 3}, 400, "one answer"),
        ({"key": "sk-wrong"}, 401, "Incorrect API key"),
    ],
)
def test_what_is_not_answered_is_an_exception_that_says_why(
    options: dict[str, Any], status: int, words: str
) -> None:
    with serving(Gateway(DOG)) as url:
        error = refusal_of(url, **options)
    assert error.status_code == status
    assert words in str(error)


def test_a_schema_that_asks_for_more_than_a_label_is_refused() -> None:
    with serving(Gateway(DOG)) as url, client(url) as api, pytest.raises(openai.BadRequestError) as caught:
        api.chat.completions.parse(model="m", messages=messages(), response_format=Talkative)
    assert "2 values (kind, reason)" in str(caught.value)


def test_another_operation_is_not_found() -> None:
    with serving(Gateway(DOG)) as url, client(url) as api, pytest.raises(openai.NotFoundError):
        api.models.list()


FAULTS: list[tuple[Fault, type[openai.APIStatusError], str | None]] = [
    (Fault.BAD_REQUEST, openai.BadRequestError, None),
    (Fault.BAD_IMAGE, openai.BadRequestError, "image_parse_error"),
    (Fault.IMAGE_TOO_LARGE, openai.BadRequestError, "image_too_large"),
    (Fault.UNAUTHENTICATED, openai.AuthenticationError, "invalid_api_key"),
    (Fault.FORBIDDEN, openai.PermissionDeniedError, "insufficient_permissions"),
    (Fault.UNKNOWN_OPERATION, openai.NotFoundError, "unknown_url"),
    (Fault.THROTTLED, openai.RateLimitError, "rate_limit_exceeded"),
    (Fault.QUOTA, openai.RateLimitError, "insufficient_quota"),
    (Fault.INTERNAL, openai.InternalServerError, None),
    (Fault.UNAVAILABLE, openai.InternalServerError, None),
    (Fault.TIMEOUT, openai.InternalServerError, None),
]


def test_every_fault_is_in_the_table() -> None:
    assert {row[0] for row in FAULTS} == set(Fault)


@pytest.mark.parametrize(("fault", "kind", "code"), FAULTS)
def test_each_fault_is_the_sdks_own_exception(
    fault: Fault, kind: type[openai.APIStatusError], code: str | None
) -> None:
    with serving(Gateway(RequestFault(fault, "because", retry_after_s=1.2))) as url:
        error = refusal_of(url)
    assert type(error) is kind
    assert error.code == code
    assert "because" in str(error)
    assert error.response.headers["retry-after"] == "2"
    assert error.request_id == "r-1"


@pytest.mark.parametrize(("fault", "sends"), [(Fault.QUOTA, 1), (Fault.BAD_IMAGE, 1), (Fault.THROTTLED, 2)])
def test_the_sdk_sends_again_only_what_may_succeed(fault: Fault, sends: int) -> None:
    gateway = Gateway(RequestFault(fault, "because", retry_after_s=0.0))
    with serving(gateway) as url, client(url, max_retries=1) as api, pytest.raises(openai.APIStatusError):
        api.chat.completions.create(model="m", messages=messages())
    assert gateway.asked == sends
