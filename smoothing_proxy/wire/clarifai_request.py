"""A request for predictions of Clarifai, as a server reads it."""

from __future__ import annotations

import binascii

from pydantic import ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from smoothing_proxy.wire.base import Fault, Limits, Place, RequestFault
from smoothing_proxy.wire.shapes import Score, Shape, fault_in

__all__ = [
    "LIMITS",
    "MOST_CONCEPTS",
    "Concept",
    "Input",
    "ProtoShape",
    "Request",
    "asked",
    "picture_in",
    "places_in",
]

LIMITS = Limits(image_bytes=20 * 2**20, request_bytes=128 * 2**20, batch=128)
MOST_CONCEPTS = 200


class ProtoShape(Shape):
    """Of the JSON of a protobuf message: names in snake_case or camelCase, what is left out has its default."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


class Concept(ProtoShape):
    """One label. id or name may be left out. value: its confidence."""

    id: str = ""
    name: str = ""
    value: Score = 0.0


class _Image(ProtoShape):
    base64: str = ""
    url: str = ""


class _InputData(ProtoShape):
    image: _Image | None = None


class Input(ProtoShape):
    """What is to be classified."""

    data: _InputData = _InputData()


class _Config(ProtoShape):
    max_concepts: int = Field(default=0, ge=0, le=MOST_CONCEPTS)
    min_value: float = Field(default=0.0, ge=0, le=1)
    select_concepts: tuple[Concept, ...] = ()


class _Info(ProtoShape):
    output_config: _Config = _Config()


class _AskedModel(ProtoShape):
    output_info: _Info = _Info()


class Request(ProtoShape):
    """The body of PostModelOutputs, as far as it concerns concepts of pictures."""

    inputs: tuple[Input, ...] = Field(min_length=1, max_length=LIMITS.batch)
    model: _AskedModel = _AskedModel()


def asked(body: bytes) -> Request:
    """The parsed body. Raises RequestFault (BAD_REQUEST, IMAGE_TOO_LARGE)."""
    if len(body) > LIMITS.request_bytes:
        raise RequestFault(Fault.IMAGE_TOO_LARGE, f"the request has more than {LIMITS.request_bytes} bytes")
    try:
        return Request.model_validate_json(body)
    except ValidationError as error:
        raise RequestFault(Fault.BAD_REQUEST, fault_in(error)) from None


def places_in(wanted: Request) -> dict[int, Place]:
    """Where the pictures are that were not sent along, by the number of their input."""
    images = enumerate(one.data.image for one in wanted.inputs)
    return {number: Place(image.url, LIMITS.image_bytes) for number, image in images if image and image.url}


def picture_in(one: Input, number: int) -> bytes:
    """The picture of input `number`, b"" of one that is elsewhere.

    Raises RequestFault where it is missing, no base64, too large.
    """
    where, image = f"inputs[{number}].data.image", one.data.image
    if image is None or (not image.base64 and not image.url):
        raise RequestFault(Fault.BAD_REQUEST, f"{where}.base64: missing; only pictures are classified here")
    if image.url and image.base64:
        raise RequestFault(Fault.BAD_REQUEST, f"{where}: base64 or url, not both")
    if image.url:
        return b""
    try:
        data = binascii.a2b_base64(image.base64, strict_mode=True)
    except ValueError:
        raise RequestFault(Fault.BAD_REQUEST, f"{where}.base64: not base64") from None
    if len(data) > LIMITS.image_bytes:
        raise RequestFault(Fault.IMAGE_TOO_LARGE, f"{where}: more than {LIMITS.image_bytes} bytes")
    return data
