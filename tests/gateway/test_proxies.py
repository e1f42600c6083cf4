"""Behind a reverse proxy: the host that the client signed is believed where a trusted proxy tells it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx
import pytest
from pydantic import ValidationError

from smoothing_proxy.gateway.settings import GatewaySettings
from tests.gateway.gateways import There, picture, serving
from tests.gateway.test_refusals import FORMATS, _signed

LOOPBACK = ["127.0.0.0/8", "::1/128"]
SEEN = {"x-forwarded-host": "labels.example.com", "x-forwarded-proto": "https"}


def through_a_proxy(there: There, seen_url: str, headers: Mapping[str, str]) -> httpx.Response:
    """What a client signed for `seen_url`, as a proxy that writes its own Host header sends it on."""
    form = FORMATS["aws"]
    request = httpx.Request("POST", seen_url, content=form.body(picture(side=96)), headers=dict(form.headers))
    signed = _signed(request)
    passed = {name: value for name, value in signed.headers.items() if name != "host"}
    return there.client.post("/", content=signed.content, headers={**passed, **headers})


@pytest.mark.parametrize(
    ("trusted", "seen_url", "headers", "status"),
    [
        (LOOPBACK, "https://labels.example.com/", SEEN, 200),
        (LOOPBACK, "https://labels.example.com/", {**SEEN, "x-forwarded-host": "labels.example.com:443"}, 200),
        (LOOPBACK, "http://labels.example.com:8443/", {"x-forwarded-host": "labels.example.com:8443"}, 200),
        (LOOPBACK, "https://labels.example.com/", {**SEEN, "x-forwarded-host": "evil, labels.example.com"}, 200),
        (LOOPBACK, "https://labels.example.com/", {**SEEN, "x-forwarded-for": "203.0.113.7"}, 200),
        (LOOPBACK, "https://labels.example.com/", {**SEEN, "x-forwarded-host": "labels.example.com, evil"}, 403),
        (LOOPBACK, "https://labels.example.com/", {}, 403),
        ([], "https://labels.example.com/", SEEN, 403),
        (["10.0.0.0/8"], "https://labels.example.com/", {**SEEN, "x-forwarded-for": "10.0.0.1"}, 403),
    ],
)
def test_a_signature_holds_for_the_host_that_a_trusted_proxy_tells(
    trusted: list[str], seen_url: str, headers: dict[str, str], status: int
) -> None:
    with serving(trusted_proxies=trusted) as there:
        reply = through_a_proxy(there, seen_url, headers)
    assert reply.status_code == status, reply.text
    assert ("strict-transport-security" in reply.headers) == (
        trusted == LOOPBACK and "x-forwarded-proto" in headers
    )


@pytest.mark.parametrize("networks", [["10.0.0.1/8"], ["everyone"], ["10.0.0.0/33"]])
def test_what_is_no_network_is_refused(networks: Any) -> None:
    with pytest.raises(ValidationError, match="trusted_proxies"):
        GatewaySettings(trusted_proxies=networks)
