"""A picture that flips the unhardened answer and not the hardened one, both asked for by boto3."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from anyio.from_thread import start_blocking_portal

from smoothing_proxy.backends.local.callable import Function, callable_backend
from smoothing_proxy.demo.adversarial import adversarial_digit
from smoothing_proxy.demo.digits import read_digits
from smoothing_proxy.demo.vendor import Vendor
from smoothing_proxy.denoisers.registry import denoiser
from smoothing_proxy.denoisers.shipped import shipped_cards
from smoothing_proxy.errors import ConfigError
from smoothing_proxy.images.codec import Encoding, encode
from smoothing_proxy.simulator.server import running
from smoothing_proxy.simulator.settings import SimulatorSettings
from smoothing_proxy.smoothing.settings import Smoothing
from smoothing_proxy.transport.settings import TransportSettings
from smoothing_proxy.wire.aws import AwsWire
from tests.gateway.gateways import KEY_ID, SECRET, serving
from tests.gateway.photographs import NAMES, Pixels, attacked, classify, enlarged, photograph, resnet

PROOF = "x-smoothing-"
RADIUS = 0.25


@contextmanager
def boto3_at(url: str, key_id: str, secret: str) -> Iterator[Any]:
    import boto3  # type: ignore[import-untyped, unused-ignore]
    from botocore.config import Config  # type: ignore[import-untyped, unused-ignore]

    client = boto3.client(
        "rekognition",
        endpoint_url=url,
        aws_access_key_id=key_id,
        aws_secret_access_key=secret,
        region_name="us-east-1",
        config=Config(retries={"total_max_attempts": 1, "mode": "standard"}, read_timeout=60),
    )
    try:
        yield client
    finally:
        client.close()


def ask(client: Any, pixels: Pixels) -> tuple[str, dict[str, str]]:
    """The first label, and the reply's headers."""
    reply = client.detect_labels(Image={"Bytes": encode(pixels, Encoding("png")).data}, MinConfidence=0)
    return reply["Labels"][0]["Name"], reply["ResponseMetadata"]["HTTPHeaders"]


@contextmanager
def both(classifier: Function, smoothing: Smoothing, denoiser_name: str) -> Iterator[tuple[Any, Any]]:
    """boto3 at a simulated Rekognition with this classifier, and boto3 at a gateway before it."""
    settings = SimulatorSettings()
    secret = settings.secret.get_secret_value()
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(running(settings, AwsWire(), callable_backend(classifier))) as vendor,
        boto3_at(vendor.url, settings.key_id, secret) as bare,
    ):
        keys = {
            "AWS_ACCESS_KEY_ID": settings.key_id,
            "AWS_SECRET_ACCESS_KEY": secret,
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        backend = Vendor(vendor.url, keys).backend()
        quick = TransportSettings(requests_per_s=10_000)
        with (
            serving(backend, smoothing=smoothing, denoiser=denoiser(denoiser_name), transport=quick) as there,
            boto3_at(there.url, KEY_ID, SECRET) as hardened,
        ):
            certify_all(hardened)
            try:
                yield bare, hardened
            finally:
                there.portal.call(backend.aclose)


def certify_all(client: Any) -> None:
    """Have this client ask for a radius."""

    def add(params: dict[str, Any], **_: Any) -> None:
        params["headers"]["x-smoothing-target-radius"] = str(RADIUS)

    client.meta.events.register("before-call.rekognition.DetectLabels", add)


def check_flip(asked: tuple[Any, Any], clean: Pixels, adversarial: Pixels, label: str) -> None:
    """The vendor is fooled and the gateway is not, by a change within what the gateway has proven."""
    bare, hardened = asked
    l2 = float(np.linalg.norm((adversarial.astype(float) - clean.astype(float)) / 255))
    assert ask(bare, clean)[0] == label
    assert ask(bare, adversarial)[0] != label

    answer, proof = ask(hardened, clean)
    assert answer == proof[f"{PROOF}label"] == label
    assert (proof[f"{PROOF}abstain"], float(proof[f"{PROOF}radius"])) == ("false", RADIUS)
    assert 0 < l2 <= float(proof[f"{PROOF}input-radius"])
    assert ask(hardened, adversarial)[0] == label


def test_adversarial_digits_fool_the_vendor_and_not_the_gateway_before_it() -> None:
    pytest.importorskip("sklearn", reason="the digits come from scikit-learn")
    smoothing = Smoothing(sigma=0.5, working_size="8x8", target_radius=RADIUS)
    with both(read_digits, smoothing, "digits") as asked:
        for number in (0, 100):
            digit = adversarial_digit(number)
            assert digit.taken_for != digit.label
            check_flip(asked, digit.clean, digit.adversarial, digit.label)


def test_a_photograph_that_gradients_have_changed_fools_the_vendor_and_not_the_gateway(shared_data: Path) -> None:
    if "cifar10" not in shipped_cards():
        pytest.skip("no denoiser for such photographs is shipped")
    smoothing = Smoothing(sigma=0.25, working_size="32x32", target_radius=RADIUS)
    network = resnet(shared_data)
    clean = photograph(shared_data, "test/airplane/0500.jpg")
    adversarial = attacked(network, clean, NAMES.index("airplane"))
    with both(partial(classify, network), smoothing, "cifar10") as asked:
        check_flip(asked, enlarged(clean), enlarged(adversarial), "airplane")


@pytest.mark.parametrize(
    ("number", "side_px", "said"),
    [(1, 80, "no test digit"), (1_800, 80, "no test digit"), (0, 81, "a multiple of 8")],
)
def test_a_digit_that_cannot_be_attacked_is_refused(number: int, side_px: int, said: str) -> None:
    pytest.importorskip("sklearn", reason="the digits come from scikit-learn")
    with pytest.raises(ConfigError, match=said):
        adversarial_digit(number, side_px)
