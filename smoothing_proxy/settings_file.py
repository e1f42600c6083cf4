"""TOML files into frozen settings: unknown keys are refused with the nearest known one.

The file, the key and what was expected are named in every error. Values are never echoed, since a key may hold
a secret.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from smoothing_proxy.errors import ConfigError, nearest

__all__ = ["Settings", "load_settings", "parse_settings", "read_toml"]


class Settings(BaseModel):
    """The base of every settings table: frozen, strict about keys, silent about values."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


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


def read_toml(path: Path) -> dict[str, Any]:
    """The file's tables. Raises ConfigError when it cannot be read or is not TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error


def parse_settings(kind: type[S], values: Mapping[str, Any], *, source: str) -> S:
    """`values` as `kind`. Raises ConfigError with one line per fault: source, key, what was expected."""
    try:
        return kind.model_validate(dict(values))
    except ValidationError as error:
        faults = [_fault(kind, fault["loc"], fault["type"], fault["msg"]) for fault in error.errors()]
        raise ConfigError("\n".join(f"{source}: {fault}" for fault in faults)) from None
    except ConfigError as error:  # from a noun that checks itself
        raise ConfigError(f"{source}: {error}") from None


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
        raise ConfigError(f"--set {override.partition('=')[0]}: no such entry in the file") from None


def _fault(kind: type[BaseModel], loc: tuple[int | str, ...], fault: str, message: str) -> str:
    key = ".".join(str(part) for part in loc) or "(whole file)"
    if fault not in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"{key}: {message.removeprefix('Value error, ')}"
    return f"{key}: unknown key{nearest(str(loc[-1]), _keys(kind, loc[:-1]))}"


def _keys(kind: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    """The keys that the table at `loc` knows; [] where the table's type cannot be told."""
    for part in loc:
        if isinstance(part, int):
            continue
        known = kind.model_fields.get(part)
        inner = _table(known.annotation) if known else None
        if inner is None:
            return []
        if is_dataclass(inner):
            return [field.name for field in fields(inner)]
        kind = inner
    return list(kind.model_fields)


def _table(annotation: Any) -> Any:
    """The settings or dataclass in an annotation: itself, or inside `X | None` or `tuple[X, ...]`."""
    if isinstance(annotation, type) and (issubclass(annotation, BaseModel) or is_dataclass(annotation)):
        return annotation
    return next((found for inner in get_args(annotation) if (found := _table(inner)) is not None), None)
