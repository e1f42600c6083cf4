"""The admin's part of the OpenAPI document."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from smoothing_proxy.gateway.admin_bodies import (
    KeyList,
    NewKeyRequest,
    ShownKey,
    ShownSecret,
    SpendReport,
    TermsRequest,
)

__all__ = ["ADMIN_MODELS", "admin_paths"]

ADMIN_MODELS: tuple[type[BaseModel], ...] = (
    KeyList,
    NewKeyRequest,
    ShownKey,
    ShownSecret,
    SpendReport,
    TermsRequest,
)

_SCHEMAS = "#/components/schemas/"

_KEY = {"name": "key", "in": "path", "required": True, "schema": {"type": "string"}, "description": "Id or name."}
_WHICH = [
    {"name": "key", "in": "query", "schema": {"type": "string"}, "description": "Id or name; left out for all."},
    {"name": "period", "in": "query", "schema": {"enum": ["day", "month", "total"]}},
]


def admin_paths() -> dict[str, Any]:
    """Paths by address."""
    one = "/v1/admin/keys/{key}"
    return {
        "/v1/admin/keys": {
            "get": _operation("list_keys", "Every key.", KeyList),
            "post": _operation(
                "create_key", "A new key, with its secret.", ShownSecret, NewKeyRequest, status=201
            ),
        },
        one: {
            "get": _operation("read_key", "One key.", ShownKey, parameters=[_KEY]),
            "patch": _operation("update_key", "Other terms.", ShownKey, TermsRequest, parameters=[_KEY]),
        },
        f"{one}/rotate": {"post": _operation("rotate_key", "A new secret.", ShownSecret, parameters=[_KEY])},
        f"{one}/disable": {"post": _operation("disable_key", "Refuse it.", ShownKey, parameters=[_KEY])},
        f"{one}/enable": {"post": _operation("enable_key", "Let it in again.", ShownKey, parameters=[_KEY])},
        "/v1/admin/spend": {
            "get": _operation("spend", "What one key, or every key, has spent.", SpendReport, parameters=_WHICH)
        },
    }


def _operation(
    name: str,
    summary: str,
    told: type[BaseModel],
    asked: type[BaseModel] | None = None,
    *,
    parameters: list[dict[str, Any]] | None = None,
    status: int = 200,
) -> dict[str, Any]:
    codes = {400: "Bad input.", 401: "Not the admin key.", 404: "No such key.", 413: "Too large."}
    errors = {str(code): _content(said, "Error") for code, said in {**codes, 503: "No store."}.items()}
    body = {} if asked is None else {"requestBody": {"required": True, **_content("", asked.__name__)}}
    return {
        "operationId": name,
        "summary": summary,
        "security": [{"admin": []}],
        "parameters": parameters or [],
        **body,
        "responses": {str(status): _content(summary, told.__name__), **errors},
    }


def _content(description: str, schema: str) -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": _SCHEMAS + schema}}}
    return {"description": description, "content": content}
