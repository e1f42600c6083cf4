"""Cloud Vision's format as a client reads it: replies, statuses, and what goes into one request."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from google.cloud import vision_v1 as vision
from google.protobuf import any_pb2, json_format  # type: ignore[import-untyped, unused-ignore]
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped, unused-ignore]
from hypothesis import given
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
from smoothing_proxy.types import Reply, ScoredLabel
from smoothing_proxy.wire.base import Fault, RequestFault
from smoothing_proxy.wire.google_grpc import Code, details_in, error_of, trailing_metadata
from smoothing_proxy.wire.google_proto import (
    LIMITS,
    annotate_request,
    cut,
    grpc_bytes,
    parse,
    question_of,
    replies_of,
    response_of,
    rest_bytes,
)

RECORDED = Path(__file__).parent / "recorded" / "google"


def recorded_status(name: str) -> Any:
    """A body's error as gRPC carries it."""
    assert error_details_pb2.DESCRIPTOR  # the details are looked up by name
    error = json.loads((RECORDED / name).read_text())["error"]
    return json_format.ParseDict(
        {"code": Code[error["status"]], "message": error["message"], "details": error["details"]},
        status_pb2.Status(),
    )


def recorded_error(name: str) -> BackendError:
    status = recorded_status(name)
    return error_of(status.code, status.message, status.details)


def response(*items: dict[str, Any]) -> vision.BatchAnnotateImagesResponse:
    return vision.BatchAnnotateImagesResponse({"responses": list(items)})


def test_a_reply_is_read_picture_by_picture() -> None:
    reply = vision.BatchAnnotateImagesResponse.from_json((RECORDED / "reply.json").read_text())
    dog, bad, empty, broken, down = replies_of(reply, 5)
    assert isinstance(dog, Reply)
    assert [(label.name, label.id) for label in dog.labels] == [("Dog", "/m/0bt9lr"), ("Canidae", "/m/01z5f")]
    assert dog.labels[0].confidence == pytest.approx(0.97346616)
    assert empty == Reply(())
    assert isinstance(bad, RequestRejectedError)
    assert isinstance(broken, BackendUnavailableError)
    assert isinstance(down, BackendUnavailableError)
    assert (broken.maybe_billed, down.maybe_billed) == (True, False)


@pytest.mark.parametrize("expected", [0, 1, 3])
def test_another_number_of_answers_than_pictures_is_malformed_and_kept(expected: int) -> None:
    with pytest.raises(MalformedReplyError, match=f"2 answers to {expected} pictures") as caught:
        replies_of(response({}, {"label_annotations": [{"description": "dog"}]}), expected)
    assert b"dog" in caught.value.reply


def test_what_the_sdk_could_not_read_is_malformed() -> None:
    with pytest.raises(MalformedReplyError):
        replies_of(None, 1)


@pytest.mark.parametrize(
    "label",
    [
        {"score": 0.5},
        {"description": "dog", "score": 1.5},
        {"description": "dog", "score": -0.5},
        {"description": "dog", "score": math.nan},
        {"description": "dog", "score": math.inf},
    ],
)
def test_a_label_out_of_the_format_is_its_pictures_failure_alone(label: dict[str, Any]) -> None:
    first, second = replies_of(response({"label_annotations": [label]}, {}), 2)
    assert isinstance(first, MalformedReplyError)
    assert second == Reply(())


@pytest.mark.parametrize(
    ("file", "kind", "says"),
    [
        ("error_400_key.json", AuthenticationError, "check the API key"),
        ("error_403_billing.json", AuthenticationError, "turn billing on"),
        ("error_403_suspended.json", AuthenticationError, "suspended"),
        ("error_429_minute.json", RateLimitedError, "per minute"),
        ("error_429_day.json", QuotaExceededError, "larger quota"),
        ("error_429_violation.json", QuotaExceededError, "larger quota"),
    ],
)
def test_a_recorded_error_means(file: str, kind: type[BackendError], says: str) -> None:
    error = recorded_error(file)
    assert type(error) is kind
    assert error.backend == "google-vision"
    assert says in str(error)
    assert "AIza" not in str(error)


