"""Each vendor's own SDK, as a customer has it: only the endpoint and the key are changed."""

from __future__ import annotations

import asyncio
import base64
import json
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tests.gateway.forms import one_of
from tests.gateway.gateways import KEY_ID, SECRET, There

TIMEOUT_S = 20.0

LISTED = ("light", "dark", "Dog", "cat")

Labels = list[tuple[str, float]]

Ask = Callable[..., Labels]
"""(gateway, picture, secret) -> labels in the order of the answer. Raises the SDK's own exception."""


class AnnotationError(Exception):
    """An error that stands in a reply, where the SDK leaves it. code: the vendor's."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


@contextmanager
def rekognition(there: There, secret: str = SECRET, key_id: str = KEY_ID, **config: Any) -> Iterator[Any]:
    import boto3  # type: ignore[import-untyped, unused-ignore]
    from botocore.config import Config  # type: ignore[import-untyped, unused-ignore]

    config = {"retries": {"total_max_attempts": 1, "mode": "standard"}, "read_timeout": TIMEOUT_S, **config}
    client = boto3.client(
        "rekognition",
        endpoint_url=there.url,
        aws_access_key_id=key_id,
        aws_secret_access_key=secret,
        region_name="us-east-1",
        config=Config(**config),
    )
    try:
        yield client
    finally:
        client.close()


def boto3(there: There, image: bytes, secret: str = SECRET) -> Labels:
    with rekognition(there, secret) as client:
        labels = client.detect_labels(Image={"Bytes": image}, MinConfidence=0)["Labels"]
    return [(label["Name"], label["Confidence"] / 100) for label in labels]


def google_rest(there: There, image: bytes, secret: str = SECRET) -> Labels:
    from google.api_core.client_options import ClientOptions
    from google.cloud import vision

    options = ClientOptions(api_endpoint=there.url, api_key=secret)
    with vision.ImageAnnotatorClient(client_options=options, transport="rest") as client:
        return _annotated(client, image)


def google_grpc(there: There, image: bytes, secret: str = SECRET, timeout: float = TIMEOUT_S) -> Labels:
    import grpc  # type: ignore[import-untyped, unused-ignore]
    from google.cloud import vision
    from google.cloud.vision_v1.services.image_annotator.transports import ImageAnnotatorGrpcTransport

    with grpc.insecure_channel(f"127.0.0.1:{there.address.grpc_port}") as channel:
        client = vision.ImageAnnotatorClient(transport=ImageAnnotatorGrpcTransport(channel=channel))
        return _annotated(client, image, metadata=[("x-goog-api-key", secret)], timeout=timeout)


def _annotated(client: Any, image: bytes, **call: Any) -> Labels:
    call = {"timeout": TIMEOUT_S, **call}
    return _labels(client.batch_annotate_images(requests=[_request(image)], retry=None, **call))


def _request(image: bytes) -> Any:
    from google.cloud import vision

    feature = vision.Feature(type_=vision.Feature.Type.LABEL_DETECTION)
    return vision.AnnotateImageRequest(image=vision.Image(content=image), features=[feature])


def _labels(response: Any) -> Labels:
    (reply,) = response.responses
    if reply.error.code:
        raise AnnotationError(reply.error.code, reply.error.message)
    return [(label.description, label.score) for label in reply.label_annotations]


def google_async(there: There, image: bytes, secret: str = SECRET) -> Labels:
    import grpc  # type: ignore[import-untyped, unused-ignore]
    from google.cloud import vision
    from google.cloud.vision_v1.services.image_annotator.transports import ImageAnnotatorGrpcAsyncIOTransport

    async def ask() -> Any:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{there.address.grpc_port}") as channel:
            transport = ImageAnnotatorGrpcAsyncIOTransport(channel=channel)
            client = vision.ImageAnnotatorAsyncClient(transport=transport)
            metadata = [("x-goog-api-key", secret)]
            return await client.batch_annotate_images(
                requests=[_request(image)], retry=None, timeout=TIMEOUT_S, metadata=metadata
            )

    return _labels(asyncio.run(ask()))


def azure(there: There, image: bytes, secret: str = SECRET) -> Labels:
    from azure.ai.vision.imageanalysis import ImageAnalysisClient
    from azure.ai.vision.imageanalysis.models import VisualFeatures
    from azure.core.credentials import AzureKeyCredential

    with ImageAnalysisClient(
        there.url, AzureKeyCredential(secret), retry_total=0, read_timeout=TIMEOUT_S
    ) as client:
        tags = client.analyze(image, [VisualFeatures.TAGS]).tags
    return [(tag.name, tag.confidence) for tag in tags.list] if tags is not None else []


def azure_async(there: There, image: bytes, secret: str = SECRET) -> Labels:
    from azure.ai.vision.imageanalysis.aio import ImageAnalysisClient
    from azure.ai.vision.imageanalysis.models import VisualFeatures
    from azure.core.credentials import AzureKeyCredential

    async def ask() -> Any:
        async with ImageAnalysisClient(
            there.url, AzureKeyCredential(secret), retry_total=0, read_timeout=TIMEOUT_S
        ) as client:
            return (await client.analyze(image, [VisualFeatures.TAGS])).tags

    tags = asyncio.run(ask())
    return [(tag.name, tag.confidence) for tag in tags.list] if tags is not None else []


def azure_32(there: There, image: bytes, secret: str = SECRET) -> Labels:
    import io

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the SDK's own dependencies
        from azure.cognitiveservices.vision.computervision import ComputerVisionClient
        from msrest.authentication import CognitiveServicesCredentials

        client: Any = ComputerVisionClient(there.url, CognitiveServicesCredentials(secret))  # type: ignore[no-untyped-call]
        client.config.retry_policy.policy.total = 0
        with client:
            result = client.tag_image_in_stream(io.BytesIO(image))
    return [(tag.name, tag.confidence) for tag in result.tags]


def clarifai(there: There, image: bytes, secret: str = SECRET, model: str = "general-image-recognition") -> Labels:
    from clarifai_grpc.channel.clarifai_channel import ClarifaiChannel  # type: ignore[import-untyped, unused-ignore]
    from clarifai_grpc.grpc.api import resources_pb2, service_pb2, service_pb2_grpc  # type: ignore[import-untyped, unused-ignore]
    from clarifai_grpc.grpc.api.status import status_code_pb2  # type: ignore[import-untyped, unused-ignore]

    stub = service_pb2_grpc.V2Stub(ClarifaiChannel.get_json_channel(base_url=there.url))
    data = resources_pb2.Data(image=resources_pb2.Image(base64=image))
    request = service_pb2.PostModelOutputsRequest(
        user_app_id=resources_pb2.UserAppIDSet(user_id="clarifai", app_id="main"),
        model_id=model,
        version_id="v1",
        inputs=[resources_pb2.Input(data=data)],
    )
    reply = stub.PostModelOutputs(request, metadata=(("authorization", f"Key {secret}"),))
    if reply.status.code != status_code_pb2.SUCCESS:
        raise AnnotationError(reply.status.code, reply.status.description)
    return [(concept.name, concept.value) for concept in reply.outputs[0].data.concepts]


def openai(there: There, image: bytes, secret: str = SECRET) -> Labels:
    """One label of a closed list, whose confidence is not told."""
    from openai import OpenAI
    from openai.types.chat import ChatCompletion

    url = f"data:image/png;base64,{base64.b64encode(image).decode()}"
    with OpenAI(base_url=f"{there.url}/v1", api_key=secret, max_retries=0, timeout=TIMEOUT_S) as client:
        asked: Any = [{"type": "text", "text": "Which?"}, {"type": "image_url", "image_url": {"url": url}}]
        wanted: Any = one_of(*LISTED)
        completion: ChatCompletion = client.chat.completions.create(
            model="vision", messages=[{"role": "user", "content": asked}], response_format=wanted
        )
    content = completion.choices[0].message.content
    return [] if content is None else [(json.loads(content)["label"], 1.0)]


ASKS: dict[str, Ask] = {
    "boto3": boto3,
    "google REST": google_rest,
    "google gRPC": google_grpc,
    "google async": google_async,
    "azure 4.0": azure,
    "azure 4.0 async": azure_async,
    "azure 3.2": azure_32,
    "clarifai": clarifai,
    "openai": openai,
}
