"""A settings file's faults are named: which file, which key, what was expected; never its values."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from pydantic import Field

from smoothing_proxy.errors import ConfigError
from smoothing_proxy.settings_file import Settings, parse_settings, read_toml


@dataclass(frozen=True)
class Noun:
    height: int = 1

    def __post_init__(self) -> None:
        if self.height < 0:
            raise ConfigError(f"height = {self.height}: expected >= 0")


class Inner(Settings):
    steps: int = Field(default=1, ge=1)


class Outer(Settings):
    noun: Noun = Noun()
    inner: Inner = Inner()
    maybe: Inner | None = None
    several: tuple[Inner, ...] = ()
    name: str = ""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nmae = 'x'", "file.toml: nmae: unknown key; did you mean 'name'?"),
        ("[inner]\nstep = 2", "file.toml: inner.step: unknown key; did you mean 'steps'?"),
        ("[maybe]\nstep = 2", "file.toml: maybe.step: unknown key; did you mean 'steps'?"),
        ("[[several]]\nstep = 2", "file.toml: several.0.step: unknown key; did you mean 'steps'?"),
        ("[noun]\nhight = 2", "file.toml: noun.hight: unknown key; did you mean 'height'?"),
        ("[noun]\nheight = -1", "file.toml: height = -1: expected >= 0"),
        ("[inner]\nsteps = 0", "file.toml: inner.steps: Input should be greater than or equal to 1"),
    ],
)
def test_a_fault_is_named_with_its_key_and_the_nearest_known_one(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "file.toml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        parse_settings(Outer, read_toml(tmp_path / "file.toml"), source="file.toml")
    assert str(caught.value) == message


def test_every_fault_is_said_and_no_value_is(tmp_path: Path) -> None:
    values = {"inner": {"steps": "secret-1"}, "maybe": {"steps": "secret-2"}}
    with pytest.raises(ConfigError) as caught:
        parse_settings(Outer, values, source="file.toml")
    lines = str(caught.value).splitlines()
    assert [line.split(": ")[1] for line in lines] == ["inner.steps", "maybe.steps"]
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(("content", "message"), [(b"a = ", "Invalid value"), (b"\xff", "utf-8")])
def test_a_file_that_is_no_toml_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "file.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        read_toml(path)
