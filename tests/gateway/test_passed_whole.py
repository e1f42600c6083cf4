"""What is passed on to Azure is whole: a form still has the boundary between its parts, a model its name."""

from __future__ import annotations

import email
from typing import Any

import pytest

from smoothing_proxy.backends.azure_vision import AzureVision
from smoothing_proxy.wire.base import HttpRequest
from smoothing_proxy.wire.errands import errand_of
from tests.gateway.gateways import SECRET, picture, serving
from tests.gateway.upstream import http_upstream


def test_a_form_that_is_passed_on_can_be_taken_apart_by_the_vendor() -> None:
    with http_upstream() as upstream:
        backend = AzureVision(endpoint=upstream.url, environ={"AZURE_VISION_KEY": "the-gateways-own"})
        with serving(backend, passthrough={"enabled": True}) as there:
            headers = {"ocp-apim-subscription-key": SECRET}
            reply = there.client.post(
                "/vision/v3.2/describe", files={"file": ("a.png", picture())}, headers=headers
            )
            there.portal.call(backend.aclose)
    assert reply.headers["x-smoothing-hardened"] == "false"
    (asked,) = upstream.asked
    media = asked.headers["content-type"]
    form: Any = email.message_from_bytes(f"content-type: {media}\n\n".encode() + asked.body)
    (part,) = form.get_payload()
    assert part.get_payload(decode=True) == picture()


@pytest.mark.parametrize(
    ("sent", "passed"),
    [
        ("multipart/form-data; boundary=abc", "multipart/form-data; boundary=abc"),
        ('Multipart/Form-Data; charset=x;  BOUNDARY="a b=c"; y=z', 'multipart/form-data; boundary="a b=c"'),
        ("multipart/form-data", "multipart/form-data"),
        ("multipart/form-data; boundary=", "multipart/form-data"),
        ("multipart/form-data; boundary=" + "a" * 71, "multipart/form-data"),
        ("multipart/form-data; boundary=a\r\nx: y", "multipart/form-data"),
        ("image/png; boundary=abc", "image/png"),
        ("application/octet-stream; charset=x", "application/octet-stream"),
    ],
)
def test_of_a_content_type_what_says_how_the_body_is_read_is_passed_on(sent: str, passed: str) -> None:
    errand = errand_of("azure", HttpRequest("POST", "/vision/v3.2/describe", {"content-type": sent}, b"x"))
    assert errand.request.headers == {"content-type": passed}


@pytest.mark.parametrize(
    ("query", "units", "references"),
    [
        ({"model-name": "mine"}, 1, True),
        ({"Model-Name": "mine", "features": "tags,caption"}, 3, True),
        ({"features": "tags,caption"}, 2, False),
    ],
)
def test_a_model_of_the_accounts_own_is_a_reference_and_billed(
    query: dict[str, str], units: int, references: bool
) -> None:
    request = HttpRequest("POST", "/computervision/imageanalysis:analyze", {}, b"x", query)
    errand = errand_of("azure", request)
    assert (errand.units, errand.references) == (units, references)
