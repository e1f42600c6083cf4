"""The command as a user runs it, in a process of its own, asked by the vendors' own SDKs."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from smoothing_proxy.cli import simulate as command
from smoothing_proxy.cli.app import app
from smoothing_proxy.errors import ConfigError
from smoothing_proxy.simulator.vendors import VENDORS, vendor_wire
from tests.simulator import sdk_clients
from tests.simulator.plain_wire import picture
from tests.simulator.processes import SECRET, Simulation, simulation


def ask(there: Simulation, secret: str = SECRET) -> str | None:
    return sdk_clients.openai(there, picture(), secret)


def test_it_says_where_it_is_answers_switches_faults_and_leaves_its_books(tmp_path: Path) -> None:
    import openai

    books = tmp_path / "till.json"
    with simulation("openai", tmp_path, "--till", str(books), "--fault", "model_version=v2") as there:
        assert ask(there) == "cat"
        there.switch(throttle=1.0)
        with pytest.raises(openai.RateLimitError):
            ask(there)
        there.switch()
        assert ask(there) == "cat"
        told = there.till()
        output = there.stop()
    assert there.process.returncode == 0, output
    assert f"openai on {there.url}" in output
    assert f"export OPENAI_BASE_URL={there.url}/v1\nexport OPENAI_API_KEY={SECRET}\n" in output
    assert json.loads(books.read_text()) == told
    assert (told["outcomes"], told["billed"]) == ({"answered": 2, "throttled": 1}, 2)
    assert list(told["pictures"].values()) == [{"sends": 3, "billed": 2, "answered": 2}]


def test_a_local_classifier_and_another_key(tmp_path: Path) -> None:
    import openai

    (tmp_path / "shades.py").write_text(
        "def shade(pixels):\n    return ['dark' if one.mean() < 128 else 'light' for one in pixels]\n"
    )
    arguments = ["--backend-option", "batch_size=4", "--key", "me:mine"]
    path = {"PYTHONPATH": str(tmp_path)}
    with simulation("openai", tmp_path, *arguments, backend="local:shades:shade", environment=path) as there:
        assert ask(there, "mine") == "dark"
        with pytest.raises(openai.AuthenticationError):
            ask(there)


def test_its_books_outlive_a_client_that_is_killed(tmp_path: Path) -> None:
    with simulation("azure", tmp_path, "--fault", "latency_s=30") as there:
        script = (
            "import sys, http.client\n"
            f"connection = http.client.HTTPConnection('127.0.0.1', {there.port})\n"
            f"headers = {{'ocp-apim-subscription-key': {SECRET!r}, 'content-type': 'application/octet-stream'}}\n"
            f"connection.request('POST', '/vision/v3.2/tag', {picture(side=64)!r}, headers)\n"
            "connection.getresponse()\n"
        )
        client = subprocess.Popen([sys.executable, "-c", script])
        try:
            deadline = time.monotonic() + 10
            while not there.till()["billed"] and time.monotonic() < deadline:
                time.sleep(0.02)
            assert client.poll() is None
        finally:
            client.kill()
            client.wait(timeout=10)
        told = there.till()
    assert (told["requests"], told["billed"], told["answered"]) == (1, 1, 0)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["aws"], "Missing option '--backend'"),
        (["amazon", "--backend", "scripted:cat"], "'amazon' is not one of"),
        (
            ["aws", "--backend", "scripted:cat", "-f", "hangs=1"],
            "--fault: hangs: unknown key; did you mean 'hang'",
        ),
        (["aws", "--backend", "scripted:cat", "--key", "id:"], "secret"),
        (["aws", "--backend", "scripted:cat", "--port", "-1"], "port"),
        (["aws", "--backend", "local:nothing.onnx"], "nothing.onnx"),
    ],
)
def test_a_command_line_that_makes_no_sense_is_refused(arguments: list[str], complaint: str) -> None:
    result = CliRunner().invoke(app, ["simulate", *arguments])
    assert result.exit_code == 2
    assert complaint in result.output


def test_the_command_knows_every_vendor_and_each_has_its_wire() -> None:
    assert command._VENDORS == VENDORS
    assert [vendor_wire(name).name for name in VENDORS] == list(VENDORS)


def test_an_unknown_vendor_is_named_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'google'"):
        vendor_wire("gogle")
