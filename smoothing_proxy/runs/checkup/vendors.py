"""What a check has to know of one vendor: its limits, where its credential came from, and what it can answer."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from smoothing_proxy.errors import MissingCredentialError
from smoothing_proxy.wire.base import Limits

__all__ = ["address_doubt", "closed_answers", "credential_source", "described", "limits_of"]

Options = Mapping[str, Any]

_SHOWN = (
    "region",
    "endpoint",
    "base_url",
    "url",
    "version",
    "model",
    "user_id",
    "app_id",
    "model_id",
    "model_version",
)

_LOOPBACK = re.compile(r"localhost|127\.\d+\.\d+\.\d+|::1")
_AWS_REGION = re.compile(r"rekognition(?:-fips)?\.([a-z0-9-]+)\.amazonaws\.")


def limits_of(name: str, options: Options) -> Limits | None:
    """What the vendor takes of one picture, with these options of its backend; None where nothing is known."""
    find = {
        "aws-rekognition": _aws_limits,
        "azure-vision": _azure_limits,
        "clarifai": _clarifai_limits,
        "google-vision": _google_limits,
        "json-api": _stated_limits,
        "openai-vision": _openai_limits,
    }.get(name)
    return find(options) if find else None


def credential_source(name: str, options: Options) -> str:
    """Where the credential of a backend that could be made was found; names only. "" where it needs none.

    Raises MissingCredentialError where only the first request would have noticed that there is none.
    """
    find: Mapping[str, Callable[[Options], str]] = {
        "aws-rekognition": _aws_source,
        "azure-vision": _azure_source,
        "clarifai": lambda options: _variable(options.get("pat_env", "CLARIFAI_PAT")),
        "google-vision": _google_source,
        "json-api": _header_source,
        "openai-vision": lambda options: _variable(options.get("key_env", "OPENAI_API_KEY")),
    }
    return find[name](options) if name in find else ""


def closed_answers(name: str, options: Options) -> Sequence[str]:
    """Every label that the classifier can answer, where its options say so; () where any may come."""
    key = {"openai-vision": "labels", "clarifai": "concepts"}.get(name)
    return tuple(options.get(key, ())) if key else ()


def described(fingerprint: Mapping[str, str]) -> str:
    """Where the backend asks, and which model, as its fingerprint has it (without secrets)."""
    return ", ".join(f"{key} {fingerprint[key]}" for key in _SHOWN if fingerprint.get(key))


def address_doubt(fingerprint: Mapping[str, str]) -> str:
    """What speaks against the backend's address; "" for nothing."""
    for key in ("endpoint", "base_url", "url"):
        url = urlsplit(fingerprint.get(key, ""))
        if url.scheme == "http" and not _LOOPBACK.fullmatch(url.hostname or ""):
            return f"{key} is http: the credential and the pictures travel in clear; use https"
    named = _AWS_REGION.search(fingerprint.get("endpoint", ""))
    region = fingerprint.get("region", "")
    if named and named.group(1) != region:
        return f"the endpoint is in {named.group(1)}, region is {region}: requests are signed for the wrong one"
    return ""


def _aws_limits(_: Options) -> Limits:
    from smoothing_proxy.wire.aws import LIMITS

    return LIMITS


def _azure_limits(options: Options) -> Limits:
    from smoothing_proxy.wire.azure import LIMITS

    return LIMITS["3.2" if options.get("version") == "3.2" else "4.0"]


def _clarifai_limits(_: Options) -> Limits:
    from smoothing_proxy.wire.clarifai import LIMITS

    return LIMITS


def _google_limits(_: Options) -> Limits:
    from smoothing_proxy.wire.google_proto import LIMITS

    return LIMITS


def _openai_limits(_: Options) -> Limits:
    from smoothing_proxy.wire.openai import OpenAiWire

    return OpenAiWire.limits


def _stated_limits(options: Options) -> Limits:
    most = options.get("max_bytes") or 2**31
    sides = {key: options.get(key, 0) for key in ("min_side_px", "max_side_px")}
    return Limits(image_bytes=most, request_bytes=2 * most, **sides)


_AWS_METHODS = {
    "env": "the environment (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY)",
    "explicit": "the environment",
    "shared-credentials-file": "the credentials file (~/.aws/credentials or AWS_SHARED_CREDENTIALS_FILE)",
    "config-file": "the configuration file (~/.aws/config or AWS_CONFIG_FILE)",
    "iam-role": "this machine's role",
    "container-role": "this container's role",
    "custom-process": "the profile's credential_process",
}


def _aws_source(options: Options) -> str:
    import boto3

    session = boto3.Session(region_name=options.get("region"), profile_name=options.get("profile"))
    credentials = session.get_credentials()
    method = "" if credentials is None else str(credentials.method)
    profile = f", profile {session.profile_name}" if method != "env" else ""
    return _AWS_METHODS.get(method, method) + profile


def _google_source(options: Options) -> str:
    if options.get("api_key_env"):
        return _variable(options["api_key_env"])
    if options.get("credentials_file"):
        return f"credentials_file {options['credentials_file']}"
    return "" if options.get("insecure") else _application_default()


def _application_default() -> str:
    """Google's own chain, which the backend would ask at its first request."""
    import google.auth
    from google.auth.exceptions import GoogleAuthError

    try:
        credentials, _ = google.auth.default()  # type: ignore[no-untyped-call, unused-ignore]
    except GoogleAuthError as error:
        raise MissingCredentialError(
            "google-vision: no credentials; looked for api_key_env, credentials_file, "
            "GOOGLE_APPLICATION_CREDENTIALS, the login of gcloud (`gcloud auth application-default login`), and "
            f"this machine's service account ({type(error).__name__})"
        ) from None
    return f"Application Default Credentials ({type(credentials).__name__})"


def _azure_source(options: Options) -> str:
    if options.get("entra"):
        return "Entra ID (azure-identity's chain; a token is asked for with the first request)"
    return _variable(options.get("key_env", "AZURE_VISION_KEY"))


def _header_source(options: Options) -> str:
    found = re.findall(r"\{env:([^{}]*)\}", " ".join(str(text) for text in options.get("headers", {}).values()))
    return " and ".join(_variable(name) for name in dict.fromkeys(found))


def _variable(name: object) -> str:
    return f"the environment variable {name}" if name else ""
