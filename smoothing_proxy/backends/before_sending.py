"""What a backend over HTTP checks before it pays: its credential, its encoding, and whether a copy is taken."""

from __future__ import annotations

from collections.abc import Mapping

from smoothing_proxy.errors import ConfigError, MissingCredentialError, RequestRejectedError
from smoothing_proxy.images.codec import EncodedImage, Encoding
from smoothing_proxy.wire.base import Limits

__all__ = ["check_copy", "encoding_within", "secret_of"]


def secret_of(environ: Mapping[str, str], variable: str, *, source: str) -> str:
    """The secret in an environment variable, without blanks around it.

    Raises MissingCredentialError, which names the variable, where it is not set or empty. source: backend and key.
    """
    secret = environ.get(variable, "").strip()
    if not secret:
        raise MissingCredentialError(f"{source}: the environment variable {variable} is not set")
    return secret


def encoding_within(text: str, limits: Limits, *, source: str) -> Encoding:
    """`text` ("png", "jpeg", "jpeg:80"), whose copies are made to fit these limits.

    Raises ConfigError for a format that is not taken.
    """
    encoding = Encoding.parse(
        text, min_side_px=limits.min_side_px, max_side_px=limits.max_side_px, max_bytes=limits.image_bytes
    )
    if encoding.format not in limits.formats:
        raise ConfigError(f"{source}: {text!r} is not taken; expected one of {', '.join(limits.formats)}")
    return encoding


def check_copy(copy: EncodedImage, limits: Limits, *, backend: str) -> None:
    """Raises RequestRejectedError, which says what to change, for a copy that would be refused."""
    fault = _fault(copy, limits)
    if fault:
        raise RequestRejectedError(f"{backend}: {fault}", backend=backend, attempts=0)


def _fault(copy: EncodedImage, limits: Limits) -> str:
    size, short, long = (
        f"{copy.height}x{copy.width} px",
        min(copy.height, copy.width),
        max(copy.height, copy.width),
    )
    if copy.format not in limits.formats:
        return f"format {copy.format!r} is not taken; set the encoding to one of {', '.join(limits.formats)}"
    if len(copy.data) > limits.image_bytes:
        return (
            f"a copy of {len(copy.data)} bytes is larger than the {limits.image_bytes} that are taken; set the "
            "encoding to jpeg or make the working size smaller"
        )
    if short < limits.min_side_px:
        return f"a copy of {size} is too small; set the encoding's min_side_px to {limits.min_side_px}"
    if limits.max_side_px and long > limits.max_side_px:
        return f"a copy of {size} is too large; at most {limits.max_side_px} px a side are taken"
    return ""
