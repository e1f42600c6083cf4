"""A picture that was sent, checked against the vendor's limits, and made into what the local classifier takes."""

from __future__ import annotations

from smoothing_proxy.errors import ImageError
from smoothing_proxy.images import pixels
from smoothing_proxy.images.codec import EncodedImage, Encoding, Format, encode
from smoothing_proxy.images.formats import PictureFormat, open_header, sniff
from smoothing_proxy.wire.base import Fault, Limits, RequestFault

__all__ = ["checked", "unchecked"]

_FORMATS: dict[PictureFormat | None, Format] = {"PNG": "png", "JPEG": "jpeg"}


def checked(image: bytes, limits: Limits, encoding: Encoding) -> EncodedImage:
    """The decoded picture as `encoding` wants it. Raises RequestFault: IMAGE_TOO_LARGE or BAD_IMAGE."""
    _format(image, limits)
    try:
        picture = pixels.decode(image)
        _check_sides(picture.shape[0], picture.shape[1], limits)
        return encode(picture, encoding)
    except ImageError as error:
        raise RequestFault(Fault.BAD_IMAGE, str(error)) from error


def unchecked(image: bytes, limits: Limits) -> EncodedImage:
    """The picture as it came, by its header. Raises RequestFault: IMAGE_TOO_LARGE or BAD_IMAGE."""
    kind = _format(image, limits)
    try:
        with open_header(image, kind) as header:
            width, height = header.size
    except Exception as error:
        raise RequestFault(Fault.BAD_IMAGE, f"this {kind} file has a damaged header") from error
    _check_sides(height, width, limits)
    return EncodedImage(image, _FORMATS[kind], height, width)


def _format(image: bytes, limits: Limits) -> PictureFormat:
    """Refuses by the length and the first bytes."""
    if len(image) > limits.image_bytes:
        raise RequestFault(
            Fault.IMAGE_TOO_LARGE, f"the picture has {len(image)} bytes; at most {limits.image_bytes} are taken"
        )
    kind = sniff(image)
    if kind is None or _FORMATS.get(kind) not in limits.formats:
        raise RequestFault(Fault.BAD_IMAGE, f"the picture is in none of the formats {', '.join(limits.formats)}")
    return kind


def _check_sides(height: int, width: int, limits: Limits) -> None:
    short, long = min(height, width), max(height, width)
    if short < limits.min_side_px or (limits.max_side_px and long > limits.max_side_px):
        allowed = f"at least {limits.min_side_px} px a side"
        if limits.max_side_px:
            allowed += f", at most {limits.max_side_px}"
        raise RequestFault(Fault.BAD_IMAGE, f"the picture is {height}x{width} px; it must have {allowed}")
