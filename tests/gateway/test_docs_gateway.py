"""What README and the gateway's page tell people to type, typed: only ports are changed."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from smoothing_proxy.gateway.settings import GatewayConfig
from smoothing_proxy.settings_file import parse_settings
from tests.gateway.gateways import picture

ROOT = Path(__file__).parents[2]
README, PAGE, KEYS_PAGE = ROOT / "README.md", ROOT / "docs" / "gateway.md", ROOT / "docs" / "gateway-keys.md"
ADMIN_KEY = "the-admin-key-of-the-documentation-0123456789"

PROGRAM = """
import boto3
client = boto3.client("rekognition", region_name="eu-west-1")
reply = client.detect_labels(Image={"Bytes": open("photo.png", "rb").read()})
print(reply["Labels"][0]["Name"], reply["ResponseMetadata"]["HTTPHeaders"]["x-smoothing-label"])
"""


def block(page: Path, language: str, holding: str) -> str:
    """The one fenced block in this language that holds the text."""
    found = re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    (wanted,) = [text for text in found if holding in text]
    return str(wanted)


@contextmanager
def free_ports(*usual: int) -> Iterator[dict[int, int]]:
    """Ports that nobody has at present, for those in the text."""
    with ExitStack() as sockets:
        free = [sockets.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in usual]
        found = {port: one.getsockname()[1] for port, one in zip(usual, free, strict=True)}
    yield found


def ported(text: str, ports: Mapping[int, int]) -> str:
    return re.sub(r"\b(8\d{3})\b", lambda port: str(ports.get(int(port[0]), port[0])), text)


@contextmanager
def typed(text: str, folder: Path, **environ: str) -> Iterator[str]:
    """What the commands print; what they leave in the background is there until the block ends."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    # What stays in the background has its own files, so that the shell's end is the output's end.
    quiet = re.sub(r" &(\s*#.*)?$", " >>background.log 2>&1 &", text, flags=re.MULTILINE)
    shell = subprocess.Popen(
        ["bash", "-e", "-u", "-o", "pipefail", "-c", quiet],
        cwd=folder,
        env={**os.environ, "PATH": path, **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = shell.communicate(timeout=120)
        log = folder / "background.log"
        assert shell.returncode == 0, output + (log.read_text() if log.exists() else "")
        yield output
    finally:
        with suppress(ProcessLookupError):  # of commands that left nothing behind
            os.killpg(shell.pid, signal.SIGKILL)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "photo.png").write_bytes(picture(100, 96))
    (tmp_path / "your_program.py").write_text(PROGRAM)
    return tmp_path


def test_the_readmes_gateway_works_as_it_is_written(folder: Path) -> None:
    with free_ports(8080, 8081) as ports:
        (folder / "configs").mkdir()
        config = ported((ROOT / "configs" / "gateway.toml").read_text(), ports)
        (folder / "configs" / "gateway.toml").write_text(config)
        with typed(ported(block(README, "console", "configs/gateway.toml"), ports), folder) as output:
            assert output.splitlines()[-1] == "cat cat"


def test_the_pages_gateway_works_as_it_is_written(folder: Path) -> None:
    """Its table [admin] and its commands, too, beside the configuration of the start."""
    asking = block(PAGE, "console", "/v1/predict").replace("\\\n", "").splitlines()
    administering = block(PAGE, "console", "/v1/admin/spend").replace("\\\n", "").splitlines()
    starting = block(PAGE, "console", "simulate aws")
    starting = starting.replace("\nEND\n", "\n" + block(PAGE, "toml", "[admin]") + "END\n", 1)
    with (
        free_ports(8080, 8000) as ports,
        typed(ported(starting, ports), folder, GATEWAY_ADMIN_KEY=ADMIN_KEY) as made,
    ):
        (token,) = re.findall(r"^key: (\S+)$", made, re.MULTILINE)
        pair = dict(re.findall(r"^(AWS_\w+)=(\S+)$", made, re.MULTILINE))
        predicted, certified, streamed, document = (_typed(line, ports, folder, KEY=token) for line in asking)
        assert json.loads(predicted)["label"] == "cat"
        assert json.loads(certified)["radius"] >= 0.25
        events = re.findall(r"^event: (\w+)$", streamed, re.MULTILINE)
        assert (events[0], events[-1]) == ("votes", "verdict")
        assert json.loads(streamed.splitlines()[-2].removeprefix("data: "))["radius"] >= 0.4
        assert "/v1/predict" in json.loads(document)["paths"]

        url = f"http://127.0.0.1:{ports[8080]}"
        boto3 = {**pair, "AWS_ENDPOINT_URL_REKOGNITION": url}
        assert _typed("python your_program.py", ports, folder, **boto3).splitlines() == ["cat cat"]

        told = [json.loads(_typed(line, ports, folder, GATEWAY_ADMIN_KEY=ADMIN_KEY)) for line in administering]
        listed, new, changed, rotated, disabled, enabled, spent = told
        assert {key["name"] for key in listed["keys"]} == {"shop", "curl"}
        assert new["secret"] != rotated["secret"]
        assert (changed["usd_limit"], changed["parallel"]) == (None, 4)
        assert (disabled["disabled"], enabled["disabled"]) == (True, False)
        assert spent["spend"][0]["name"] == "ann"


def _typed(line: str, ports: Mapping[int, int], folder: Path, **environ: str) -> str:
    with typed(ported(line, ports), folder, **environ) as output:
        return output


TABLES = [
    (page.name, text)
    for page in (PAGE, KEYS_PAGE)
    for text in re.findall(r"^```toml\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
]


@pytest.mark.parametrize(("page", "text"), TABLES, ids=[text.splitlines()[0] for _, text in TABLES])
def test_every_table_of_the_pages_is_read(page: str, text: str) -> None:
    import tomllib

    usual = {"smoothing": {"sigma": 0.25}, "backend": {"name": "scripted:cat"}, "store": {"address": "gateway.db"}}
    tables = tomllib.loads(text)
    config = parse_settings(GatewayConfig, {**usual, **tables}, source=page)
    assert tables
    assert set(tables) <= config.model_fields_set
