"""Each vendor's own SDK, its retries off, asking one picture: the best label, or the SDK's own exception."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

from tests.simulator.processes import Simulation

TIMEOUT_S = 5.0

Ask = Callable[[Simulation, bytes, str], str | None]
"""(simulation, picture, secret) -> label; None for a reply without labels."""


class AnnotationError(Exception):
    """An error that stands in a reply, where the SDK leaves it. code: the vendor's."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


def boto3(there: Simulation, image: bytes, secret: str) -> str | None:
    import boto3  # type: ignore[import-untyped, unused-ignore]
    from botocore.config import Config  # type: ignore[import-untyped, unused-ignore]

    config = Config(retries={"total_max_attempts": 1, "mode": "standard"}, read_timeout=TIMEOUT_S)
    client = boto3.client(
        "rekognition",
        endpoint_url=there.url,
        aws_access_key_id="simulator",
        aws_secret_access_key=secret,
        region_name="us-east-1",
        config=config,
    )
    try:
        labels = client.detect_labels(Image={"Bytes": image}, MinConfidence=0)["Labels"]
    finally:
        client.close()
    return labels[0]["Name"] if labels else None


def openai(there: Simulation, image: bytes, secret: str) -> str | None:
    from openai import OpenAI

    url = f"data:image/png;base64,{base64.b64encode(image).decode()}"
    with OpenAI(base_url=f"{there.url}/v1", api_key=secret, max_retries=0, timeout=TIMEOUT_S) as client:
        completion = client.chat.completions.create(
            model="vision",
            messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}],
        )
    return completion.choices[0].message.content


def azure(there: Simulation, image: bytes, secret: str) -> str | None:
    from azure.ai.vision.imageanalysis import ImageAnalysisClient
    from azure.ai.vision.imageanalysis.models import VisualFeatures
    from azure.core.credentials import AzureKeyCredential

    with ImageAnalysisClient(
        there.url, AzureKeyCredential(secret), retry_total=0, read_timeout=TIMEOUT_S
    ) as client:
        tags = client.analyze(image, [VisualFeatures.TAGS]).tags
    return tags.list[0].name if tags is not None and tags.list else None


def google_rest(there: Simulation, image: bytes, secret: str) -> str | None:
    from google.api_core.client_options import ClientOptions
    from google.cloud import vision

    options = ClientOptions(api_endpoint=there.url, api_key=secret)
    with vision.ImageAnnotatorClient(client_options=options, transport="rest") as client:
        return _annotated(client, image)


def google_grpc(there: Simulation, image: bytes, secret: str) -> str | None:
    import grpc  # type: ignore[import-untyped, unused-ignore]
    from google.cloud import vision
    from google.cloud.vision_v1.services.image_annotator.transports import ImageAnnotatorGrpcTransport

    with grpc.insecure_channel(f"127.0.0.1:{there.grpc_port}") as channel:
        client = vision.ImageAnnotatorClient(transport=ImageAnnotatorGrpcTransport(channel=channel))
        return _annotated(client, image, metadata=[("x-goog-api-key", secret)])


def _annotated(client: Any, image: bytes, **call: Any) -> str | None:
    from google.cloud import vision

    feature = vision.Feature(type_=vision.Feature.Type.LABEL_DETECTION)
    request = vision.AnnotateImageRequest(image=vision.Image(content=image), features=[feature])
    reply = client.batch_annotate_images(requests=[request], retry=None, timeout=TIMEOUT_S, **call).responses[0]
    if reply.error.code:
        raise AnnotationError(reply.error.code, reply.error.message)
    return reply.label_annotations[0].description if reply.label_annotations else None


def clarifai(there: Simulation, image: bytes, secret: str) -> str | None:
    """Over its HTTP channel, which has no limit of time of its own."""
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
    concepts = reply.outputs[0].data.concepts
    return concepts[0].name if concepts else None
