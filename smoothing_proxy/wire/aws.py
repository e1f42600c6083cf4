"""Amazon Rekognition's DetectLabels, JSON 1.1, both ways. Its errors as a client meets them are in `aws_errors`.

Shapes, ranges and a picture's bytes: the service model that botocore carries (rekognition, 2016-06-27). Its sides:
docs.aws.amazon.com/rekognition/latest/dg/limits.html. Statuses of errors that every AWS service shares:
docs.aws.amazon.com/awsconsolehelpdocs/latest/gsg/common-errors.html. Read 2026-11-21.
"""

from __future__ import annotations

import binascii
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, NoReturn, final

from smoothing_proxy.errors import MalformedReplyError
from smoothing_proxy.types import Reply, ScoredLabel
from smoothing_proxy.wire import sigv4
from smoothing_proxy.wire.aws_errors import error_of, reply_error, retry_after_of
from smoothing_proxy.wire.aws_s3 import InS3Fault, place_in
from smoothing_proxy.wire.base import (
    Fault,
    FetchFault,
    HttpReply,
    HttpRequest,
    Limits,
    NotServedFault,
    Question,
    RequestFault,
)
from smoothing_proxy.wire.sigv4 import AwsFault

__all__ = [
    "DEFAULT_MIN_CONFIDENCE",
    "JSON",
    "LIMITS",
    "AwsWire",
    "answer_of",
    "error_of",
    "json_object",
    "operation_of",
    "reply_of",
    "request_body",
    "retry_after_of",
]

LIMITS = Limits(
    image_bytes=5_242_880,
    request_bytes=7_100_000,  # such a picture in base64, and room for the rest of the body
    batch=1,
    min_side_px=80,
    max_side_px=10_000,
)
DEFAULT_MIN_CONFIDENCE = 0.55
"""What a request that states no MinConfidence gets."""

_SERVICE = "RekognitionService."
_OPERATION = "DetectLabels"
JSON = "application/x-amz-json-1.1"


def request_body(image: bytes, *, max_labels: int | None = None) -> bytes:
    """DetectLabels of one picture, as boto3 writes it. image: PNG or JPEG.

    MinConfidence is always 0: left out it would be 55, and a threshold belongs after the vote.
    """
    encoded = binascii.b2a_base64(image, newline=False)
    cut = b"" if max_labels is None else b', "MaxLabels": %d' % max_labels
    return b'{"Image": {"Bytes": "%b"}, "MinConfidence": 0%b}' % (encoded, cut)


def answer_of(reply: HttpReply, *, backend: str) -> Reply:
    """What a client makes of a reply, whatever it is. Raises BackendError: the vendor's own error, or
    MalformedReplyError, which keeps the body.
    """
    if reply.status >= 300:
        raise reply_error(reply, backend=backend)
    try:
        return reply_of({**_labels_of(reply), "ResponseMetadata": {"HTTPHeaders": reply.headers}})
    except MalformedReplyError as error:
        what = str(error)
    raise MalformedReplyError(what, backend=backend, reply=reply.body)


def _labels_of(reply: HttpReply) -> dict[str, object]:
    try:
        parsed = json.loads(reply.body)
    except (ValueError, RecursionError):
        _malformed("the body is no JSON")
    if not isinstance(parsed, dict):
        _malformed("the reply is not a JSON object")
    return parsed


def reply_of(parsed: Mapping[str, object]) -> Reply:
    """A reply's JSON, or what boto3 made of it; the request's id is taken from boto3's ResponseMetadata.

    Null is as good as left out. Raises MalformedReplyError for anything that is not in the format.
    """
    labels = tuple([_label(label) for label in _items(parsed, "Labels")])
    return Reply(labels, _text(parsed, "LabelModelVersion"), _request_id(parsed))


def _label(label: Mapping[str, object]) -> ScoredLabel:
    name = _text(label, "Name")
    if not name:
        _malformed("a label has no Name")
    confidence = label.get("Confidence")
    if not isinstance(confidence, int | float) or isinstance(confidence, bool) or not 0 <= confidence <= 100:
        _malformed(f"label {name[:80]!a}: Confidence is not a number from 0 to 100")
    parents, aliases = _names(label, "Parents"), _names(label, "Aliases")
    return ScoredLabel(name, confidence / 100, parents=parents, aliases=aliases)


