"""Clarifai's predictions over REST, both ways.

    POST {base}/v2/users/{user}/apps/{app}/models/{model}/versions/{version}/outputs      Authorization: Key PAT

Shapes and status codes: the messages of clarifai-grpc 12.6, of which the REST interface is the JSON form.
128 pictures a request, 20 MB a picture: docs.clarifai.com, "Images"; 20 concepts unless asked for up to 200:
"Prediction parameters"; both read 2026-11-21.
"""

from __future__ import annotations

import base64
import hmac
import json
import math
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import final
from urllib.parse import quote

from pydantic import ValidationError

from smoothing_proxy.errors import BackendError, MalformedReplyError
from smoothing_proxy.types import Reply, ScoredLabel
from smoothing_proxy.wire.base import (
    ElsewhereFault,
    Fault,
    HttpReply,
    HttpRequest,
    Question,
    RequestFault,
)
from smoothing_proxy.wire.clarifai_codes import (
    CODES,
    FAILURE,
    MIXED,
    NUMBERS,
    OF_ONE_PICTURE,
    SUCCESS,
    refusal_of,
)
from smoothing_proxy.wire.clarifai_request import (
    LIMITS,
    MOST_CONCEPTS,
    Concept,
    ProtoShape,
    asked,
    picture_in,
    places_in,
)
from smoothing_proxy.wire.shapes import fault_in
from smoothing_proxy.wire.statuses import Failure, failure_error, failure_of, harmless

__all__ = [
    "LIMITS",
    "MOST_CONCEPTS",
    "ClarifaiWire",
    "headers_for",
    "outputs_url",
    "replies_of",
    "request_body",
]

USUAL_CONCEPTS = 20

# The client's side: what a backend sends and what it makes of the answer.


def outputs_url(base: str, *, user: str, app: str, model: str, version: str) -> str:
    """The address of predictions. base: without a slash at its end."""
    parts = (("users", user), ("apps", app), ("models", model), ("versions", version))
    return f"{base}/v2/" + "/".join(f"{kind}/{quote(name, safe='')}" for kind, name in parts) + "/outputs"


def headers_for(pat: str) -> dict[str, str]:
    """pat: the personal access token."""
    return {"authorization": f"Key {pat}", "content-type": "application/json"}


def request_body(images: Sequence[bytes], *, max_concepts: int, concepts: Sequence[str] = ()) -> bytes:
    """The request about pictures. concepts: names of the only ones to score, () for any."""
    config: dict[str, object] = {"max_concepts": max_concepts, "min_value": 0}
    if concepts:
        config["select_concepts"] = [{"name": name} for name in concepts]
    model = json.dumps({"output_info": {"output_config": config}}).encode()
    # Put together by hand: json.dumps would look at every letter of the pictures.
    inputs = b",".join(b'{"data":{"image":{"base64":"' + base64.b64encode(image) + b'"}}}' for image in images)
    return b'{"inputs":[' + inputs + b'],"model":' + model + b"}"


class _Status(ProtoShape):
    code: int | str = 0
    description: str = ""
    details: str = ""
    req_id: str = ""

    @property
    def number(self) -> int:
        return self.code if isinstance(self.code, int) else NUMBERS.get(self.code, 0)


class _Data(ProtoShape):
    concepts: tuple[Concept, ...] = ()


class _ModelVersion(ProtoShape):
    id: str = ""


class _Model(ProtoShape):
    model_version: _ModelVersion = _ModelVersion()


class _Output(ProtoShape):
    status: _Status = _Status()
    model: _Model = _Model()
    data: _Data = _Data()


class _Answer(ProtoShape):
    status: _Status
    outputs: tuple[_Output, ...] = ()


