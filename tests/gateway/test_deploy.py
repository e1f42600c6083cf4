"""What a gateway is run with: the image, the composition and the unit name only what is there.

No container is started here, since no engine is needed for the tests: the files are read, and what they run is
parsed by the very command line that they call.
"""

from __future__ import annotations

import configparser
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import pytest

from smoothing_proxy.cli.app import app
from smoothing_proxy.gateway.settings import GatewayConfig, read_gateway_config
from tests.gateway.gateways import serving
from tests.gateway.test_serve import certificate

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"


def parsed(*arguments: str) -> Mapping[str, Any]:
    """The options of a command, as the command line takes them; it ends the test where it does not."""
    command: click.Command = app
    left = list(arguments)
    while isinstance(command, click.Group):
        context = click.Context(command)
        known = command.list_commands(context)
        at = next(i for i, word in enumerate(left) if word in known)
        command.make_context("group", left[: at + 1])
        found = command.get_command(context, left[at])
        assert found is not None
        command, left = found, left[at + 1 :]
    return dict(command.make_context("command", left).params)


def instructions() -> list[tuple[str, str]]:
    """Of the Dockerfile, with lines that go on put together."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    pairs = (line.split(maxsplit=1) for line in text.splitlines() if line.strip())
    return [(name, rest) for name, rest in pairs]


def the(name: str) -> str:
    """The last instruction of this name."""
    return [rest for found, rest in instructions() if found == name][-1]


def test_the_image_is_made_of_this_repository_alone() -> None:
    stages = [rest.split(" AS ") for name, rest in instructions() if name == "FROM"]
    assert len(stages) == 2
    assert all(stage[0].startswith("python:${PYTHON}-slim") for stage in stages)
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    copied = [part for name, rest in instructions() if name == "COPY" for part in rest.split()[:-1]]
    from_here = [part for part in copied if not part.startswith(("--", "/"))]
    assert {"pyproject.toml", "smoothing_proxy", "denoiser_training", "LICENSE", "README.md"} <= set(from_here)
    for source in from_here:
        assert (ROOT / source).exists(), source
        assert f"!{source}" in ignored, source
    assert ignored[1] == "*"


def test_the_image_runs_the_gateway_as_nobody_and_is_looked_after() -> None:
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", the("USER"))
    names = [name for name, _ in instructions()]
    assert names.index("USER") > max(i for i, name in enumerate(names) if name in ("COPY", "RUN"))
    assert the("STOPSIGNAL") == "SIGTERM"
    entry, command = json.loads(the("ENTRYPOINT")), json.loads(the("CMD"))
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert entry[0] in scripts
    options = parsed(*entry[1:], *command)
    assert (options["config_path"], options["host"]) == (Path("/etc/smoothing-proxy/gateway.toml"), "0.0.0.0")
    check = json.loads(the("HEALTHCHECK").partition("CMD")[2])
    assert check[:2] == ["python", "-c"]
    compile(check[2], "HEALTHCHECK", "exec")
    assert the("ENV") == "HEALTH_URL=http://127.0.0.1:8080/health/live"


def healthy(url: str) -> bool:
    """What the image's own look at the gateway says, told where it is."""
    program = json.loads(the("HEALTHCHECK").partition("CMD")[2])[2]
    environ = {**os.environ, "HEALTH_URL": url, "http_proxy": "http://127.0.0.1:9"}
    return not subprocess.run(
        [sys.executable, "-c", program], env=environ, capture_output=True, timeout=30, check=False
    ).returncode


