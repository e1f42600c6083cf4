"""Settings files with single values replaced from the command line: `--set a.b=value`."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

from smoothing_proxy.errors import ConfigError
from smoothing_proxy.settings_file import Settings, parse_settings, read_toml

__all__ = ["load_settings"]

S = TypeVar("S", bound=Settings)


def load_settings(kind: type[S], path: Path, overrides: Iterable[str] = ()) -> S:
    """The file's settings. overrides: "optimiser.lr=1e-3", "phases.0.steps=100"; values as TOML, else text.

    Raises ConfigError with one line per fault: file, key, what was expected.
    """
    tables = read_toml(path)
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"--set {override}: expected KEY=VALUE, such as optimiser.lr=1e-3")
        _put(tables, key.strip().split("."), _value(value.strip()), override)
    return parse_settings(kind, tables, source=str(path))


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _put(tables: dict[str, Any], keys: list[str], value: Any, override: str) -> None:
    """Set one leaf. Tables on the way are made; an entry of a list must exist."""
    inner: Any = tables
    try:
        for key in keys[:-1]:
            inner = inner[int(key)] if isinstance(inner, list) else inner.setdefault(key, {})
        inner[int(keys[-1]) if isinstance(inner, list) else keys[-1]] = value
    except (IndexError, ValueError, TypeError, AttributeError):
        raise ConfigError(f"--set {override}: no such entry in the file") from None