def replies_of(
    reply: HttpReply, expected: int, *, backend: str, retry_after: float | None = None
) -> list[Reply | BackendError]:
    """An answer or its failure for each of the `expected` pictures, in order.

    What stops every picture (AuthenticationError, QuotaExceededError) stands in its picture's place too, since the
    answers beside it were paid for. Raises BackendError where the request failed as a whole, and
    MalformedReplyError, which keeps the body, for another number of outputs or another shape.
    """
    try:
        answer = _Answer.model_validate_json(reply.body)
    except ValidationError as error:
        if not 200 <= reply.status < 300:
            raise _error(_Status(), reply.status, backend, retry_after) from None
        raise _malformed(backend, reply, fault_in(error)) from None
    whole = answer.status.number
    outcome = whole in (SUCCESS, MIXED) or (whole == FAILURE and len(answer.outputs) == expected)
    if not outcome:
        raise _error(answer.status, reply.status, backend, retry_after)
    if len(answer.outputs) != expected:
        raise _malformed(backend, reply, f"{len(answer.outputs)} outputs for {expected} pictures")
    return [
        _outcome(output, answer.status.req_id, reply.status, backend, retry_after) for output in answer.outputs
    ]


def _outcome(
    output: _Output, request_id: str, status: int, backend: str, retry_after: float | None
) -> Reply | BackendError:
    if output.status.number != SUCCESS:
        return _error(output.status, status, backend, retry_after)
    labels = tuple(
        ScoredLabel(concept.name or concept.id, concept.value, concept.id)
        for concept in output.data.concepts
        if concept.name or concept.id
    )
    return Reply(labels, output.model.model_version.id, request_id)


def _error(status: _Status, http: int, backend: str, retry_after: float | None) -> BackendError:
    by_http: Failure = failure_of(http) if http >= 300 else "failed"
    failure = CODES.get(status.number, by_http)
    said = " ".join(filter(None, (harmless(str(status.code or "")), harmless(status.description))))
    details = harmless(status.details)
    text = ": ".join(filter(None, (f"{backend}: HTTP {http}{_ADVICE.get(failure, '')}", said, details)))
    return failure_error(failure, text, backend=backend, retry_after=retry_after)


_ADVICE: Mapping[Failure, str] = {
    "auth": " (check the token and its scopes, user_id, app_id, model_id, model_version and concepts)",
    "quota": " (wait until the quota is renewed or change the plan, then resume)",
    "throttled": " (lower the concurrency)",
}


def _malformed(backend: str, reply: HttpReply, fault: str) -> MalformedReplyError:
    return MalformedReplyError(
        f"{backend}: the answer is not in Clarifai's format: {fault}", backend=backend, reply=reply.body
    )


# The server's side: what a simulator and a gateway read and write.


_OURS = re.compile(r"(^|/)v2/(users|models|workflows|inputs)(/|$)")
_OPERATION = re.compile(r"/v2/(?:users/[^/]+/apps/[^/]+/)?models/([^/]+)(?:/versions/([^/]+))?/outputs/?$")


