"""A gateway that does not harden yet: the classifier's own answer, one query, and never passed off as proven."""

from __future__ import annotations

from typing import Any

import pytest

from smoothing_proxy.backends.scripted import ScriptedBackend
from smoothing_proxy.errors import BackendUnavailableError
from tests.gateway import sdks
from tests.gateway.gateways import DOG, KEY_ID, OTHER, picture, proof, serving


def test_one_query_about_the_picture_itself_is_the_whole_answer() -> None:
    shown: list[Any] = []

    def look(pixels: Any) -> Any:
        shown.append(pixels)
        return DOG

    with serving(ScriptedBackend(look), harden=False) as there:
        assert sdks.boto3(there, picture(77)) == [("Dog", 0.9), ("Pet", 0.9), ("Grass", 0.4)]
        reply = there.ask(image=picture(77))
    assert len(shown) == there.backend.asked == there.store.spent(KEY_ID) == 1
    assert (shown[0] == 77).all()
    told = proof(reply.headers)
    assert (told["abstain"], told["label"], told["radius"]) == ("unhardened", "", "0.000000")
    document = reply.json()
    assert (document["label"], document["hardened"], document["copies"]) == (None, False, 0)
    assert document["p_value"] == 1.0


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/v1/certify", {}),
        ("/v1/certify", {"x-smoothing-target-radius": "0.25"}),
        ("/v1/predict", {"authorization": f"Bearer {OTHER}"}),
    ],
)
def test_no_certificate_is_given(path: str, headers: dict[str, str]) -> None:
    with serving(harden=False) as there:
        reply = there.ask(path, headers=headers)
        assert (reply.status_code, reply.json()["error"]["code"]) == (400, "bad_request")
        assert there.backend.asked == 0


def test_a_failure_behind_is_told() -> None:
    backend = ScriptedBackend(DOG, failures={0: BackendUnavailableError("down")})
    with serving(backend, harden=False, verdict_ttl_s=0) as there:
        assert there.ask().status_code == 503
        assert there.ask(headers={"idempotency-key": "again"}).status_code == 200
