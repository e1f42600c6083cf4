"""One line per picture about its labels, for JSON."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from smoothing_proxy.types import LabelsCertificate, TopKCertificate

__all__ = ["finite", "label_row"]


def label_row(name: str, certificate: LabelsCertificate | TopKCertificate | None) -> dict[str, Any]:
    """All that a proof says, after its picture's `file`; `certificate` None is a picture without one."""
    if certificate is None:
        return {"file": name, "queries": None}
    return {"file": name, **finite(asdict(certificate)), "queries": certificate.queries}


def finite(value: Any) -> Any:
    """`value` of asdict for JSON, which has no infinity: null instead."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and math.isinf(value) else value
