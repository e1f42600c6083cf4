"""Shapes of vendors' JSON, checked by pydantic: what is not in them is passed over, what is in them has to fit."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

__all__ = ["Score", "Shape", "fault_in"]

Score = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False, strict=True)]
"""A confidence in [0, 1]."""


class Shape(BaseModel):
    """The base of all: frozen, and silent about values."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)


def fault_in(error: ValidationError) -> str:
    """The first fault: where it is and what was expected, without the value."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{where or 'whole body'}: {first['msg'][:100]}"
