"""Rekognition's pictures in S3: Image.S3Object in place of Image.Bytes.

Its size: docs.aws.amazon.com/rekognition/latest/dg/limits.html, read 2026-11-21.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from smoothing_proxy.wire.base import ElsewhereFault, Place, Question
from smoothing_proxy.wire.sigv4 import AwsFault

__all__ = ["S3_BYTES", "InS3Fault", "place_in"]

S3_BYTES = 15 * 2**20
"""Of a picture in S3."""


class InS3Fault(AwsFault, ElsewhereFault):
    """A picture that is in S3."""

    def __init__(self, question: Question) -> None:
        ElsewhereFault.__init__(self, "pictures in S3 are not fetched here; send Image.Bytes", question)
        self.code = "InvalidS3ObjectException"


def place_in(body: Mapping[str, Any]) -> Place | None:
    """Where in S3 the picture is; None where nothing says that it is there alone.

    What is missing or no text is left out of the address, which then leads nowhere.
    """
    image = body.get("Image")
    found = image.get("S3Object") if isinstance(image, dict) else None
    if not isinstance(image, dict) or found is None or image.get("Bytes") is not None:
        return None
    named = found if isinstance(found, dict) else {}
    bucket, name, version = (_text(named.get(key)) for key in ("Bucket", "Name", "Version"))
    return Place(f"s3://{'' if '/' in bucket else bucket}/{name}", S3_BYTES, version)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