def test_the_image_sees_whether_the_gateway_is_well_by_http_and_by_tls(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    with serving() as plain:
        assert healthy(f"{plain.url}/health/live")
        assert not healthy(f"{plain.url}/health/nothing-here")
    assert not healthy(f"{plain.url}/health/live")
    with serving(tls_cert=cert, tls_key=key) as secured:
        assert secured.url.startswith("https://")
        assert healthy(f"{secured.url}/health/live"), "its certificate is nobody's whom this machine trusts"


def test_the_extras_of_the_image_are_known() -> None:
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    (extras,) = [rest.partition("=")[2] for name, rest in instructions() if name == "ARG" and "EXTRAS" in rest]
    assert set(extras.split(",")) <= set(known)


@pytest.fixture
def services() -> dict[str, Any]:
    yaml: Any = pytest.importorskip("yaml")
    found: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    return found


def test_every_part_of_the_composition_is_there(services: dict[str, Any]) -> None:
    for name, service in services.items():
        for needed, how in service.get("depends_on", {}).items():
            assert needed in services, f"{name} waits for {needed}"
            if how["condition"] == "service_healthy":
                check = services[needed].get("healthcheck", {"build": services[needed].get("build")})
                assert any(check.values()), needed
                assert not check.get("disable"), needed
        for volume in service.get("volumes", []):
            source = volume.partition(":")[0]
            assert not source.startswith(".") or (ROOT / source).is_file(), volume
    ours = [service for service in services.values() if service.get("build")]
    assert len(ours) == 4
    assert all(service["read_only"] and service["cap_drop"] == ["ALL"] for service in ours)
    assert services["gateway"]["deploy"]["replicas"] == 2
    assert not services["postgres"].get("ports"), "nobody else reaches the database"


def commands(script: str) -> Iterator[list[str]]:
    """The arguments of each smoothing-proxy in a shell script."""
    words = shlex.split(script, posix=True)
    starts = [i for i, word in enumerate(words) if word == "smoothing-proxy"]
    for start in starts:
        ends = [i for i in range(start, len(words)) if words[i] in ("|", "||", "&&", ";")]
        yield words[start + 1 : min(ends, default=len(words))]


def test_the_commands_of_the_composition_are_understood(services: dict[str, Any]) -> None:
    simulated = parsed(*services["simulator"]["command"])
    assert (simulated["vendor"], simulated["backend"], simulated["host"]) == ("aws", "scripted:cat", "0.0.0.0")
    listed, made = commands(services["key"]["command"][0])
    assert parsed(*listed)["as_json"] is True
    assert (parsed(*made)["name"], parsed(*made)["vendor"]) == ("shop", "aws")


def test_the_composition_and_its_configuration_fit_together(
    services: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    config: GatewayConfig = read_gateway_config(DEPLOY / "gateway.toml")
    environment = services["gateway"]["environment"]
    assert config.store is not None
    assert config.store.address_in(environment).startswith("postgresql://gateway:")
    assert {volume.split(":")[1] for volume in services["gateway"]["volumes"]} == {
        "/etc/smoothing-proxy/gateway.toml",
        str(Path(config.store.master_key_file).parent),
    }
    port = services["simulator"]["command"][services["simulator"]["command"].index("--port") + 1]
    assert config.backend.options["endpoint"] == f"http://simulator:{port}"
    for name, value in environment.items():
        monkeypatch.setenv(name, re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value))
    from smoothing_proxy.assembly import make_classifier

    assert make_classifier(config).backend.name == "aws-rekognition"
    nginx = (DEPLOY / "nginx.conf").read_text()
    assert f"server gateway:{config.gateway.port} resolve;" in nginx
    assert f"server gateway:{config.gateway.grpc_port} resolve;" in nginx
    assert nginx.count("{") == nginx.count("}")


def test_the_proxy_asks_for_the_replicas_addresses_again_and_again() -> None:
    nginx = (DEPLOY / "nginx.conf").read_text()
    upstreams = re.findall(r"upstream (\w+) \{(.*?)\}", nginx, re.DOTALL)
    assert [name for name, _ in upstreams] == ["replicas", "replicas_grpc"]
    for name, body in upstreams:
        assert f"zone {name} " in body
        assert re.findall(r"server \S+ (.*?);", body) == ["resolve"]
    assert re.search(r"^    resolver 127\.0\.0\.11 ", nginx, re.MULTILINE), "docker's own"


def unit() -> configparser.RawConfigParser:
    """The unit; of keys that stand there twice, the last."""
    read = configparser.RawConfigParser(strict=False, interpolation=None)
    read.optionxform = str  # type: ignore[assignment,method-assign]
    read.read(DEPLOY / "smoothing-proxy.service")
    return read


def test_the_unit_runs_the_gateway_and_shuts_it_in() -> None:
    service = unit()["Service"]
    program, *arguments = shlex.split(service["ExecStart"])
    assert Path(program).name == "smoothing-proxy"
    assert parsed(*arguments)["config_path"] == Path("/etc/smoothing-proxy/gateway.toml")
    assert service["ExecReload"].split()[:2] == ["/bin/kill", "-HUP"]
    shut = {"DynamicUser": "yes", "ProtectSystem": "strict", "NoNewPrivileges": "yes", "CapabilityBoundingSet": ""}
    assert {name: service[name] for name in shut} == shut
    drain_s = read_gateway_config(ROOT / "configs" / "gateway.toml").gateway.drain_s
    assert float(service["TimeoutStopSec"]) > drain_s


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze on this machine")
def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    text = (DEPLOY / "smoothing-proxy.service").read_text()
    there = tmp_path / "smoothing-proxy.service"
    there.write_text(text.replace("/opt/smoothing-proxy/bin/smoothing-proxy", sys.executable))
    done = subprocess.run(
        ["systemd-analyze", "verify", there], capture_output=True, text=True, timeout=60, check=False
    )
    said = [line for line in done.stderr.splitlines() if "smoothing-proxy" in line]
    assert (done.returncode, said) == (0, [])
