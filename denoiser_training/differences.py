"""What differs between two dumped settings: whether a run may go on with what another one left."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, get_args

from pydantic_core import to_jsonable_python

from smoothing_proxy.settings_file import Settings

__all__ = ["differences"]

ANYWHERE = ("runtime.", "data.cache", "data.download", "test.cache", "test.download")
"""Where a run works and keeps things decides nothing about what comes out."""


def differences(old: Mapping[str, Any], new: Mapping[str, Any], kind: type[Settings] = Settings) -> list[str]:
    """Dotted keys whose values differ between two dumped settings, those that say where a run works aside.

    kind: the settings that were dumped, or those that hold the dumped tables. A key that one side lacks has its
    default there: it was dumped by a version that did not know it.
    """
    before, after = _flat("", _filled(kind, old)), _flat("", _filled(kind, new))
    keys = sorted(before.keys() | after.keys())
    return [key for key in keys if not key.startswith(ANYWHERE) and before.get(key) != after.get(key)]


def _filled(kind: type[Settings], tables: Mapping[str, Any]) -> dict[str, Any]:
    """`tables` with the keys that it lacks, all the way down; required ones stay missing."""
    full = {name: _filled_value(kind, name, value) for name, value in tables.items()}
    for name, field in kind.model_fields.items():
        if name not in full and not field.is_required():
            full[name] = to_jsonable_python(field.get_default(call_default_factory=True))
    return full


def _filled_value(kind: type[Settings], name: str, value: Any) -> Any:
    field = kind.model_fields.get(name)
    inner = _settings_in(field.annotation) if field else None
    if inner is None:
        return value
    if isinstance(value, list):
        return [_filled(inner, entry) if isinstance(entry, Mapping) else entry for entry in value]
    return _filled(inner, value) if isinstance(value, Mapping) else value


def _settings_in(annotation: Any) -> type[Settings] | None:
    """The settings in an annotation: itself, or inside `X | None` or `tuple[X, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        return annotation
    return next((found for inner in get_args(annotation) if (found := _settings_in(inner)) is not None), None)


def _flat(prefix: str, value: Any) -> dict[str, str]:
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else None
    if items is None:
        return {prefix: json.dumps(value)}
    return {
        key: leaf for name, inner in items for key, leaf in _flat(f"{prefix}.{name}".strip("."), inner).items()
    }
