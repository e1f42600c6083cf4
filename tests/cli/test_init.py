"""`init` writes configurations that are valid, commented, and the same as those in configs/proxy."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from smoothing_proxy.backends.registry import backend
from smoothing_proxy.cli.init import PLACEHOLDER, TEMPLATES, configuration
from smoothing_proxy.config import read_config
from smoothing_proxy.denoisers.registry import denoiser
from tests.cli.command_line import Invoke

EXAMPLES = Path(__file__).parents[2] / "configs" / "proxy"

ELSEWHERE = ("profile", "entra")
"""Options that need more than their value: a profile in a file, another package."""

VARIABLES = ("AZURE_VISION_KEY", "CLARIFAI_PAT", "GOOGLE_VISION_KEY", "OPENAI_API_KEY", "VISION_KEY")

LINE = re.compile(r"^# ((\[[a-z.]+\]|[a-z_]+ = ).*)$")
"""A key or table that is commented out."""


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*VARIABLES, "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "some-value")
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL_REKOGNITION"):
        monkeypatch.delenv(name, raising=False)


def test_the_examples_are_what_init_writes() -> None:
    written = {file: configuration(name) for name, (_, file, _) in TEMPLATES.items()}
    assert {path.name: path.read_text() for path in EXAMPLES.glob("*.toml")} == written


@pytest.mark.parametrize("name", sorted(TEMPLATES))
def test_what_is_written_is_read_and_makes_the_backend(name: str, invoke: Invoke, tmp_path: Path) -> None:
    result = invoke("init", "--backend", name, "--out", "mine.toml")
    assert result.exit_code == 0, result.output
    config = read_config(tmp_path / "mine.toml", {})
    assert config.backend.name.partition(":")[0] == name
    assert denoiser(config.denoiser.name, **config.denoiser.options)
    if name != "local":
        made = backend(config.backend.name, **config.backend.options)
        assert made.name == name
        assert config.budget.limit_queries(made.price_usd) is not None


@pytest.mark.parametrize("name", sorted(TEMPLATES))
def test_what_is_commented_out_is_known_too(name: str) -> None:
    active = tomllib.loads(configuration(name))
    kept = [line for line in configuration(name).splitlines() if not line.startswith("target_radius = ")]
    tables = tomllib.loads("\n".join(LINE.sub(r"\1", line) for line in kept))
    options = tables.pop("backend")
    assert options.keys() > active["backend"].keys()
    config = read_config(None, {**tables, "backend": active["backend"]})
    assert config.smoothing.certify_method == "fixed"
    if name != "local":
        asked = {key: value for key, value in options.items() if key not in ("name", *ELSEWHERE)}
        assert backend(name, **asked).price_usd > 0


def test_a_file_that_is_there_is_kept_unless_forced(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "proxy.toml").write_text("precious")
    result = invoke("init")
    assert (result.exit_code, (tmp_path / "proxy.toml").read_text()) == (2, "precious")
    assert "--force" in result.stderr
    assert invoke("init", "--force").exit_code == 0
    assert (tmp_path / "proxy.toml").read_text() == configuration("local")


def test_the_next_two_commands_are_said_for_this_file(invoke: Invoke) -> None:
    output = invoke("init", "--backend", "clarifai", "--out", "my proxy.toml").stdout
    assert "smoothing-proxy doctor --config 'my proxy.toml'" in output
    assert "smoothing-proxy plan FOLDER --config 'my proxy.toml'" in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--backend", "amazon"], "aws-rekognition"), (["--out", "missing/proxy.toml"], "cannot be written")],
)
def test_what_is_wrong_is_named(invoke: Invoke, arguments: list[str], message: str) -> None:
    result = invoke("init", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr


def test_doctor_says_what_is_still_to_be_filled_in(invoke: Invoke) -> None:
    invoke("init", "--backend", "clarifai")
    result = invoke("doctor", "--config", "proxy.toml")
    assert result.exit_code == 2
    assert "still as `init` wrote it: user_id, app_id, model_id, model_version" in result.stdout
    assert PLACEHOLDER in result.stdout