def _names(of: Mapping[str, object], key: str) -> tuple[str, ...]:
    return () if of.get(key) is None else tuple([_text(item, "Name") for item in _items(of, key)])


def _items(of: Mapping[str, object], key: str) -> list[dict[str, object]]:
    value = of.get(key)
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        _malformed(f"{key} is not a list of objects")
    return value


def _text(of: Mapping[str, object], key: str) -> str:
    value = of.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        _malformed(f"{key} is not a text")
    return value


def _request_id(parsed: Mapping[str, object]) -> str:
    metadata = parsed.get("ResponseMetadata")
    if not isinstance(metadata, Mapping):
        return ""
    headers = metadata.get("HTTPHeaders")
    named = metadata.get("RequestId") or (isinstance(headers, Mapping) and headers.get("x-amzn-requestid"))
    return named if isinstance(named, str) else ""


def _malformed(what: str) -> NoReturn:
    raise MalformedReplyError(f"AWS Rekognition {_OPERATION}: {what}, so the reply is not in its format")


_REFUSALS: Mapping[Fault, tuple[str, int]] = {
    Fault.BAD_REQUEST: ("InvalidParameterException", 400),
    Fault.BAD_IMAGE: ("InvalidImageFormatException", 400),
    Fault.IMAGE_TOO_LARGE: ("ImageTooLargeException", 400),
    Fault.UNAUTHENTICATED: ("UnrecognizedClientException", 403),
    Fault.FORBIDDEN: ("AccessDeniedException", 400),
    Fault.UNKNOWN_OPERATION: ("UnknownOperationException", 404),
    Fault.THROTTLED: ("ThrottlingException", 500),
    Fault.QUOTA: ("ServiceQuotaExceededException", 400),  # LimitExceededException would be sent again by boto3
    Fault.INTERNAL: ("InternalServerError", 500),
    Fault.UNAVAILABLE: ("ServiceUnavailable", 503),
    Fault.TIMEOUT: ("InternalServerError", 504),
}


@final
class AwsWire:
    """Rekognition as a server speaks it; see wire.base.Wire. Under any path prefix."""

    name = "aws"
    limits = LIMITS

    def serves(self, request: HttpRequest) -> bool:
        """Rekognition's own target header, or a request that is signed as for AWS."""
        if request.method != "POST":
            return False
        signed = request.headers.get("authorization", "").startswith(sigv4.ALGORITHM)
        return signed or request.headers.get("x-amz-target", "").startswith(_SERVICE)

    def key(self, request: HttpRequest) -> str:
        """The access key id."""
        return sigv4.authorization(request).access_key

    def verify(self, request: HttpRequest, secret: str, now: datetime) -> None:
        """The signature, by the secret access key."""
        sigv4.verify(request, secret, now, service="rekognition")

    def read(self, request: HttpRequest) -> Question:
        """DetectLabels of one picture sent along, general labels without filters."""
        _check_operation(request)
        body = json_object(request.body)
        _check_general_labels_only(body)
        place = place_in(body)
        image = b"" if place else _image(body)
        max_labels, min_confidence = _max_labels(body), _min_confidence(body)
        question = Question((image,), max_labels=max_labels, min_confidence=min_confidence)
        if place is not None:
            raise InS3Fault(replace(question, places={0: place}))
        return question

    def write(
        self, request: HttpRequest, question: Question, answers: Sequence[Reply | RequestFault], request_id: str
    ) -> HttpReply:
        """Labels by confidence, then name."""
        (answer,) = answers
        if isinstance(answer, RequestFault):
            return self.refuse(request, answer, request_id)
        least = DEFAULT_MIN_CONFIDENCE if question.min_confidence is None else question.min_confidence
        kept = [label for label in answer.labels if label.confidence >= least]
        kept.sort(key=lambda label: (-label.confidence, label.name))
        body = {
            "Labels": [_written(label) for label in kept[: question.max_labels]],
            "LabelModelVersion": answer.model_version,
        }
        return HttpReply(200, _headers(request_id), json.dumps(body).encode())

    def refuse(self, request: HttpRequest, fault: RequestFault, request_id: str) -> HttpReply:
        """`__type` and message. A quota's is one that boto3 does not send again."""
        code, status = _REFUSALS[fault.fault]
        if isinstance(fault, FetchFault) and fault.unreachable:
            code = "InvalidS3ObjectException"
        headers = _headers(request_id)
        if fault.retry_after_s is not None:
            headers["retry-after"] = str(math.ceil(fault.retry_after_s))
            headers["x-amz-retry-after"] = str(math.ceil(fault.retry_after_s * 1000))  # which boto3 obeys
        body = {"__type": fault.code if isinstance(fault, AwsFault) else code, "message": fault.message}
        return HttpReply(status, headers, json.dumps(body).encode())


