"""Each vendor's own SDK, as a customer has it: only the endpoint and the key are changed."""

from __future__ import annotations

import base64
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tests.gateway.gateways import KEY_ID, SECRET, There

TIMEOUT_S = 20.0

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
    from google.cloud import vision

    feature = vision.Feature(type_=vision.Feature.Type.LABEL_DETECTION)
    request = vision.AnnotateImageRequest(image=vision.Image(content=image), features=[feature])
    reply = client.batch_annotate_images(
        requests=[request], retry=None, **{"timeout": TIMEOUT_S, **call}
    ).responses[0]
    if reply.error.code:
        raise AnnotationError(reply.error.code, reply.error.message)
    return [(label.description, label.score) for label in reply.label_annotations]


def azure(there: There, image: bytes, secret: str = SECRET) -> Labels:
    from azure.ai.vision.imageanalysis import ImageAnalysisClient
    from azure.ai.vision.imageanalysis.models import VisualFeatures
    from azure.core.credentials import AzureKeyCredential

    with ImageAnalysisClient(
        there.url, AzureKeyCredential(secret), retry_total=0, read_timeout=TIMEOUT_S
    ) as client:
        tags = client.analyze(image, [VisualFeatures.TAGS]).tags
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


def clarifai(there: There, image: bytes, secret: str = SECRET) -> Labels:
    from clarifai_grpc.channel.clarifai_channel import ClarifaiChannel  # type: ignore[import-untyped, unused-ignore]
    from clarifai_grpc.grpc.api import resources_pb2, service_pb2, service_pb2_grpc  # type: ignore[import-untyped, unused-ignore]
    from clarifai_grpc.grpc.api.status import status_code_pb2  # type: ignore[import-untyped, unused-ignore]

    stub = service_pb2_grpc.V2Stub(ClarifaiChannel.get_json_channel(base_url=there.url))
    data = resources_pb2.Data(image=resources_pb2.Image(base64=image))
    request = service_pb2.PostModelOutputsRequest(
        user_app_id=resources_pb2.UserAppIDSet(user_id="clarifai", app_id="main"),
        model_id="general-image-recognition",
        version_id="v1",
        inputs=[resources_pb2.Input(data=data)],
    )
    reply = stub.PostModelOutputs(request, metadata=(("authorization", f"Key {secret}"),))
    if reply.status.code != status_code_pb2.SUCCESS:
        raise AnnotationError(reply.status.code, reply.status.description)
    return [(concept.name, concept.value) for concept in reply.outputs[0].data.concepts]


def openai(there: There, image: bytes, secret: str = SECRET) -> Labels:
    from openai import OpenAI

    url = f"data:image/png;base64,{base64.b64encode(image).decode()}"
    with OpenAI(base_url=f"{there.url}/v1", api_key=secret, max_retries=0, timeout=TIMEOUT_S) as client:
        completion = client.chat.completions.create(
            model="vision",
            messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}],
        )
    label = completion.choices[0].message.content
    return [] if label is None else [(label, 1.0)]


ASKS: dict[str, Ask] = {
    "boto3": boto3,
    "google REST": google_rest,
    "google gRPC": google_grpc,
    "azure 4.0": azure,
    "azure 3.2": azure_32,
    "clarifai": clarifai,
    "openai": openai,
}
