"""Requests of the gateway's own API: a picture in JSON, in a form, or as the body itself."""

from __future__ import annotations

import binascii
import math
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StrictBool, ValidationError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import Message

from smoothing_proxy.gateway.label_question import AskedLabels, LabelsQuestion, asked_labels
from smoothing_proxy.wire.base import Fault, HttpRequest, Place, RequestFault
from smoothing_proxy.wire.shapes import fault_in

__all__ = ["IMAGE_BYTES", "REQUEST_BYTES", "NativeQuestion", "PictureRequest", "native_token", "read_native"]

IMAGE_BYTES = 20 * 2**20
REQUEST_BYTES = 28 * 2**20


class PictureRequest(BaseModel):
    """image: a PNG, JPEG, WebP, BMP, GIF or TIFF file in base64. url: in its place, where one is to be fetched.

    target_radius: l2, [0, 1] pixel scale. per_label: whether to prove each label's presence, too, and which.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        json_schema_extra={"oneOf": [{"required": ["image"]}, {"required": ["url"]}]},
    )

    image: Annotated[
        str, Field(min_length=1, description="A PNG, JPEG, WebP, BMP, GIF or TIFF file in base64.")
    ] = ""
    url: Annotated[
        str,
        Field(
            min_length=1,
            description="In place of image: https://, s3:// or gs://, on the list of this gateway. Else 403.",
        ),
    ] = ""
    target_radius: Annotated[
        float | None,
        Field(gt=0, allow_inf_nan=False, description="The l2 radius to certify, on the [0, 1] pixel scale."),
    ] = None
    per_label: Annotated[
        LabelsQuestion | StrictBool | None,
        Field(
            description="Prove for each label, too, that it stays present, or absent; by default as configured."
        ),
    ] = None


class NativeQuestion(BaseModel):
    """What a native request asks. image: the file, b"" of one that is to be fetched from `place`.

    target_radius: None for none. per_label: see AskedLabels.
    """

    model_config = ConfigDict(frozen=True)

    image: bytes
    place: Place | None = None
    target_radius: float | None = None
    per_label: AskedLabels = None


def native_token(head: HttpRequest) -> str:
    """The bearer token or x-api-key; "" where there is neither."""
    scheme, _, token = head.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else head.headers.get("x-api-key", "")


async def read_native(request: Request, head: HttpRequest, body: bytes) -> NativeQuestion:
    """The picture and what is asked about it. Raises RequestFault: BAD_REQUEST or IMAGE_TOO_LARGE."""
    media = head.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media == "application/json":
        question = _of_json(body)
    elif media == "multipart/form-data":
        question = await _of_form(request, body)
    elif media.startswith("image/") or media == "application/octet-stream":
        question = NativeQuestion(image=body)
    else:
        raise _bad("the content type has to be application/json, multipart/form-data or image/*")
    if not question.image and question.place is None:
        raise _bad("there is no picture")
    if len(question.image) > IMAGE_BYTES:
        raise RequestFault(Fault.IMAGE_TOO_LARGE, f"the picture is larger than the {IMAGE_BYTES} bytes allowed")
    return question


def _of_json(body: bytes) -> NativeQuestion:
    try:
        asked = PictureRequest.model_validate_json(body)
        image = binascii.a2b_base64(asked.image, strict_mode=True) if asked.image else b""
    except ValidationError as error:
        raise _bad(fault_in(error)) from None
    except ValueError:
        raise _bad("image: not base64") from None
    if image and asked.url:
        raise _bad("image, url: expected one of them")
    place = Place(asked.url, IMAGE_BYTES) if asked.url else None
    return NativeQuestion(image=image, place=place, target_radius=asked.target_radius, per_label=asked.per_label)


async def _of_form(request: Request, body: bytes) -> NativeQuestion:
    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    again = Request(request.scope, receive)
    try:
        async with again.form(max_files=1, max_fields=4, max_part_size=IMAGE_BYTES) as form:
            image = form.get("image")
            if not isinstance(image, UploadFile):
                raise _bad("the form has to hold the picture as the file `image`")
            return NativeQuestion(
                image=await image.read(),
                target_radius=_number(form.get("target_radius")),
                per_label=asked_labels(str(form.get("per_label") or ""), "per_label"),
            )
    except HTTPException as error:
        raise _bad(f"the form cannot be read: {error.detail}") from None


def _number(text: object) -> float | None:
    if text is None or text == "":
        return None
    try:
        number = float(str(text))
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and number > 0):
        raise _bad("target_radius: expected a number above 0")
    return number


def _bad(message: str) -> RequestFault:
    return RequestFault(Fault.BAD_REQUEST, message)
