"""Per-label proofs: asked for in every way, paid for once, told in every way, and there after a restart."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import anyio
import pytest

from smoothing_proxy.backends.labels import LabelMap, Presence
from smoothing_proxy.backends.scripted import ScriptedBackend
from smoothing_proxy.denoisers.identity import Identity
from smoothing_proxy.gateway.app import make_gateway
from smoothing_proxy.gateway.inquiries import Inquiry
from smoothing_proxy.gateway.label_question import HEADER, LabelsQuestion, labels_in
from smoothing_proxy.gateway.ledger_store import LedgerStore
from smoothing_proxy.gateway.settings import GatewaySettings
from smoothing_proxy.gateway.verdicts import Verdict
from smoothing_proxy.smoothing.base_classifier import BaseClassifier
from smoothing_proxy.smoothing.settings import Smoothing
from tests.gateway import sdks
from tests.gateway.gateways import DOG, KEY_ID, SECRET, There, picture, serving
from tests.ledger.gateway import conftest as databases
from tests.ledger.gateway.stores import open_store

address, postgres = databases.address, databases.postgres

FIXED = Smoothing(sigma=0.25, n0=20, n=200)
QUESTION = {"labels": ["Weapon"], "threshold": 0.3, "confidence_radius": 0.1}


@pytest.fixture(scope="module")
def there() -> Iterator[There]:
    with serving(smoothing=FIXED) as there:
        yield there


def proven(verdict: dict[str, Any]) -> dict[str, bool | None]:
    return {proof["label"]: proof["present"] for proof in verdict["per_label"]["labels"]}


def test_json_a_form_and_headers_ask_the_same(there: There) -> None:
    encoded = base64.b64encode(picture(51)).decode()
    body = json.dumps({"image": encoded, "per_label": QUESTION}).encode()
    of_json = there.ask("/v1/certify", body, headers={"content-type": "application/json"}).json()
    of_form = there.client.post(
        "/v1/certify",
        files={"image": ("x.png", picture(52), "image/png")},
        data={"per_label": json.dumps(QUESTION)},
        headers={"x-api-key": SECRET},
    ).json()
    header = {"x-smoothing-per-label": json.dumps(QUESTION)}
    of_header = there.ask("/v1/certify", picture(53), headers=header).json()
    assert of_json["per_label"] == of_form["per_label"] == of_header["per_label"]
    said = of_json["per_label"]
    assert proven(of_json) == {"Weapon": False, "Dog": True, "Grass": True, "Pet": True}
    assert (said["threshold"], said["alpha"], said["alpha_each"], said["tested"]) == (0.3, 0.001, 0.000125, 4)
    assert (said["selection"], said["estimation"], said["sequential"]) == (20, 200, False)
    dog = next(proof for proof in said["labels"] if proof["label"] == "Dog")
    assert dog["votes"] == {"present": 200}
    assert dog["radius"] == dog["input_radius"] > 0.25
    assert dog["confidence"] == {"median": 0.9, "low": 0.9, "high": 0.9, "radius": 0.1, "input_radius": 0.1}


def test_it_takes_no_query_more() -> None:
    for header in ({}, {"x-smoothing-per-label": "true"}):
        with serving(ScriptedBackend(DOG, concurrency=1), smoothing=FIXED) as there:
            verdict = there.ask("/v1/certify", headers=header).json()
            assert there.backend.asked == verdict["queries"] == 220
            assert (verdict["per_label"] is not None) == bool(header)


def test_it_is_remembered_apart_from_the_plain_question_and_told_again(there: There) -> None:
    header = {"x-smoothing-per-label": "true"}
    paid = there.backend.asked
    first = there.ask("/v1/certify", picture(54), headers=header)
    second = there.ask("/v1/certify", picture(54), headers={**header, "idempotency-key": "another"})
    assert there.backend.asked == paid + 220
    assert first.json() == second.json()
    assert [reply.headers["x-smoothing-replayed"] for reply in (first, second)] == ["false", "true"]
    assert (
        there.client.get(f"/v1/verdicts/{first.json()['id']}", headers={"x-api-key": SECRET}).json()
        == first.json()
    )
    assert there.ask("/v1/certify", picture(54)).json()["per_label"] is None


def test_a_stream_ends_with_the_proofs_too(there: There) -> None:
    headers = {"accept": "text/event-stream", "x-smoothing-per-label": "true"}
    last = there.ask("/v1/certify", picture(55), headers=headers).text.strip().split("\n\n")[-1].split("\n")
    assert last[0] == "event: verdict"
    assert proven(json.loads(last[1].removeprefix("data: ")))["Dog"] is True


def test_boto3_asks_by_a_header_and_its_min_confidence_is_the_threshold(there: There) -> None:
    def add(params: dict[str, Any], **_: Any) -> None:
        params["headers"]["x-smoothing-per-label"] = '{"labels": ["Weapon"]}'
        params["headers"]["x-smoothing-target-radius"] = "0.2"

    with sdks.rekognition(there) as client:
        client.meta.events.register("before-call.rekognition.DetectLabels", add)
        reply = client.detect_labels(Image={"Bytes": picture(56)}, MinConfidence=60)
    name = reply["ResponseMetadata"]["HTTPHeaders"]["x-smoothing-verdict-id"]
    verdict = there.client.get(f"/v1/verdicts/{name}", headers={"authorization": f"Bearer {SECRET}"}).json()
    said = verdict["per_label"]
    assert [label["Name"] for label in reply["Labels"]] == ["Dog", "Pet"]
    assert (verdict["kind"], verdict["radius"]) == ("certify", 0.2)
    assert (said["threshold"], said["sequential"], said["selection"]) == (0.6, True, 8)
    assert said["selection"] + said["estimation"] == verdict["copies"]
    # It stopped as soon as its own radius was proven: the labels' are smaller, of fewer draws at less of alpha.
    assert proven(verdict) == {"Weapon": False, "Dog": True, "Pet": True, "Grass": None}
    radii = [proof["radius"] for proof in said["labels"] if proof["present"] is not None]
    assert all(0 < radius < 0.2 for radius in radii)


def test_a_prediction_says_that_its_few_draws_prove_nothing_about_a_label() -> None:
    with serving(per_label={"always": True}) as there:
        verdict = there.ask().json()
        silent = there.ask(headers={"x-smoothing-per-label": "false"}).json()
    assert verdict["label"] == "Dog"
    assert {proof["unproven"] for proof in verdict["per_label"]["labels"]} == {"too few draws", "not tested"}
    assert set(proven(verdict).values()) == {None}
    assert silent["per_label"] is None


@pytest.mark.parametrize(
    ("labels", "header", "said"),
    [
        (None, "perhaps", "expected true, false or a JSON object"),
        (None, '{"threshold": 2}', "threshold"),
        (None, '{"label": ["Dog"]}', "label"),
        (None, '["Dog"]', "JSON object"),
        (None, '{"labels": ["\\ud800"]}', "JSON object"),
        (
            LabelMap(groups={"animal": ("Dog", "Pet")}, closed=True),
            '{"labels": ["animl"]}',
            "did you mean 'animal'",
        ),
        (LabelMap(present=Presence(label="Dog", confidence=0.5)), "true", "one label alone"),
    ],
)
def test_a_question_that_cannot_be_asked_is_refused_before_it_costs(
    labels: LabelMap | None, header: str, said: str
) -> None:
    with serving(labels=labels) as there:
        replies = [there.ask(headers={"x-smoothing-per-label": header})]
        vendor = there.client.post(
            "/computervision/imageanalysis:analyze?api-version=2023-10-01&features=tags",
            content=picture(),
            headers={"ocp-apim-subscription-key": SECRET, "x-smoothing-per-label": header},
        )
    for reply in (*replies, vendor):
        assert reply.status_code == 400, reply.text
        assert said in reply.json()["error"]["message"]
    assert there.backend.asked == 0


@pytest.mark.parametrize(
    ("always", "keys", "header", "proves"),
    [
        (False, {KEY_ID: True}, "", True),
        (True, {KEY_ID: False}, "", False),
        (True, {"OTHERKEY": False}, "", True),
        (False, {"OTHERKEY": True}, "", False),
        (False, {KEY_ID: True}, "false", False),
        (True, {KEY_ID: False}, "true", True),
    ],
)
def test_a_key_has_its_own_word_on_proofs_between_the_requests_and_the_gateways(
    always: bool, keys: dict[str, bool], header: str, proves: bool
) -> None:
    with serving(smoothing=FIXED, per_label={"always": always, "keys": keys}) as there:
        verdict = there.ask("/v1/predict", picture(58), headers={"x-smoothing-per-label": header}).json()
    assert (verdict["per_label"] is not None) == proves


def test_a_verdict_with_its_proofs_is_the_same_after_a_restart(address: str) -> None:
    """On each database: as it is told again, as it answers the same picture, and as it is read by its id."""

    async def served() -> tuple[Verdict, str, Verdict, int]:
        async with open_store(address) as store:
            key, token = await store.create_key("shop", "native")
            verdict, asked = await ask(LedgerStore(store), token)
            assert asked == 220
        async with open_store(address) as store:
            again, asked = await ask(LedgerStore(store), token)
            kept = await store.verdict(verdict.id, key.id)
        return verdict, kept or "", again, asked

    verdict, kept, again, asked = anyio.run(served)
    assert verdict.per_label is not None
    assert [proof.label for proof in verdict.per_label.labels if proof.present] == ["Dog", "Pet"]
    assert again == verdict == Verdict.model_validate_json(kept)
    assert asked == 0


async def ask(store: LedgerStore, token: str) -> tuple[Verdict, int]:
    """One picture, asked about in process; its answer, and how many queries it took."""
    backend = ScriptedBackend(DOG, batch_size=8)
    classifier = BaseClassifier(backend, Identity(), sigma=FIXED.sigma)
    gateway = make_gateway(
        GatewaySettings(), classifier, FIXED, store, now=lambda: datetime(2026, 1, 2, tzinfo=UTC)
    )
    caller = await store.check_token("native", token)
    assert caller is not None
    wish = gateway.with_labels(caller, gateway.wish(caller, kind="certify"), asked=True)
    job = gateway.take(Inquiry(caller, (picture(57),), wish, "a" * 64))
    (answer,) = await gateway.answers(job)
    await gateway.close()
    assert isinstance(answer, Verdict)
    return answer, backend.asked


def test_a_header_names_labels_in_utf_8() -> None:
    asked = labels_in({HEADER: json.dumps({"labels": ["Bär"]}, ensure_ascii=False).encode().decode("latin-1")})
    assert isinstance(asked, LabelsQuestion)
    assert asked.labels == ("Bär",)