def test_a_throttle_carries_the_delay_that_was_asked_for() -> None:
    error = recorded_error("error_429_minute.json")
    assert isinstance(error, RateLimitedError)
    assert error.retry_after == pytest.approx(7.25)


@pytest.mark.parametrize(
    ("code", "message", "kind", "maybe_billed"),
    [
        (Code.INVALID_ARGUMENT, "Bad image data.", RequestRejectedError, False),
        (Code.INVALID_ARGUMENT, "API key expired. Please renew the API key.", AuthenticationError, False),
        (Code.FAILED_PRECONDITION, "no", RequestRejectedError, False),
        (Code.UNAUTHENTICATED, "no", AuthenticationError, False),
        (Code.PERMISSION_DENIED, "no", AuthenticationError, False),
        (Code.UNIMPLEMENTED, "Method not found!", AuthenticationError, False),
        (Code.NOT_FOUND, "no", AuthenticationError, False),
        (Code.RESOURCE_EXHAUSTED, "slow", RateLimitedError, False),
        (Code.RESOURCE_EXHAUSTED, "limit 'Requests per day'", QuotaExceededError, False),
        (
            Code.RESOURCE_EXHAUSTED,
            "Received message larger than max (5 vs. 4)",
            RequestRejectedError,
            False,
        ),
        (Code.DEADLINE_EXCEEDED, "late", BackendTimeoutError, True),
        (Code.CANCELLED, "gone", BackendTimeoutError, True),
        (Code.INTERNAL, "oh", BackendUnavailableError, True),
        (Code.UNKNOWN, "oh", BackendUnavailableError, True),
        (Code.ABORTED, "oh", BackendUnavailableError, True),
        (99, "oh", BackendUnavailableError, True),
        (Code.UNAVAILABLE, "The service is currently unavailable.", BackendUnavailableError, False),
    ],
)
def test_a_status_of_googles_means(code: int, message: str, kind: type[BackendError], maybe_billed: bool) -> None:
    error = error_of(code, message)
    assert type(error) is kind
    assert error.maybe_billed is maybe_billed


@pytest.mark.parametrize(
    ("message", "kind", "maybe_billed"),
    [
        ("failed to connect to all addresses; last error: Connection refused", BackendUnavailableError, False),
        ("failed to connect to all addresses; last error: Socket closed", BackendUnavailableError, False),
        ("DNS resolution failed for nowhere:443", BackendUnavailableError, False),
        ("Getting metadata from plugin failed with error: HTTPSConnectionPool", BackendUnavailableError, False),
        (
            "Getting metadata from plugin failed with error: ('invalid_grant: Bad', {})",
            AuthenticationError,
            False,
        ),
        ("Stream removed (Socket closed)", BackendTimeoutError, True),
        ("recvmsg:Connection reset by peer", BackendTimeoutError, True),
        ("GOAWAY received", BackendTimeoutError, True),
        ("Cancelling all calls", BackendTimeoutError, True),
        ("something new", BackendUnavailableError, True),
    ],
)
def test_unavailable_that_nobody_signed_is_billed_unless_nothing_was_sent(
    message: str, kind: type[BackendError], maybe_billed: bool
) -> None:
    error = error_of(Code.UNAVAILABLE, message, answered=False)
    assert type(error) is kind
    assert error.maybe_billed is maybe_billed


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Fault.BAD_REQUEST, RequestRejectedError),
        (Fault.BAD_IMAGE, RequestRejectedError),
        (Fault.IMAGE_TOO_LARGE, RequestRejectedError),
        (Fault.UNAUTHENTICATED, AuthenticationError),
        (Fault.FORBIDDEN, AuthenticationError),
        (Fault.UNKNOWN_OPERATION, AuthenticationError),
        (Fault.THROTTLED, RateLimitedError),
        (Fault.QUOTA, QuotaExceededError),
        (Fault.INTERNAL, BackendUnavailableError),
        (Fault.UNAVAILABLE, BackendUnavailableError),
        (Fault.TIMEOUT, BackendTimeoutError),
    ],
)
def test_a_fault_that_a_server_sends_is_read_by_a_client(fault: Fault, kind: type[BackendError]) -> None:
    status = status_pb2.Status.FromString(trailing_metadata(RequestFault(fault, "because"))[0][1])
    assert type(error_of(status.code, status.message, status.details)) is kind


