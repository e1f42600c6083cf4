"""The vendors that can be simulated, and how each one's SDK is pointed at a simulator."""

from __future__ import annotations

from importlib import import_module

from smoothing_proxy.errors import ConfigError, nearest
from smoothing_proxy.wire.base import Wire

__all__ = ["VENDORS", "environment", "grpc_hint", "speaks_grpc", "vendor_wire"]

_WIRES = {
    "aws": "smoothing_proxy.wire.aws:AwsWire",
    "azure": "smoothing_proxy.wire.azure:AzureWire",
    "clarifai": "smoothing_proxy.wire.clarifai:ClarifaiWire",
    "google": "smoothing_proxy.wire.google:GoogleWire",
    "openai": "smoothing_proxy.wire.openai:OpenAiWire",
}

VENDORS = tuple(_WIRES)


def vendor_wire(name: str) -> Wire:
    """The wire format of a vendor. Raises ConfigError for a name that is none of VENDORS."""
    if name not in _WIRES:
        raise ConfigError(f"no vendor is named {name!r}{nearest(name, VENDORS)}")
    module, _, kind = _WIRES[name].partition(":")
    wire: Wire = getattr(import_module(module), kind)()
    return wire


def speaks_grpc(name: str) -> bool:
    """Whether the vendor's SDK asks by gRPC unless it is told otherwise."""
    return name == "google"


def environment(name: str, url: str, key_id: str, secret: str) -> dict[str, str]:
    """What the vendor's own SDK reads from the environment to ask the simulator at `url`; {} where it reads none.

    Azure's and Google's read no address; Azure's own samples use these two names.
    """
    if name == "aws":
        return {
            "AWS_ENDPOINT_URL_REKOGNITION": url,
            "AWS_ACCESS_KEY_ID": key_id,
            "AWS_SECRET_ACCESS_KEY": secret,
            "AWS_DEFAULT_REGION": "us-east-1",
        }
    if name == "azure":
        return {"VISION_ENDPOINT": url, "VISION_KEY": secret}
    if name == "clarifai":
        return {"CLARIFAI_API_BASE": url, "CLARIFAI_PAT": secret}
    if name == "openai":
        return {"OPENAI_BASE_URL": f"{url}/v1", "OPENAI_API_KEY": secret}
    return {}


def grpc_hint(url: str, grpc_address: str, secret: str) -> list[str]:
    """How Google's client is pointed at the simulator: it reads no address from the environment."""
    rest = f'client_options=ClientOptions(api_endpoint="{url}", api_key="{secret}")'
    grpc = f'grpc.insecure_channel("{grpc_address}")'
    return [
        f'ImageAnnotatorClient(transport="rest", {rest})',
        f"ImageAnnotatorClient(transport=ImageAnnotatorGrpcTransport(channel={grpc}))",
    ]
