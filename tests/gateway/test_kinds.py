"""Each vendor's own SDK, through the gateway, from a simulated vendor of its own kind and of another one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import pytest
from anyio.from_thread import start_blocking_portal

from smoothing_proxy.backends.aws_rekognition import AwsRekognition
from smoothing_proxy.backends.azure_vision import AzureVision
from smoothing_proxy.backends.base import Backend
from smoothing_proxy.backends.clarifai import Clarifai
from smoothing_proxy.backends.google_vision import GoogleVision
from smoothing_proxy.backends.openai_vision import OpenAiVision
from smoothing_proxy.backends.scripted import ScriptedBackend
from smoothing_proxy.simulator.server import Address, running
from smoothing_proxy.simulator.settings import SimulatorSettings
from smoothing_proxy.simulator.vendors import vendor_wire
from smoothing_proxy.transport.settings import TransportSettings
from tests.gateway import sdks
from tests.gateway.gateways import KEY_ID, There, by_level, picture, serving

SECRET = "simulator-secret"
ENVIRON = {"KEY": SECRET}
FEWEST = 12
"""Queries that no answer with a proof comes from fewer of."""

BACKENDS: Mapping[str, Callable[[Address], Backend]] = {
    "aws": lambda at: AwsRekognition(region="eu-west-1", endpoint=at.url),
    "google": lambda at: GoogleVision(api_key_env="KEY", endpoint=at.grpc, insecure=True, environ=ENVIRON),
    "azure 4.0": lambda at: AzureVision(endpoint=at.url, key_env="KEY", environ=ENVIRON),
    "azure 3.2": lambda at: AzureVision(endpoint=at.url, key_env="KEY", version="3.2", environ=ENVIRON),
    "clarifai": lambda at: Clarifai(
        user_id="clarifai",
        app_id="main",
        model_id="general-image-recognition",
        model_version="v1",
        pat_env="KEY",
        base_url=at.url,
        environ=ENVIRON,
    ),
    "openai": lambda at: OpenAiVision(
        base_url=at.url,
        model="m",
        labels=("light", "dark"),
        key_env="KEY",
        price_usd_per_1000=1.0,
        environ=ENVIRON,
    ),
}


@dataclass(frozen=True)
class Pair:
    """A gateway, and the simulated vendor behind it."""

    there: There
    vendor: Address

    def books(self) -> tuple[int, int]:
        """What the gateway's key has spent, and what the vendor has billed."""
        billed: int = self.vendor.simulator.till.report(by_picture=False)["billed"]
        return self.there.store.spent(KEY_ID), billed


@contextmanager
def before(name: str) -> Iterator[Pair]:
    """A gateway before this vendor."""
    wire = vendor_wire(name.partition(" ")[0])
    with start_blocking_portal() as portal:
        service = running(SimulatorSettings(), wire, ScriptedBackend(by_level, batch_size=8))
        with portal.wrap_async_context_manager(service) as vendor:
            backend = BACKENDS[name](vendor)
            with serving(backend, transport=TransportSettings(requests_per_s=1_000), verdict_ttl_s=0) as there:
                yield Pair(there, vendor)
                there.portal.call(backend.aclose)


@pytest.fixture(scope="module")
def pairs() -> Iterator[Callable[[str], Pair]]:
    """By the vendor behind, each started when it is first asked for."""
    with ExitStack() as stack, pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_ACCESS_KEY_ID", "simulator")
        environment.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        started: dict[str, Pair] = {}

        def pair(name: str) -> Pair:
            if name not in started:
                started[name] = stack.enter_context(before(name))
            return started[name]

        yield pair


KINDS = [
    # SDK, its own kind, another one
    ("boto3", "aws", "openai"),
    ("google REST", "google", "azure 4.0"),
    ("google gRPC", "google", "clarifai"),
    ("google async", "google", "aws"),
    ("azure 4.0", "azure 4.0", "google"),
    ("azure 4.0 async", "azure 4.0", "clarifai"),
    ("azure 3.2", "azure 3.2", "aws"),
    ("clarifai", "clarifai", "google"),
    ("openai", "openai", "azure 3.2"),
]
CASES = [(sdk, kind) for sdk, own, other in KINDS for kind in (own, other)]


@pytest.mark.parametrize(("sdk", "vendor"), CASES, ids=[f"{sdk} before {vendor}" for sdk, vendor in CASES])
def test_an_sdk_gets_a_hardened_reply_and_pays_what_the_vendor_bills(
    pairs: Callable[[str], Pair], sdk: str, vendor: str
) -> None:
    pair = pairs(vendor)
    spent, billed = pair.books()
    labels = sdks.ASKS[sdk](pair.there, picture(200 + list(sdks.ASKS).index(sdk)))
    one_label = "openai" in (sdk, vendor)  # of certainty 1, since it tells none
    expected = [("light", 1.0)] if one_label else [("light", 0.8), ("shade", 0.6)]
    assert [label for label, _ in labels] == [label for label, _ in expected]
    assert [score for _, score in labels] == pytest.approx([score for _, score in expected])
    spent, billed = pair.books()[0] - spent, pair.books()[1] - billed
    assert spent == billed >= FEWEST


def test_every_sdk_and_every_vendor_is_in_the_table() -> None:
    assert {sdk for sdk, _, _ in KINDS} == set(sdks.ASKS)
    assert {own for _, own, _ in KINDS} == {other for _, _, other in KINDS} == set(BACKENDS)
