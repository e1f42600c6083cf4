"""What an answer proves, and where that can be read."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from itertools import count
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import pytest

from smoothing_proxy.backends.labels import LabelMap
from smoothing_proxy.backends.scripted import ScriptedBackend
from smoothing_proxy.gateway.verdicts import Verdict
from smoothing_proxy.types import Reply, ScoredLabel
from tests.gateway import sdks
from tests.gateway.gateways import DOG, KEY_ID, OTHER, SECRET, There, picture, proof, serving


@pytest.fixture(scope="module")
def there() -> Iterator[There]:
    with serving() as there:
        yield there


def test_a_prediction_carries_its_proof_in_headers_and_body(there: There) -> None:
    reply = there.ask(image=picture(31))
    verdict = Verdict.model_validate_json(reply.content)
    told = proof(reply.headers)
    assert (verdict.kind, verdict.label, verdict.hardened, verdict.model_version) == ("predict", "Dog", True, "v7")
    assert [label.name for label in verdict.labels] == ["Dog", "Pet", "Grass"]
    assert verdict.labels[0].parents == ("Animal",)
    assert verdict.copies <= verdict.queries <= 20
    assert told == {
        "label": "Dog",
        "radius": "0.000000",
        "input-radius": "0.000000",
        "alpha": "0.001",
        "queries": str(verdict.queries),
        "abstain": "false",
        "verdict-id": verdict.id,
        "replayed": "false",
    }
    assert reply.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("path", "content", "headers"),
    [
        pytest.param("/v1/certify", picture(32), {"x-smoothing-target-radius": "0.25"}, id="header"),
        pytest.param(
            "/v1/certify",
            json.dumps({"image": base64.b64encode(picture(33)).decode(), "target_radius": 0.25}).encode(),
            {"content-type": "application/json"},
            id="JSON",
        ),
        pytest.param("/v1/certify", picture(34), {"x-smoothing-target-radius": "0.23"}, id="rounded up"),
        pytest.param("/v1/predict", picture(35), {"authorization": f"Bearer {OTHER}"}, id="the key's own setting"),
    ],
)
def test_a_radius_is_certified_where_it_is_asked_for(
    there: There, path: str, content: bytes, headers: dict[str, str]
) -> None:
    reply = there.ask(path, content, headers=headers)
    verdict = Verdict.model_validate_json(reply.content)
    radius = 0.1 if OTHER in str(headers) else 0.25
    assert (verdict.kind, verdict.label, verdict.radius, verdict.input_radius) == (
        "certify",
        "Dog",
        radius,
        radius,
    )
    assert proof(reply.headers)["radius"] == f"{radius:.6f}"


def test_a_form_is_read_too(there: There) -> None:
    files = {"image": ("panda.png", picture(36), "image/png")}
    headers = {"x-api-key": SECRET}
    reply = there.client.post("/v1/certify", files=files, data={"target_radius": "0.25"}, headers=headers)
    assert reply.json()["radius"] == 0.25


def test_a_verdict_can_be_read_again_by_its_own_key_alone(there: There) -> None:
    verdict = there.ask(image=picture(37)).json()
    path = f"/v1/verdicts/{verdict['id']}"
    statuses = {
        f"Bearer {SECRET}": 200,
        f"Key {SECRET}": 200,
        f"Bearer {OTHER}": 404,
        "Bearer nobody": 401,
        "": 401,
    }
    for authorization, status in statuses.items():
        reply = there.client.get(path, headers={"authorization": authorization})
        assert reply.status_code == status, authorization
        assert (reply.json() == verdict) == (status == 200)


def test_a_signed_request_reads_a_verdict(there: There) -> None:
    from botocore.auth import SigV4Auth  # type: ignore[import-untyped, unused-ignore]
    from botocore.awsrequest import AWSRequest  # type: ignore[import-untyped, unused-ignore]
    from botocore.credentials import Credentials  # type: ignore[import-untyped, unused-ignore]

    with sdks.rekognition(there) as client:
        told = client.detect_labels(Image={"Bytes": picture(38)})["ResponseMetadata"]["HTTPHeaders"]
    url = f"{there.url}/v1/verdicts/{told['x-smoothing-verdict-id']}"
    signed = AWSRequest("GET", url)
    SigV4Auth(Credentials(KEY_ID, SECRET), "rekognition", "us-east-1").add_auth(signed)
    reply = httpx.get(url, headers=dict(signed.headers))
    # botocore lets `get` of Rekognition through no other way; httpx sends the same Host as was signed.
    assert reply.status_code == 200
    assert reply.json()["label"] == "Dog"


def test_a_stream_tells_the_votes_as_they_grow_and_the_verdict_last() -> None:
    backend = ScriptedBackend(DOG, concurrency=2, latency_s=0.01)
    with serving(backend) as there:
        headers = {"accept": "text/event-stream", "x-smoothing-target-radius": "0.25"}
        reply = there.ask("/v1/certify", picture(39), headers=headers)
        bad = there.ask("/v1/certify", b"no picture", headers=headers)
    assert reply.headers["content-type"].startswith("text/event-stream")
    events = _events(reply.text)
    kinds = [kind for kind, _ in events]
    copies = [data["copies"] for kind, data in events if kind == "votes"]
    assert kinds == ["votes"] * (len(kinds) - 1) + ["verdict"]
    assert len(copies) > 3
    assert copies == sorted(set(copies))
    assert events[-1][1]["radius"] == 0.25
    assert _events(bad.text)[-1][0] == "error"


def _events(text: str) -> list[tuple[str, dict[str, Any]]]:
    blocks = [block.split("\n") for block in text.strip().split("\n\n") if not block.startswith(":")]
    return [(kind.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for kind, data in blocks]


def undecided() -> ScriptedBackend:
    """Says cat and dog by turns, and about the picture itself, which has no noise, dog."""
    turns = count()

    def answer(pixels: npt.NDArray[np.uint8]) -> Reply:
        clean = pixels.std() < 1
        return Reply((ScoredLabel("Dog" if clean or next(turns) % 2 else "Cat", 0.9),))

    return ScriptedBackend(answer, batch_size=8)


def test_an_abstention_is_empty_an_error_or_marked_as_unhardened() -> None:
    expected = {
        "empty": (200, [], "true"),
        "error": (400, None, "true"),
        "unhardened": (200, ["Dog"], "unhardened"),
    }
    for abstain, (status, labels, header) in expected.items():
        with serving(undecided(), abstain=abstain) as there:
            reply = there.ask(image=picture(100))
            assert (reply.json()["label"], proof(reply.headers)["abstain"]) == (None, header)
            azure = there.client.post(
                "/computervision/imageanalysis:analyze?api-version=2023-10-01&features=tags",
                content=picture(100),
                headers={"ocp-apim-subscription-key": SECRET},
            )
        body = azure.json()
        assert azure.status_code == status, abstain
        assert proof(azure.headers)["abstain"] == header
        if labels is None:
            assert "certain enough" in body["error"]["message"]
        else:
            assert [tag["name"] for tag in body["tagsResult"]["values"]] == labels


def test_answers_can_be_in_the_words_of_the_label_map() -> None:
    labels = LabelMap(groups={"animal": ("Dog", "Cat", "Pet")}, closed=True)
    with serving(labels=labels) as there:
        own = there.ask().json()
    with serving(labels=labels, labels_spoken="canonical") as there:
        canonical = there.ask().json()
    assert own["label"] == canonical["label"] == "animal"
    assert [label["name"] for label in own["labels"]] == ["Dog", "Pet", "Grass"]
    assert [label["name"] for label in canonical["labels"]] == ["animal"]


def test_a_label_that_is_no_plain_text_is_encoded_in_its_header() -> None:
    with serving(ScriptedBackend("Käse, \n\N{DOG FACE}", batch_size=8)) as there:
        told = proof(there.ask().headers)
    assert told["label"] == "K%C3%A4se%2C %0A%F0%9F%90%B6"