def _headers(request_id: str) -> dict[str, str]:
    return {"content-type": JSON, "x-amzn-requestid": request_id}


def _written(label: ScoredLabel) -> dict[str, object]:
    return {
        "Name": label.name,
        "Confidence": label.confidence * 100,
        "Instances": [],
        "Parents": [{"Name": name} for name in label.parents],
        "Aliases": [{"Name": name} for name in label.aliases],
        "Categories": [],
    }


def operation_of(request: HttpRequest) -> str:
    """The name of the operation of Rekognition. Raises RequestFault (UNKNOWN_OPERATION) for anything else."""
    target = request.headers.get("x-amz-target", "")
    operation = target.removeprefix(_SERVICE)
    if operation == target or not operation.isalnum() or not operation.isascii():
        raise RequestFault(Fault.UNKNOWN_OPERATION, f"{target[:100]!a} is not served here; only {_OPERATION} is")
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != JSON:
        raise RequestFault(Fault.UNKNOWN_OPERATION, f"the content type has to be {JSON}")
    return operation


def _check_operation(request: HttpRequest) -> None:
    operation = operation_of(request)
    if operation != _OPERATION:
        named = f"{_SERVICE}{operation}"[:100]
        raise NotServedFault(Fault.UNKNOWN_OPERATION, f"{named!a} is not served here; only {_OPERATION} is")


def json_object(body: bytes) -> dict[str, Any]:
    """The body's JSON object. Raises AwsFault (BAD_REQUEST)."""
    try:
        parsed = json.loads(body.decode())
    except (ValueError, RecursionError):
        parsed = None
    if not isinstance(parsed, dict):
        raise AwsFault(Fault.BAD_REQUEST, "SerializationException", "the body is not a JSON object")
    return parsed


def _object(of: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """The object under a key, {} where it is left out or null."""
    value = of.get(key)
    if value is not None and not isinstance(value, dict):
        raise AwsFault(Fault.BAD_REQUEST, "SerializationException", f"{key} is not an object")
    return value or {}


def _check_general_labels_only(body: Mapping[str, Any]) -> None:
    if (body.get("Features") or ["GENERAL_LABELS"]) != ["GENERAL_LABELS"]:
        raise NotServedFault(Fault.BAD_REQUEST, "Features: only GENERAL_LABELS is served here")
    settings = _object(body, "Settings")
    if _object(settings, "ImageProperties") or any(_object(settings, "GeneralLabels").values()):
        raise NotServedFault(Fault.BAD_REQUEST, "Settings: neither filters nor image properties are served here")


def _image(body: Mapping[str, Any]) -> bytes:
    image = _object(body, "Image")
    data, elsewhere = image.get("Bytes"), image.get("S3Object")
    if not isinstance(data, str) or not data or elsewhere is not None:
        raise RequestFault(Fault.BAD_REQUEST, "Image has to hold Bytes, in base64, and nothing else")
    if len(data) > 4 * -(-LIMITS.image_bytes // 3):
        raise _too_large()
    try:
        decoded = binascii.a2b_base64(data, strict_mode=True)
    except ValueError:
        raise AwsFault(Fault.BAD_REQUEST, "SerializationException", "Image.Bytes is not base64") from None
    if len(decoded) > LIMITS.image_bytes:
        raise _too_large()
    return decoded


def _too_large() -> RequestFault:
    return RequestFault(Fault.IMAGE_TOO_LARGE, f"Image.Bytes holds more than {LIMITS.image_bytes} bytes")


def _max_labels(body: Mapping[str, Any]) -> int | None:
    value = body.get("MaxLabels")
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
        raise RequestFault(Fault.BAD_REQUEST, "MaxLabels is not a whole number of 0 or more")
    return value


def _min_confidence(body: Mapping[str, Any]) -> float | None:
    value = body.get("MinConfidence")
    if value is None:
        return None
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 100:
        raise RequestFault(Fault.BAD_REQUEST, "MinConfidence is not a number from 0 to 100")
    return value / 100