@final
class ClarifaiWire:
    """Clarifai's predictions as a server speaks them over REST; see wire.base.Wire. Under any path prefix.

    Answered are concepts of pictures that are sent along in base64; other inputs and other calls are refused.
    """

    name = "clarifai"
    limits = LIMITS

    def serves(self, request: HttpRequest) -> bool:
        """A path of the second version, or a credential written as Clarifai's."""
        return _OURS.search(request.path) is not None or _pat(request) != ""

    def key(self, request: HttpRequest) -> str:
        """The personal access token itself: it has no id."""
        pat = _pat(request)
        if not pat:
            raise RequestFault(Fault.UNAUTHENTICATED, "expected the header Authorization: Key PAT")
        return pat

    def verify(self, request: HttpRequest, secret: str, now: datetime) -> None:
        """The token is the secret."""
        if not hmac.compare_digest(self.key(request).encode(errors="surrogateescape"), secret.encode()):
            raise RequestFault(Fault.UNAUTHENTICATED, "the key is not known here")

    def read(self, request: HttpRequest) -> Question:
        """Concepts of up to 128 pictures; `select_concepts`, by name or id, is the closed set."""
        found = _OPERATION.search(request.path)
        if found is None or request.method != "POST":
            raise RequestFault(Fault.UNKNOWN_OPERATION, "only the outputs of a model are served here")
        wanted = asked(request.body)
        config = wanted.model.output_info.output_config
        labels = tuple(concept.name or concept.id for concept in config.select_concepts)
        if not all(labels):
            raise RequestFault(Fault.BAD_REQUEST, "select_concepts: each concept needs a name or an id")
        images = tuple(picture_in(one, number) for number, one in enumerate(wanted.inputs))
        places = places_in(wanted)
        question = Question(
            images,
            max_labels=config.max_concepts or None,
            min_confidence=config.min_value,
            labels=labels,
            model="/".join(filter(None, found.groups())),
            places=places,
        )
        if places:
            said = f"inputs[{min(places)}].data.image.url: pictures are not fetched here; send base64"
            raise ElsewhereFault(said, question)
        return question

    def write(
        self, request: HttpRequest, question: Question, answers: Sequence[Reply | RequestFault], request_id: str
    ) -> HttpReply:
        """Concepts by value, then name; a picture's own fault is the status of its output."""
        faults = [answer for answer in answers if isinstance(answer, RequestFault)]
        beyond = [fault for fault in faults if fault.fault not in OF_ONE_PICTURE]
        if beyond and len(faults) == len(answers):
            return self.refuse(request, beyond[0], request_id)
        code, said = (MIXED, "Mixed Success") if faults else (SUCCESS, "Ok")
        if len(faults) == len(answers):
            code, said = FAILURE, "Failure"
        outputs = [_output(answer, question, f"{request_id}-{i}") for i, answer in enumerate(answers)]
        body = {"status": {"code": code, "description": said, "req_id": request_id}, "outputs": outputs}
        return HttpReply(400 if code == FAILURE else 200, _headers(request_id), json.dumps(body).encode())

    def refuse(self, request: HttpRequest, fault: RequestFault, request_id: str) -> HttpReply:
        """The status and no outputs."""
        http, _, _ = refusal_of(fault)
        headers = _headers(request_id)
        if fault.retry_after_s is not None:
            headers["retry-after"] = str(math.ceil(fault.retry_after_s))
        body = {"status": {**_status(fault), "req_id": request_id}, "outputs": []}
        return HttpReply(http, headers, json.dumps(body).encode())


def _pat(request: HttpRequest) -> str:
    scheme, _, pat = request.headers.get("authorization", "").partition(" ")
    return pat.strip() if scheme.lower() == "key" else ""


def _headers(request_id: str) -> dict[str, str]:
    return {"content-type": "application/json", "x-clarifai-request-id": request_id}


def _status(fault: RequestFault) -> dict[str, object]:
    _, code, description = refusal_of(fault)
    return {"code": code, "description": description, "details": fault.message}


def _output(answer: Reply | RequestFault, question: Question, output_id: str) -> dict[str, object]:
    if isinstance(answer, RequestFault):
        return {"id": output_id, "status": _status(answer), "data": {}}
    least = question.min_confidence or 0.0
    kept = [label for label in answer.labels if label.confidence >= least and _selected(label, question.labels)]
    kept.sort(key=lambda label: (-label.confidence, label.name))
    concepts = [
        {"id": label.id or label.name, "name": label.name, "value": label.confidence}
        for label in kept[: question.max_labels or USUAL_CONCEPTS]
    ]
    return {
        "id": output_id,
        "status": {"code": SUCCESS, "description": "Ok"},
        "model": {
            "id": question.model.partition("/")[0],
            "model_version": {"id": answer.model_version},
        },
        "data": {"concepts": concepts},
    }


def _selected(label: ScoredLabel, labels: Sequence[str]) -> bool:
    return not labels or label.name in labels or (label.id != "" and label.id in labels)
