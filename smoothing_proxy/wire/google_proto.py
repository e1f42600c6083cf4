"""Cloud Vision's label detection as protocol buffers, both ways; what REST and gRPC have in common.

Messages are those of google.cloud.vision.v1. A server reads and writes them as plain protocol buffers; a client
gets what the SDK takes. This module loads the SDK: import it late.

Limits are those of https://cloud.google.com/vision/quotas: 16 images and 10 MB of JSON in a request, 20 MB in an
image file.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from google.cloud.vision_v1 import types as vision
from google.protobuf.message import DecodeError  # type: ignore[import-untyped, unused-ignore]

from smoothing_proxy.errors import BackendError, MalformedReplyError
from smoothing_proxy.types import Reply, ScoredLabel
from smoothing_proxy.wire.base import (
    ElsewhereFault,
    Fault,
    Limits,
    NotServedFault,
    Place,
    Question,
    RequestFault,
)
from smoothing_proxy.wire.google_grpc import error_of, status_of

__all__ = [
    "DEFAULT_MAX_RESULTS",
    "LIMITS",
    "annotate_request",
    "cut",
    "grpc_bytes",
    "parse",
    "question_of",
    "replies_of",
    "response_of",
    "rest_bytes",
]

LIMITS = Limits(image_bytes=20_000_000, request_bytes=10_000_000, batch=16)
"""request_bytes is documented for JSON, and no figure for gRPC, so a client keeps to the same one there: what is
refused for its size costs a round trip, and pictures without base64 fill it a third later anyway."""

DEFAULT_MAX_RESULTS = 10
"""Labels of a picture where the request leaves `max_results` out."""

_REQUEST = vision.BatchAnnotateImagesRequest.pb()
_RESPONSE = vision.BatchAnnotateImagesResponse.pb()
_LABELS = int(vision.Feature.Type.LABEL_DETECTION)


def parse(raw: bytes) -> Any:
    """A serialised BatchAnnotateImagesRequest. Raises RequestFault (BAD_REQUEST)."""
    try:
        return _REQUEST.FromString(raw)
    except DecodeError:
        raise RequestFault(Fault.BAD_REQUEST, "The request is no BatchAnnotateImagesRequest.") from None


def question_of(message: Any) -> Question:
    """What a BatchAnnotateImagesRequest asks. max_labels: enough for each of its images.

    Raises RequestFault for anything else than one LABEL_DETECTION for each of 1 to 16 images that are sent along,
    all by the same model: what is only partly understood is not answered in part.
    """
    items = message.requests
    if not 1 <= len(items) <= LIMITS.batch:
        raise RequestFault(
            Fault.BAD_REQUEST, f"{len(items)} images in one request; it takes from 1 to {LIMITS.batch}."
        )
    features = [_feature(item, f"requests[{i}]") for i, item in enumerate(items)]
    images = tuple(_picture(item.image, f"requests[{i}].image") for i, item in enumerate(items))
    models = {feature.model for feature in features}
    if len(models) > 1:
        raise RequestFault(Fault.BAD_REQUEST, "All images of one request must ask for the same model.")
    asked = any(feature.max_results for feature in features)
    most = max(feature.max_results or DEFAULT_MAX_RESULTS for feature in features)
    question = Question(images, max_labels=most if asked else None, model=models.pop())
    places = {i: _place(item.image.source) for i, item in enumerate(items) if item.image.HasField("source")}
    if places:
        said = f"requests[{min(places)}].image.source: pictures must be sent along, as `content`."
        raise ElsewhereFault(said, replace(question, places=places))
    return question


def response_of(message: Any, answers: Sequence[Reply | RequestFault]) -> Any:
    """The answers, in the order of the request's images, as a BatchAnnotateImagesResponse.

    Each image gets at most as many labels as it asked for, the most confident first, ties by name. Its own fault
    is its `error`. There is no place for a label's parents and aliases, nor for the model's version.
    """
    response = _RESPONSE()
    for item, answer in zip(message.requests, answers, strict=True):
        out = response.responses.add()
        if isinstance(answer, RequestFault):
            out.error.CopyFrom(status_of(answer))
            continue
        ranked = sorted(answer.labels, key=lambda label: (-label.confidence, label.name))
        for label in ranked[: item.features[0].max_results or DEFAULT_MAX_RESULTS]:
            out.label_annotations.add(
                mid=label.id, description=label.name, score=label.confidence, topicality=label.confidence
            )
    return response


def annotate_request(
    images: Sequence[bytes], *, max_results: int = DEFAULT_MAX_RESULTS
) -> vision.BatchAnnotateImagesRequest:
    """Ask for the labels of encoded pictures."""
    message = _REQUEST()
    for image in images:
        item = message.requests.add()
        item.image.content = image
        item.features.add(type_=_LABELS, max_results=max_results)
    return vision.BatchAnnotateImagesRequest.wrap(message)  # type: ignore[no-any-return]


def replies_of(response: Any, expected: int, *, backend: str = "google-vision") -> list[Reply | BackendError]:
    """A reply, or the error in its place, for each of `expected` pictures.

    response: BatchAnnotateImagesResponse, or None where the SDK could not read what came. A picture without labels
    has an empty reply. Raises MalformedReplyError when there is not one answer for each picture.
    """
    if response is None:
        raise MalformedReplyError(f"{backend}: the reply is no BatchAnnotateImagesResponse", backend=backend)
    message = vision.BatchAnnotateImagesResponse.pb(response)
    if len(message.responses) != expected:
        raise MalformedReplyError(
            f"{backend}: {len(message.responses)} answers to {expected} pictures",
            backend=backend,
            reply=message.SerializeToString(),
        )
    return [_reply(item, backend) for item in message.responses]


def rest_bytes(image: int) -> int:
    """What a picture of so many bytes takes of a JSON request: base64, and generously what stands around it."""
    return 4 * math.ceil(image / 3) + 256


def grpc_bytes(image: int) -> int:
    """What a picture of so many bytes takes of a gRPC request."""
    return image + 64


def cut(
    sizes: Sequence[int], *, most: int = LIMITS.batch, request_bytes: int = LIMITS.request_bytes
) -> list[slice]:
    """Which pictures share a request: in order, at most `most` and `request_bytes` in each.

    sizes: what each picture takes of a request. One that is too large on its own goes alone, for Google to judge.
    """
    cuts: list[slice] = []
    start, room = 0, request_bytes
    for i, size in enumerate(sizes):
        if i > start and (i - start == most or size > room):
            cuts.append(slice(start, i))
            start, room = i, request_bytes
        room -= size
    return [*cuts, slice(start, len(sizes))] if sizes else []


def _feature(item: Any, where: str) -> Any:
    if len(item.features) != 1 or item.features[0].type_ != _LABELS:
        raise NotServedFault(
            Fault.BAD_REQUEST, f"{where}.features: only a single LABEL_DETECTION is answered by this service."
        )
    feature = item.features[0]
    if feature.max_results < 0:
        raise RequestFault(Fault.BAD_REQUEST, f"{where}.features[0].maxResults must not be negative.")
    return feature


def _picture(image: Any, where: str) -> bytes:
    content = bytes(image.content)
    if image.HasField("source"):
        if content:
            raise NotServedFault(Fault.BAD_REQUEST, f"{where}: send `content` or `source`, not both.")
        return b""
    if not content:
        raise RequestFault(Fault.BAD_REQUEST, f"{where}: Request must specify image and features.")
    if len(content) > LIMITS.image_bytes:
        raise RequestFault(
            Fault.IMAGE_TOO_LARGE, f"{where}: {len(content)} bytes; an image has at most {LIMITS.image_bytes}."
        )
    return content


def _place(source: Any) -> Place:
    return Place(source.image_uri or source.gcs_image_uri, LIMITS.image_bytes)


def _reply(item: Any, backend: str) -> Reply | BackendError:
    if item.error.code:
        return error_of(item.error.code, item.error.message, item.error.details, backend=backend)
    labels = tuple(ScoredLabel(label.description, label.score, label.mid) for label in item.label_annotations)
    if any(not label.name or not 0 <= label.confidence <= 1 for label in labels):
        return MalformedReplyError(
            f"{backend}: a label without a name, or with a score outside [0, 1]",
            backend=backend,
            reply=item.SerializeToString(),
        )
    return Reply(labels)
