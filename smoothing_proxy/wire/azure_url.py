"""Azure's pictures at an address: a JSON body {"url": "..."} in place of the picture."""

from __future__ import annotations

from pydantic import ValidationError

from smoothing_proxy.wire.base import ElsewhereFault, HttpRequest, Limits, Place, Question
from smoothing_proxy.wire.shapes import Shape

__all__ = ["question_about_url"]


class _Elsewhere(Shape):
    url: str = ""


def question_about_url(request: HttpRequest, limits: Limits, model: str) -> Question:
    """Never returns. Raises ElsewhereFault; what is no such body has an address that leads nowhere."""
    try:
        address = _Elsewhere.model_validate_json(request.body).url
    except ValidationError:
        address = ""
    question = Question((b"",), model=model, places={0: Place(address, limits.image_bytes)})
    raise ElsewhereFault(
        "pictures are not fetched from a URL; send the picture's bytes as application/octet-stream", question
    )
