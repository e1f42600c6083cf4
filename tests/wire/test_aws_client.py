"""The client's side of Rekognition's format: what its replies and its errors mean."""

from __future__ import annotations

import json
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smoothing_proxy.errors import (
    AuthenticationError,
    BackendError,
    BackendTimeoutError,
    BackendUnavailableError,
    MalformedReplyError,
    QuotaExceededError,
    RateLimitedError,
    RequestRejectedError,
)
from smoothing_proxy.wire.aws import error_of, reply_of, request_body, retry_after_of

RECORDED = Path(__file__).with_name("recorded") / "aws"
PICTURE = b"\x89PNG picture"


@pytest.mark.parametrize(
    ("code", "status", "kind", "maybe_billed"),
    [
        ("ThrottlingException", 400, RateLimitedError, False),
        ("ThrottlingException", 500, RateLimitedError, False),
        ("ProvisionedThroughputExceededException", 400, RateLimitedError, False),
        ("com.amazonaws.rekognition#ThrottlingException", 400, RateLimitedError, False),
        ("ThrottlingException:http://internal.amazon.com/coral/", 400, RateLimitedError, False),
        ("com.amazonaws.rekognition#ThrottlingException:http://x/#y", 400, RateLimitedError, False),
        ("InternalServerError", 400, BackendUnavailableError, True),
        ("ServiceUnavailable", 500, BackendUnavailableError, False),
        ("ServiceUnavailableException", 503, BackendUnavailableError, False),
        ("RequestTimeoutException", 400, BackendTimeoutError, True),
        ("AccessDeniedException", 400, AuthenticationError, False),
        ("UnrecognizedClientException", 400, AuthenticationError, False),
        ("InvalidSignatureException", 500, AuthenticationError, False),
        ("ExpiredTokenException", 400, AuthenticationError, False),
        ("MissingAuthenticationTokenException", 400, AuthenticationError, False),
        ("InvalidImageFormatException", 500, RequestRejectedError, False),
        ("ImageTooLargeException", 400, RequestRejectedError, False),
        ("InvalidParameterException", 400, RequestRejectedError, False),
        ("LimitExceededException", 400, QuotaExceededError, False),
        ("ServiceQuotaExceededException", 402, QuotaExceededError, False),
        ("UnknownOperationException", 404, AuthenticationError, False),
        ("Unheard", 400, RequestRejectedError, False),
        ("403", 403, AuthenticationError, False),
        ("429", 429, RateLimitedError, False),
        ("500", 500, BackendUnavailableError, True),
        ("502", 502, BackendUnavailableError, True),
        ("503", 503, BackendUnavailableError, False),
        ("504", 504, BackendTimeoutError, True),
        ("Unheard", 599, BackendUnavailableError, True),
        ("", 200, BackendUnavailableError, True),
    ],
)
def test_the_code_decides_and_the_status_only_without_one(
    code: str, status: int, kind: type[BackendError], maybe_billed: bool
) -> None:
    error = error_of(code, "why", status, 2.5, "aws-rekognition")
    assert type(error) is kind
    assert error.maybe_billed is maybe_billed
    if isinstance(error, RateLimitedError | BackendUnavailableError):
        assert error.retry_after == 2.5


def test_an_error_keeps_no_signed_headers() -> None:
    message = "The signature does not match.\n\nThe Canonical String should have been\nx-amz-security-token:SECRET"
    assert "SECRET" not in str(error_of("InvalidSignatureException", message, 403, None, "mine"))
    assert "no message" in str(error_of("InternalServerError", " \n", 500, None, "mine"))


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "3"}, 3.0),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, None),
        ({"x-amz-retry-after": "1500", "retry-after": "3"}, 1.5),
        ({"x-amz-retry-after": "soon", "retry-after": "3"}, 3.0),
    ],
)
def test_how_long_to_wait_is_read_from_headers(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_of(headers) == seconds


def test_a_question_states_no_threshold() -> None:
    image = {"Image": {"Bytes": b64encode(PICTURE).decode()}}
    assert json.loads(request_body(PICTURE)) == {**image, "MinConfidence": 0}
    assert json.loads(request_body(PICTURE, max_labels=7)) == {**image, "MinConfidence": 0, "MaxLabels": 7}


@pytest.mark.parametrize(
    "case", json.loads((RECORDED / "replies.json").read_text()), ids=lambda case: case["name"]
)
def test_a_recorded_reply_is_read(case: dict[str, Any]) -> None:
    reply = reply_of(case["reply"])
    assert [[label.name, label.confidence] for label in reply.labels] == case["labels"]
    assert [list(label.parents) for label in reply.labels] == case["parents"]
    assert [list(label.aliases) for label in reply.labels] == case["aliases"]
    assert [reply.model_version, reply.request_id] == case["version_and_id"]


@pytest.mark.parametrize(
    ("parsed", "said"),
    [
        ({}, "Labels is not a list"),
        ({"Labels": None}, "Labels is not a list"),
        ({"Labels": {}}, "Labels is not a list"),
        ({"Labels": ["Dog"]}, "Labels is not a list of objects"),
        ({"Labels": [{"Confidence": 5}]}, "a label has no Name"),
        ({"Labels": [{"Name": "", "Confidence": 5}]}, "a label has no Name"),
        ({"Labels": [{"Name": 5, "Confidence": 5}]}, "Name is not a text"),
        ({"Labels": [{"Name": "Dog"}]}, "label 'Dog': Confidence"),
        ({"Labels": [{"Name": "Dog", "Confidence": "99"}]}, "label 'Dog': Confidence"),
        ({"Labels": [{"Name": "Dog", "Confidence": True}]}, "label 'Dog': Confidence"),
        ({"Labels": [{"Name": "Dog", "Confidence": 100.5}]}, "label 'Dog': Confidence"),
        ({"Labels": [{"Name": "Dog", "Confidence": float("nan")}]}, "label 'Dog': Confidence"),
        ({"Labels": [{"Name": "Dog", "Confidence": 5, "Parents": 0}]}, "Parents is not a list"),
        ({"Labels": [{"Name": "Dog", "Confidence": 5, "Aliases": [None]}]}, "Aliases is not a list of objects"),
        ({"Labels": [], "LabelModelVersion": 3.0}, "LabelModelVersion is not a text"),
    ],
)
def test_a_malformed_reply_is_refused(parsed: dict[str, Any], said: str) -> None:
    with pytest.raises(MalformedReplyError, match=said):
        reply_of(parsed)


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
KEYS = ["Labels", "LabelModelVersion", "ResponseMetadata", "Name", "Confidence", "Parents", "Aliases", "RequestId"]
NEARLY: st.SearchStrategy[Any] = st.recursive(
    JSON,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=6),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(KEYS), NEARLY))
@settings(deadline=None)
def test_whatever_is_replied_is_read_or_malformed(parsed: dict[str, Any]) -> None:
    try:
        reply = reply_of(parsed)
    except MalformedReplyError:
        return
    assert all(label.name and 0 <= label.confidence <= 1 for label in reply.labels)