def test_details_are_found_in_metadata_also_where_they_cannot_be_read() -> None:
    sent = trailing_metadata(RequestFault(Fault.THROTTLED, "slow", retry_after_s=1.5))
    details = details_in([("other", "x"), *sent])
    assert details is not None
    error = error_of(Code.RESOURCE_EXHAUSTED, "slow", details)
    assert isinstance(error, RateLimitedError)
    assert error.retry_after == pytest.approx(1.5)
    assert details_in([("other", "x")]) is None
    assert details_in([("grpc-status-details-bin", b"\xff\xff")]) == ()
    broken = any_pb2.Any(type_url="type.googleapis.com/google.rpc.RetryInfo", value=b"\xff\xff")
    assert isinstance(error_of(Code.RESOURCE_EXHAUSTED, "slow", [broken]), RateLimitedError)


def test_what_a_client_asks_a_server_reads_and_answers() -> None:
    asked = annotate_request([b"one", b"two"], max_results=1)
    message = parse(vision.BatchAnnotateImagesRequest.serialize(asked))
    question = question_of(message)
    assert (question.images, question.max_labels) == ((b"one", b"two"), 1)
    labels = (ScoredLabel("a", 0.25), ScoredLabel("b", 0.5, "/m/b"))
    raw = response_of(message, [Reply(labels), RequestFault(Fault.BAD_IMAGE, "bad")]).SerializeToString()
    first, second = replies_of(vision.BatchAnnotateImagesResponse.deserialize(raw), 2)
    assert first == Reply((ScoredLabel("b", 0.5, "/m/b"),))
    assert isinstance(second, RequestRejectedError)


@pytest.mark.parametrize("raw", [b"\xff", b"not a message"])
def test_bytes_that_are_no_message_are_refused(raw: bytes) -> None:
    with pytest.raises(RequestFault) as caught:
        parse(raw)
    assert caught.value.fault is Fault.BAD_REQUEST


@pytest.mark.parametrize(
    ("sizes", "parts"),
    [
        ([], []),
        ([5], [1]),
        ([3, 3, 3, 3], [3, 1]),
        ([11, 1, 11], [1, 1, 1]),
        ([10, 10], [1, 1]),
        ([1] * 10, [4, 4, 2]),
    ],
)
def test_batches_are_cut_by_number_and_bytes(sizes: Sequence[int], parts: list[int]) -> None:
    assert [part.stop - part.start for part in cut(sizes, most=4, request_bytes=10)] == parts


@given(st.lists(st.integers(0, 30), max_size=60), st.integers(1, 16), st.integers(1, 60))
def test_cut_batches_hold_everything_once_in_order_within_the_limits(
    sizes: list[int], most: int, request_bytes: int
) -> None:
    parts = [sizes[part] for part in cut(sizes, most=most, request_bytes=request_bytes)]
    assert [size for part in parts for size in part] == sizes
    assert all(1 <= len(part) <= most for part in parts)
    assert all(len(part) == 1 or sum(part) <= request_bytes for part in parts)
    assert all(
        len(first) == most or sum(first) + second[0] > request_bytes for first, second in itertools.pairwise(parts)
    )


@pytest.mark.parametrize("size", [1, 2, 3, 1000, 640_000])
def test_what_a_picture_takes_of_a_request_is_never_underestimated(size: int) -> None:
    one = annotate_request([bytes(size)], max_results=2**31 - 1)
    assert len(vision.BatchAnnotateImagesRequest.serialize(one)) <= grpc_bytes(size)
    sent_by_rest = vision.BatchAnnotateImagesRequest.to_json(one)
    assert len(sent_by_rest) <= rest_bytes(size)


def test_sixteen_noisy_pictures_of_640_by_480_share_a_request_by_grpc_only_when_they_fit() -> None:
    small, large = [grpc_bytes(600_000)] * 16, [grpc_bytes(690_000)] * 16
    assert [part.stop - part.start for part in cut(small)] == [16]
    assert [part.stop - part.start for part in cut(large)] == [14, 2]
    assert len(cut([rest_bytes(600_000)] * 16)) == 2
    assert LIMITS.request_bytes == 10_000_000
