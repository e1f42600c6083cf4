"""The OpenAPI document of the native routes; bodies are described by the very models that check and write them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from smoothing_proxy import __version__
from smoothing_proxy.gateway.admin_openapi import ADMIN_MODELS, admin_paths
from smoothing_proxy.gateway.native_front import STATUS
from smoothing_proxy.gateway.native_request import PictureRequest
from smoothing_proxy.gateway.verdicts import Verdict

__all__ = ["openapi_document"]

_SCHEMAS = "#/components/schemas/"

_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message", "request_id"],
            "properties": {key: {"type": "string"} for key in ("code", "message", "request_id")},
        }
    },
}


def openapi_document(*, admin: bool = False) -> Mapping[str, Any]:
    """OpenAPI 3.1. admin: whether keys are administered over HTTP."""
    schemas: dict[str, Any] = {"Error": _ERROR}
    models: tuple[type[BaseModel], ...] = (Verdict, PictureRequest, *(ADMIN_MODELS if admin else ()))
    for model in models:
        schema = model.model_json_schema(ref_template=_SCHEMAS + "{model}", mode="validation")
        schemas |= schema.pop("$defs", {})
        schemas[model.__name__] = schema
    return {
        "openapi": "3.1.0",
        "info": {"title": "smoothing-proxy gateway", "version": __version__},
        "paths": {
            "/v1/predict": {"post": _asking("predict", "The smoothed classifier's label, or an abstention.")},
            "/v1/certify": {"post": _asking("certify", "The label, and a radius within which it cannot change.")},
            "/v1/verdicts": {"get": _finding()},
            "/v1/verdicts/{id}": {"get": _reading()},
            "/health/live": {"get": _plain("live", "Whether the process runs.")},
            "/health/ready": {"get": _plain("ready", "Whether requests are taken.", 503)},
            "/metrics": {"get": _plain("metrics", "Counters, for Prometheus.")},
            "/openapi.json": {"get": _plain("openapi", "This document.")},
            **(admin_paths() if admin else {}),
        },
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "apiKey": {"type": "apiKey", "in": "header", "name": "x-api-key"},
                **({"admin": {"type": "http", "scheme": "bearer"}} if admin else {}),
            },
        },
        "security": [{"bearer": []}, {"apiKey": []}],
    }


def _asking(name: str, summary: str) -> dict[str, Any]:
    file = {"type": "string", "format": "binary"}
    form = {
        "type": "object",
        "required": ["image"],
        "properties": {
            "image": file,
            "target_radius": {"type": "number", "exclusiveMinimum": 0},
            "per_label": {"type": "string", "description": "true, false, or a LabelsQuestion as JSON."},
        },
    }
    content = {
        "application/json": {"schema": {"$ref": _SCHEMAS + "PictureRequest"}},
        "multipart/form-data": {"schema": form},
        "image/*": {"schema": file},
    }
    headers = [
        _header("idempotency-key", "The same request, sent again, gets the same answer."),
        _header("x-smoothing-target-radius", "As target_radius, for bodies that are the picture itself."),
        _header("x-smoothing-per-label", "As per_label, likewise: true, false, or a LabelsQuestion as JSON."),
    ]
    return {
        "operationId": name,
        "summary": summary,
        "description": "With `Accept: text/event-stream`: `votes` events as they grow, then `verdict` or `error`.",
        "parameters": headers,
        "requestBody": {"required": True, "content": content},
        "responses": {"200": _verdict(stream=True), **_errors()},
    }


def _reading() -> dict[str, Any]:
    parameter = {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}
    return {
        "operationId": "verdict",
        "summary": "A verdict that this key was given.",
        "parameters": [parameter],
        "responses": {"200": _verdict(stream=False), **_errors((401, 403, 404))},
    }


def _finding() -> dict[str, Any]:
    description = "Of the picture's bytes as they were sent, in hex: what sha256sum says of the file."
    schema = {"type": "string", "pattern": "^[0-9A-Fa-f]{64}$"}
    parameter = {"name": "sha256", "in": "query", "required": True, "description": description, "schema": schema}
    items = {"type": "array", "items": {"$ref": _SCHEMAS + "Verdict"}}
    found = {"type": "object", "required": ["verdicts"], "properties": {"verdicts": items}}
    content = {"application/json": {"schema": found}}
    return {
        "operationId": "verdicts",
        "summary": "The verdicts on one picture that this key was given, the newest ones first.",
        "description": "Any vendor's key reads its own, as that vendor's clients show it.",
        "parameters": [parameter],
        "responses": {
            "200": {"description": "Verdicts, or none.", "content": content},
            **_errors((400, 401, 403)),
        },
    }


def _plain(name: str, summary: str, *also: int) -> dict[str, Any]:
    codes = (200, *also)
    responses = {str(code): {"description": "Yes." if code == 200 else "No."} for code in codes}
    return {"operationId": name, "summary": summary, "security": [], "responses": responses}


def _verdict(*, stream: bool) -> dict[str, Any]:
    content: dict[str, Any] = {"application/json": {"schema": {"$ref": _SCHEMAS + "Verdict"}}}
    if stream:
        content["text/event-stream"] = {"schema": {"type": "string"}}
    return {"description": "The verdict.", "content": content}


def _errors(codes: tuple[int, ...] = tuple(sorted(set(STATUS.values())))) -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": _SCHEMAS + "Error"}}}
    return {str(code): {"description": "An error.", "content": content} for code in codes}


def _header(name: str, description: str) -> dict[str, Any]:
    return {"name": name, "in": "header", "description": description, "schema": {"type": "string"}}
