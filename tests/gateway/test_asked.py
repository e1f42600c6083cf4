"""Questions that are not the hardened one: refused in the vendor's own shape, unless the owner has listed them."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import pytest

from tests.gateway import sdks
from tests.gateway.forms import one_of
from tests.gateway.gateways import SECRET, There, picture, serving

PROMPT = "What is in this picture?\n  One word."
DATA = base64.b64encode(picture()).decode()
PICTURE = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{DATA}"}}


@pytest.fixture(scope="module")
def there() -> Iterator[There]:
    with serving(clarifai_models=["general-image-recognition", "mine"], openai_prompts=[PROMPT]) as there:
        yield there


def clarifai(there: There, path: str, image: dict[str, str]) -> tuple[int, int]:
    """Clarifai's status beside HTTP's."""
    reply = there.client.post(
        path, json={"inputs": [{"data": {"image": image}}]}, headers={"authorization": f"Key {SECRET}"}
    )
    return reply.status_code, reply.json()["status"]["code"]


@pytest.mark.parametrize("model", ["face-detection", "color-recognition", "General-Image-Recognition", "mine2"])
def test_clarifais_sdk_is_told_that_another_model_does_not_exist(there: There, model: str) -> None:
    from clarifai_grpc.grpc.api.status import status_code_pb2  # type: ignore[import-untyped, unused-ignore]

    asked = there.backend.asked
    with pytest.raises(sdks.AnnotationError) as refused:
        sdks.clarifai(there, picture(), model=model)
    assert refused.value.code == status_code_pb2.MODEL_DOES_NOT_EXIST
    assert there.backend.asked == asked


@pytest.mark.parametrize(
    ("path", "image", "told"),
    [
        ("/v2/models/face-detection/outputs", {"base64": DATA}, (404, 21200)),
        ("/v2/users/u/apps/a/models/face-detection/versions/v/outputs", {"base64": DATA}, (404, 21200)),
        ("/v2/models/face-detection/outputs", {"url": "https://example.com/a.png"}, (404, 21200)),
        ("/v2/models/mine/outputs", {"base64": DATA}, (200, 10000)),
        ("/v2/users/u/apps/a/models/mine/versions/v/outputs", {"base64": DATA}, (200, 10000)),
        ("/v2/models/aaa03c23b3724a16a56b629203edf62c/outputs", {"base64": DATA}, (404, 21200)),
    ],
)
def test_only_the_models_on_the_list_are_stood_in_for(
    there: There, path: str, image: dict[str, str], told: tuple[int, int]
) -> None:
    assert clarifai(there, path, image) == told


def test_clarifais_general_model_is_known_by_its_name_and_its_id() -> None:
    with serving() as there:
        for model in ("general-image-recognition", "aaa03c23b3724a16a56b629203edf62c"):
            assert sdks.clarifai(there, picture(), model=model)[0][0] == "Dog"


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("features=tags", 200),
        ("Features=Tags&gender-neutral-caption=true", 200),
        ("features=tags&model-name=my-own", 400),
        ("features=tags&Model-Name=my-own", 400),
        ("model-name=my-own", 400),
        ("features=caption&features=tags", 400),
        ("features=tags&FEATURES=caption", 400),
        ("features=tags,caption", 400),
        ("features=tags&language=en&Language=de", 400),
    ],
)
def test_azures_own_models_and_further_features_are_refused(there: There, query: str, status: int) -> None:
    reply = there.client.post(
        f"/computervision/imageanalysis:analyze?api-version=2023-10-01&{query}",
        content=picture(),
        headers={"ocp-apim-subscription-key": SECRET, "content-type": "image/png"},
    )
    assert reply.status_code == status
    if status == 400:
        assert reply.json()["error"]["code"] == "InvalidRequest"


def chat(there: There, *parts: object, **options: Any) -> str | None:
    """What OpenAI's SDK makes of the answer; {} of messages are the user's."""
    from openai import OpenAI
    from openai.types.chat import ChatCompletion

    options = {"messages": [{"role": "user", "content": [*parts, PICTURE]}], **options}
    with OpenAI(base_url=f"{there.url}/v1", api_key=SECRET, max_retries=0) as client:
        completion: ChatCompletion = client.chat.completions.create(model="vision", **options)
    return completion.choices[0].message.content


def text(said: str) -> dict[str, str]:
    return {"type": "text", "text": said}


HOW_MANY = text("How many people are in the picture? Answer with a number.")
CHOICE = one_of("Dog", "cat")
ANY_TEXT = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "string"}}}
SOUND = {"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}
FILE = {"type": "file", "file": {"file_data": "", "filename": "a.pdf"}}


@pytest.mark.parametrize(
    ("parts", "options", "words"),
    [
        ([HOW_MANY], {}, "enum of a JSON schema"),
        ([], {}, "enum of a JSON schema"),
        ([HOW_MANY], {"response_format": {"type": "json_object"}}, "enum of a JSON schema"),
        ([HOW_MANY], {"response_format": ANY_TEXT}, "enum of a JSON schema"),
        ([text(PROMPT), HOW_MANY], {}, "enum of a JSON schema"),
        ([text(PROMPT), SOUND], {}, "text and a picture"),
        ([SOUND], {"response_format": CHOICE}, "text and a picture"),
        ([FILE], {"response_format": CHOICE}, "text and a picture"),
        ([], {"response_format": CHOICE, "logprobs": True, "top_logprobs": 3}, "logprobs"),
        ([], {"response_format": CHOICE, "modalities": ["text", "audio"]}, "modalities"),
        ([], {"response_format": CHOICE, "web_search_options": {"search_context_size": "low"}}, "web_search"),
        (
            [],
            {
                "response_format": CHOICE,
                "messages": [
                    {"role": "user", "content": [PICTURE]},
                    {"role": "assistant", "content": "A dog."},
                    {"role": "user", "content": "And what else?"},
                ],
            },
            "no conversation",
        ),
    ],
)
def test_openais_sdk_is_told_that_only_a_choice_of_labels_is_answered(
    there: There, parts: list[object], options: dict[str, Any], words: str
) -> None:
    from openai import BadRequestError

    asked = there.backend.asked
    with pytest.raises(BadRequestError, match=words):
        chat(there, *parts, **options)
    assert there.backend.asked == asked


@pytest.mark.parametrize(
    ("parts", "options", "answer"),
    [
        ([text("Which of these is it?")], {"response_format": CHOICE}, '{"label":"Dog"}'),
        ([HOW_MANY], {"response_format": one_of("0", "1", "2")}, None),
        ([], {"response_format": CHOICE, "modalities": ["text"], "logprobs": False}, '{"label":"Dog"}'),
        ([text("What is in this  picture? One word.")], {}, "Dog"),
        (
            [],
            {
                "messages": [
                    {"role": "system", "content": "What is in this picture?"},
                    {"role": "user", "content": [text("One word."), PICTURE]},
                ],
                "response_format": {"type": "json_object"},
            },
            '{"label":"Dog"}',
        ),
    ],
)
def test_openais_choice_of_labels_and_the_prompts_on_the_list_are_answered(
    there: There, parts: list[object], options: dict[str, Any], answer: str | None
) -> None:
    assert chat(there, *parts, **options) == answer
