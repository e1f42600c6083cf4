"""Where in a JSON schema of structured output the one answer stands, and what it may be.

A schema is answered when it asks for one text, however deep inside objects: `{"label": {"enum": [...]}}` and what
SDKs make of a pydantic model or an Enum class. A schema that needs a second value asks for more than a label.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from smoothing_proxy.wire.base import Fault, RequestFault

__all__ = ["Blank", "blank_of", "label_schema"]

_DEEPEST = 16


@dataclass(frozen=True, slots=True)
class Blank:
    """The text to fill in. path: names of the properties that lead to it. labels: allowed; () for any text."""

    path: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()

    def filled(self, label: str) -> str:
        """The whole answer as compact JSON."""
        answer: object = label
        for name in reversed(self.path):
            answer = {name: answer}
        return json.dumps(answer, ensure_ascii=False, separators=(",", ":"))


def label_schema(labels: tuple[str, ...]) -> dict[str, Any]:
    """The schema of `{"label": one of labels}`, strict."""
    return {
        "type": "object",
        "properties": {"label": {"type": "string", "enum": list(labels)}},
        "required": ["label"],
        "additionalProperties": False,
    }


def blank_of(schema: object) -> Blank:
    """The blank of a schema. Raises RequestFault (BAD_REQUEST) for one that a label does not fill."""
    if not isinstance(schema, Mapping):
        raise _unfit("it is no object")
    path: list[str] = []
    here: Mapping[str, Any] = schema
    for _ in range(_DEEPEST):
        here = _followed(here, schema)
        if "enum" in here or "const" in here:
            return Blank(tuple(path), _choices(here))
        properties = here.get("properties")
        if not isinstance(properties, Mapping) or not properties:
            if here.get("type") == "string":
                return Blank(tuple(path))
            raise _unfit("it asks for no text")
        name, here = _only(properties, here.get("required"))
        path.append(name)
    raise _unfit(f"it is nested more than {_DEEPEST} deep, or in itself")


def _choices(here: Mapping[str, Any]) -> tuple[str, ...]:
    choices = here["enum"] if "enum" in here else [here["const"]]
    if not isinstance(choices, list) or not choices or not all(isinstance(x, str) and x for x in choices):
        raise _unfit("`enum` must be a list of texts that are not empty")
    return tuple(dict.fromkeys(choices))


def _only(properties: Mapping[str, Any], required: object) -> tuple[str, Mapping[str, Any]]:
    """The one property to fill: the one required, or the only one there is."""
    names = (
        [name for name in required if isinstance(name, str) and name in properties]
        if isinstance(required, list)
        else []
    )
    names = names or list(properties)
    if len(names) != 1:
        raise _unfit(f"it asks for {len(names)} values ({', '.join(names[:5])})")
    inner = properties[names[0]]
    if not isinstance(inner, Mapping):
        raise _unfit(f"property {names[0]!r} has no schema")
    return names[0], inner


def _followed(here: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """`here`, or the definition that its "$ref" names (of this schema's own, "#/$defs/Label")."""
    reference = here.get("$ref")
    if reference is None:
        return here
    found: Any = schema
    steps = reference.split("/") if isinstance(reference, str) else []
    for step in steps[1:]:
        found = found.get(step) if isinstance(found, Mapping) else None
    if steps[:1] != ["#"] or not isinstance(found, Mapping) or "$ref" in found:
        raise _unfit("a `$ref` leads nowhere")
    return found


def _unfit(why: str) -> RequestFault:
    return RequestFault(
        Fault.BAD_REQUEST,
        f"response_format: the schema must ask for one label, with an enum of the labels to choose from: {why}",
    )
