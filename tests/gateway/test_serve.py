"""`smoothing-proxy serve`: the example configuration, a process of its own, its signals, and TLS."""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from smoothing_proxy.cli.app import app
from smoothing_proxy.gateway.settings import read_gateway_config
from tests.gateway.gateways import SECRET, There, picture, serving

EXAMPLE = Path(__file__).parents[2] / "configs" / "gateway.toml"

CONFIG = """
[gateway]
port = 0
drain_s = 5.0
[smoothing]
sigma = 0.25
[backend]
name = "scripted:cat"
"""
KEY = '[[keys]]\nid = "{0}"\nsecret_env = "KEY_OF_{0}"\n'
ENVIRON = {"KEY_OF_one": "the-first-secret-of-all", "KEY_OF_two": "the-second-secret-of-all"}


@contextmanager
def served(config: Path, within_s: float = 30.0) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The gateway as a user starts it: its address, and its process, which is gone at the end."""
    ready = config.with_suffix(".ready.json")
    command = [
        sys.executable,
        "-m",
        "smoothing_proxy",
        "serve",
        "--config",
        str(config),
        "--ready-file",
        str(ready),
    ]
    process = subprocess.Popen(
        command, env=os.environ | ENVIRON, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + within_s
        while not ready.exists():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield json.loads(ready.read_text())["url"], process
    finally:
        process.kill()
        process.communicate(timeout=10)


def status(url: str, secret: str, level: int = 100) -> int:
    headers = {"x-api-key": secret, "content-type": "image/png"}
    return httpx.post(f"{url}/v1/predict", content=picture(level, 32), headers=headers, timeout=20).status_code


def test_a_process_answers_reloads_its_keys_and_ends_with_its_log(tmp_path: Path) -> None:
    config = tmp_path / "gateway.toml"
    config.write_text(CONFIG + KEY.format("one"))
    with served(config) as (url, process):
        assert status(url, ENVIRON["KEY_OF_one"]) == 200
        assert status(url, ENVIRON["KEY_OF_two"]) == 401
        config.write_text(CONFIG + KEY.format("two"))
        process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + 10
        while status(url, ENVIRON["KEY_OF_two"], 101) != 200:
            assert time.monotonic() < deadline
        assert status(url, ENVIRON["KEY_OF_one"]) == 401
        config.write_text("[gateway")
        process.send_signal(signal.SIGHUP)
        assert status(url, ENVIRON["KEY_OF_two"]) == 200
        process.send_signal(signal.SIGTERM)
        output, log = process.communicate(timeout=20)
    assert process.returncode == 0
    assert output.startswith(f"gateway on {url}")
    lines = [json.loads(line) for line in log.splitlines()]
    answered = [line for line in lines if line.get("outcome") == "answered"]
    assert {line["key"] for line in answered} == {"one", "two"}
    assert "keys and limits were read anew" in {line["message"] for line in lines}
    assert not any(secret in log for secret in ENVIRON.values())


def test_the_example_configuration_is_read() -> None:
    config = read_gateway_config(EXAMPLE)
    assert [key.id for key in config.keys] == ["shop"]
    assert config.gateway.grpc_port is not None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (CONFIG, "nobody could ask"),
        (CONFIG + KEY.format("three"), "KEY_OF_three"),
        (CONFIG + KEY.format("one") * 2, "an id of its own"),
        (CONFIG.replace("drain_s", "drains"), "did you mean 'drain_s'"),
        (CONFIG.replace("port = 0", 'tls_cert = "x.pem"') + KEY.format("one"), "both are needed"),
        (CONFIG.replace("sigma = 0.25", "sigma = 25") + KEY.format("one"), "0..255"),
    ],
)
def test_a_configuration_that_cannot_work_is_refused(tmp_path: Path, text: str, said: str) -> None:
    config = tmp_path / "gateway.toml"
    config.write_text(text)
    result = CliRunner(env=ENVIRON).invoke(app, ["serve", "--config", str(config)])
    assert result.exit_code == 2
    assert said in result.output


def test_a_flag_takes_the_place_of_the_file(tmp_path: Path) -> None:
    config = tmp_path / "gateway.toml"
    config.write_text(CONFIG + KEY.format("one"))
    result = CliRunner(env=ENVIRON).invoke(app, ["serve", "--config", str(config), "--port", "70000"])
    assert result.exit_code == 2
    assert "port" in result.output


def certificate(folder: Path) -> tuple[Path, Path]:
    """PEM files of a certificate for this machine, signed by itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    names = x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1")), x509.DNSName("localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "gateway.crt", folder / "gateway.key"
    paths[0].write_bytes(made.public_bytes(Encoding.PEM))
    paths[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return paths


def test_both_ports_speak_tls(tmp_path: Path) -> None:
    import grpc  # type: ignore[import-untyped, unused-ignore]

    cert, key = certificate(tmp_path)
    with serving(tls_cert=cert, tls_key=key) as there:
        context = ssl.create_default_context(cafile=str(cert))
        headers = {"x-api-key": SECRET, "content-type": "image/png"}
        reply = httpx.post(
            f"{there.url}/v1/predict", content=picture(), headers=headers, verify=context, timeout=20
        )
        credentials = grpc.ssl_channel_credentials(cert.read_bytes())
        with grpc.secure_channel(f"127.0.0.1:{there.address.grpc_port}", credentials) as channel:
            labels = _labels(there, channel)
    assert reply.json()["label"] == labels[0] == "Dog"
    assert "strict-transport-security" in reply.headers


def _labels(there: There, channel: Any) -> list[str]:
    from google.cloud import vision
    from google.cloud.vision_v1.services.image_annotator.transports import ImageAnnotatorGrpcTransport

    client = vision.ImageAnnotatorClient(transport=ImageAnnotatorGrpcTransport(channel=channel))
    feature = vision.Feature(type_=vision.Feature.Type.LABEL_DETECTION)
    request = vision.AnnotateImageRequest(image=vision.Image(content=picture()), features=[feature])
    metadata = [("x-goog-api-key", SECRET)]
    reply = client.batch_annotate_images(requests=[request], retry=None, timeout=20, metadata=metadata)
    return [label.description for label in reply.responses[0].label_annotations]
