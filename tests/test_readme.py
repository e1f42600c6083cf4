"""What the README shows works as it stands there."""

from __future__ import annotations

import re
import runpy
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from smoothing_proxy.config import ProxyConfig
from smoothing_proxy.settings_file import parse_settings

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", README, re.DOTALL)
    assert found is not None
    return found.group(1)


def test_the_library_code_certifies_a_photo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(np.full((20, 30, 3), 230, np.uint8)).save(tmp_path / "photo.jpg")
    (tmp_path / "shown.py").write_text(block("python"), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    runpy.run_path("shown.py")
    assert capsys.readouterr().out.startswith("light 0.")


def test_the_configuration_is_valid() -> None:
    config = parse_settings(ProxyConfig, tomllib.loads(block("toml")), source="README.md")
    assert config.backend.options == {"region": "eu-west-1"}
    assert config.budget.limit_queries(0.001) == 20_000


@pytest.mark.parametrize("target", re.findall(r"\]\(([^)h][^)]*)\)", README))
def test_every_link_leads_somewhere(target: str) -> None:
    assert (ROOT / target).exists()


def test_the_test_command_is_what_ci_runs() -> None:
    assert "make test" in README
    assert "make test" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
