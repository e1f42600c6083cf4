"""What the query of a request to Azure asks for: tags in English by the service's own model, or something else."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal, TypeAlias
from urllib.parse import parse_qsl

from smoothing_proxy.wire.base import Fault, HttpRequest, NotServedFault, RequestFault

__all__ = ["API_VERSION", "Version", "asked_model"]

Version: TypeAlias = Literal["4.0", "3.2"]

API_VERSION = "2023-10-01"

_MODEL_VERSION = re.compile(r"(latest|\d{4}-\d{2}-\d{2})(-preview)?")


def asked_model(request: HttpRequest, version: Version) -> str:
    """The version of the model that tags are asked of, "" for the latest.

    Raises NotServedFault for other features and languages, and for a model of the customer's own; RequestFault for
    what the service does not know.
    """
    query = _query(request)
    _check_features(query, version, request.path)
    if query.get("model-name"):
        raise _not_served("model-name: no model but the service's own is served here; leave it out")
    if query.get("language", "en").lower() not in ("en", ""):
        raise _not_served("language: tags are served in English only; leave it out or send en")
    named = query.get("model-version", "latest")
    if not _MODEL_VERSION.fullmatch(named):
        raise RequestFault(Fault.BAD_REQUEST, "model-version has to be latest or a date such as 2023-10-01")
    return "" if named == "latest" else named


def _query(request: HttpRequest) -> Mapping[str, str]:
    """Names in small letters; the values of one that stands there twice joined by commas, as ASP.NET does."""
    sent = parse_qsl(request.target.partition("?")[2], keep_blank_values=True)
    joined: dict[str, str] = {}
    for name, value in sent or request.query.items():
        key = name.lower()
        joined[key] = f"{joined[key]},{value}" if key in joined else value
    return joined


def _check_features(query: Mapping[str, str], version: Version, path: str) -> None:
    if version == "4.0":
        _check_only_tags(query.get("features", ""), "features")
        if query.get("api-version") != API_VERSION:
            raise RequestFault(Fault.BAD_REQUEST, f"api-version has to be {API_VERSION}")
    elif path.rstrip("/").endswith("/analyze"):
        _check_only_tags(query.get("visualfeatures", ""), "visualFeatures")
        if query.get("details"):
            raise _not_served("details are not served here")


def _check_only_tags(features: str, key: str) -> None:
    if [feature.strip().lower() for feature in features.split(",")] != ["tags"]:
        raise _not_served(f"{key} has to be Tags: no other feature is served here")


def _not_served(message: str) -> NotServedFault:
    return NotServedFault(Fault.BAD_REQUEST, message)
