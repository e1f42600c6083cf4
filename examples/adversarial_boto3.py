"""One picture that fools a classifier in the cloud, asked about by boto3: directly, and through the gateway.

    python examples/adversarial_boto3.py [OUT.png]

It needs no key and no network: the vendor is a simulated AWS Rekognition on this machine, behind which a support
vector classifier reads handwritten digits. The only thing that differs between the two boto3 clients is the
endpoint (and the key). The gateway's proof comes in the headers of its answer: no picture nearer than that l2
distance is taken for another digit. The adversarial picture is nearer.

The black box looks at one pixel of each of 8 x 8 parts of a picture, so that changing these is enough. The gateway
makes the picture small by averaging, then noisy, and removes the noise, many times: a change of a few pixels does
not survive that, and the proof says of which size no change does, wherever it is.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smoothing_proxy.demo.adversarial import AdversarialDigit, adversarial_digit
from smoothing_proxy.demo.vendor import Vendor, vendor
from smoothing_proxy.images.codec import Encoding, encode
from smoothing_proxy.stats.rounding import rounded_down

DIGITS = (0, 100, 70)

START_S = 180.0

SETTINGS = """
[gateway]
port = 0
vendors = ["aws"]

[[keys]]
id = "shop"
secret_env = "GATEWAY_SECRET"
certify = true

[smoothing]
sigma = 0.5
working_size = "8x8"
target_radius = 0.25
max_queries = 1000

[backend]
name = "aws-rekognition"
region = "us-east-1"
endpoint = "{vendor}"

[denoiser]
name = "digits"

[transport]
requests_per_s = 10000
"""


@dataclass(frozen=True)
class Answer:
    """What boto3 got. headers: of the reply; the gateway's proof is there."""

    label: str
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Row:
    """A digit, and what is said of it clean and adversarial, by the vendor and by the gateway."""

    digit: AdversarialDigit
    vendor: tuple[Answer, Answer]
    gateway: tuple[Answer, Answer]

    @property
    def proven(self) -> str:
        """The l2 radius around the clean picture, rounded down."""
        return rounded_down(float(self.gateway[0].headers["x-smoothing-input-radius"]), 2)

    def __str__(self) -> str:
        said = [f"{clean.label}, then {adversarial.label}" for clean, adversarial in (self.vendor, self.gateway)]
        return (
            f"a {self.digit.label}, and a change of l2 {self.digit.l2:.3f}\n  vendor:  {said[0]}\n"
            f"  gateway: {said[1]}; the first is proven within l2 {self.proven}"
        )


def client(url: str, key_id: str, secret: str) -> Any:
    """boto3 as anybody has it: only the endpoint is changed."""
    import boto3

    return boto3.client(
        "rekognition",
        endpoint_url=url,
        aws_access_key_id=key_id,
        aws_secret_access_key=secret,
        region_name="us-east-1",
    )


def ask(rekognition: Any, pixels: Any) -> Answer:
    """DetectLabels of uint8 [h, w, 3]; the first label."""
    reply = rekognition.detect_labels(Image={"Bytes": encode(pixels, Encoding("png")).data}, MinConfidence=0)
    label = reply["Labels"][0]["Name"] if reply["Labels"] else "(abstains)"
    return Answer(label, reply["ResponseMetadata"]["HTTPHeaders"])


@contextmanager
def gateway(behind: Vendor, secret: str) -> Iterator[str]:
    """`smoothing-proxy serve` before the vendor, as a user starts it; its address."""
    with tempfile.TemporaryDirectory() as folder:
        config, ready = Path(folder) / "gateway.toml", Path(folder) / "ready.json"
        config.write_text(SETTINGS.format(vendor=behind.url), encoding="utf-8")
        command = ["-m", "smoothing_proxy", "serve", "--config", str(config), "--ready-file", str(ready)]
        process = subprocess.Popen(  # noqa: S603 (this package itself)
            [sys.executable, *command, "--log-level", "error"],
            env={**os.environ, **behind.environment, "GATEWAY_SECRET": secret},
            stdout=subprocess.DEVNULL,
        )
        try:
            deadline = time.monotonic() + START_S
            while not ready.exists():
                if process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit("the gateway did not start")
                time.sleep(0.05)
            yield _url(ready)
        finally:
            process.terminate()
            process.wait(timeout=60)


def _url(ready: Path) -> str:
    import json

    return str(json.loads(ready.read_text(encoding="utf-8"))["url"])


def draw(rows: list[Row], path: Path) -> None:
    """Clean, adversarial, and their difference ten times as strong; under each who says what."""
    import numpy as np
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.6, 2.75 * len(rows) + 0.4), dpi=110)
    grid = figure.subplots(len(rows), 3, squeeze=False)
    for cells, row in zip(grid, rows, strict=True):
        digit = row.digit
        change = digit.adversarial.astype(np.float64) - digit.clean.astype(np.float64)
        said = [
            f"vendor: {vendor.label}   gateway: {gateway.label}"
            for vendor, gateway in zip(row.vendor, row.gateway, strict=True)
        ]
        shown = (
            (digit.clean, f"clean\n{said[0]}", "#1b7f3b"),
            (digit.adversarial, f"adversarial\n{said[1]}", "#b3261e"),
            (
                np.clip(127.5 + 10 * change, 0, 255).astype(np.uint8),
                f"difference x 10\nl2 {digit.l2:.2f}",
                "black",
            ),
        )
        for axes, (pixels, text, colour) in zip(cells, shown, strict=True):
            axes.imshow(pixels, interpolation="nearest")
            axes.set_xticks([])
            axes.set_yticks([])
            axes.set_xlabel(text, color=colour, fontsize=9)
        cells[0].set_ylabel(f"gateway's proof:\n{row.gateway[0].label} within l2 {row.proven}", fontsize=9)
    figure.suptitle("The same pictures through boto3, to the vendor and to the gateway before it", fontsize=10)
    figure.tight_layout()
    figure.savefig(path)


def main(path: Path) -> None:
    """Ask both endpoints about both pictures of a few digits, print what they say, and draw it."""
    secret = secrets.token_urlsafe(24)
    rows = []
    with vendor() as behind, gateway(behind, secret) as address:
        keys = behind.environment
        bare = client(behind.url, keys["AWS_ACCESS_KEY_ID"], keys["AWS_SECRET_ACCESS_KEY"])
        hardened = client(address, "shop", secret)
        for number in DIGITS:
            digit = adversarial_digit(number)
            rows.append(
                Row(
                    digit,
                    (ask(bare, digit.clean), ask(bare, digit.adversarial)),
                    (ask(hardened, digit.clean), ask(hardened, digit.adversarial)),
                )
            )
            print(rows[-1])
        bare.close()
        hardened.close()
    draw(rows, path)
    print(f"picture: {path}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "adversarial.png"))
