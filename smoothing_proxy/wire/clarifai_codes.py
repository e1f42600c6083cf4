"""Clarifai's status codes, by the names of clarifai-grpc 12.6: what each means to a payer, and which we write."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from smoothing_proxy.wire.base import Fault, NotServedFault, RequestFault
from smoothing_proxy.wire.statuses import Failure

__all__ = [
    "CODES",
    "FAILURE",
    "MIXED",
    "NUMBERS",
    "OF_ONE_PICTURE",
    "REFUSALS",
    "SUCCESS",
    "Refusal",
    "UnknownModelFault",
    "refusal_of",
]

SUCCESS, MIXED, FAILURE = 10000, 10010, 10020

_MEANINGS: Mapping[Failure, str] = {
    "auth": """11000 CONN_ACCOUNT_ISSUES 11001 CONN_TOKEN_INVALID 11002 CONN_CREDENTIALS_INVALID
        11007 CONN_INSUFFICIENT_SCOPES 11008 CONN_KEY_INVALID 11009 CONN_KEY_NOT_FOUND 11101 CONN_DOES_NOT_EXIST
        11103 CONN_METHOD_NOT_ALLOWED 11104 CONN_NO_GDPR_CONSENT 11200 CONN_AUTH_METHOD_DISABLED
        21200 MODEL_DOES_NOT_EXIST 21201 MODEL_PERMISSION_DENIED 21202 MODEL_INVALID_ARGUMENT""",
    "quota": "11003 CONN_EXCEED_HOURLY_LIMIT 11004 CONN_EXCEED_MONTHLY_LIMIT 11006 CONN_EXCEEDS_LIMITS",
    "throttled": "11005 CONN_THROTTLED",
    "unavailable": """10030 TRY_AGAIN 21350 MODEL_DEPLOYMENT_FAILED 21351 MODEL_DEPLOYING
        21352 MODEL_QUEUED_FOR_DEPLOYMENT 21353 MODEL_NOT_DEPLOYED 21354 MODEL_BUSY_PLEASE_RETRY
        21355 MODEL_LOADING""",
    "rejected": """11100 CONN_BAD_REQUEST_FORMAT 11102 CONN_INVALID_REQUEST 21203 MODEL_INVALID_REQUEST
        30002 INPUT_DOWNLOAD_FAILED 30101 INPUT_UNSUPPORTED_FORMAT 30104 INPUT_INVALID_ARGUMENT
        30105 INPUT_OVER_LIMIT 30300 ALL_INPUT_INVALID_BYTES 47101 MP_DOWNLOAD_ERROR
        47103 MP_DOWNLOAD_MAX_SIZE_EXCEEDED_ERROR 47104 MP_IMAGE_DECODE_ERROR 47105 MP_INVALID_ARGUMENT
        47106 MP_IMAGE_PROCESSING_ERROR""",
    "timeout": "98008 INTERNAL_CONTEXT_CANCELED 98009 INTERNAL_UNEXPECTED_TIMEOUT",
    "failed": "21313 MODEL_PREDICTION_FAILED 98004 INTERNAL_SERVER_ISSUE",
}
"""`auth` is all that fails alike for every picture: it stops the run."""


def _table() -> tuple[dict[int, Failure], dict[str, int]]:
    codes: dict[int, Failure] = {}
    numbers = {"SUCCESS": SUCCESS, "MIXED_STATUS": MIXED, "FAILURE": FAILURE}
    for failure, text in _MEANINGS.items():
        words = text.split()
        for number, name in zip(words[::2], words[1::2], strict=True):
            codes[int(number)] = failure
            numbers[name] = int(number)
    return codes, numbers


CODES, NUMBERS = _table()
"""Meanings by number, numbers by name: REST has been documented with both."""

Refusal: TypeAlias = tuple[int, int, str]
"""HTTP status, status code and its description."""

REFUSALS: Mapping[Fault, Refusal] = {
    Fault.BAD_REQUEST: (400, 11102, "Invalid request"),
    Fault.BAD_IMAGE: (400, 47104, "Image decode failed"),
    Fault.IMAGE_TOO_LARGE: (400, 47103, "Image is too large"),
    Fault.UNAUTHENTICATED: (401, 11008, "Invalid API key"),
    Fault.FORBIDDEN: (403, 11007, "API key has insufficient scopes"),
    Fault.UNKNOWN_OPERATION: (404, 11101, "Resource does not exist"),
    Fault.THROTTLED: (429, 11005, "Making too many requests"),
    Fault.QUOTA: (402, 11004, "Monthly request limit exceeded"),
    Fault.INTERNAL: (500, 98004, "Internal server issue"),
    Fault.UNAVAILABLE: (503, 10030, "Try the request again"),
    Fault.TIMEOUT: (504, 98009, "Internal timeout"),
}
OF_ONE_PICTURE = (Fault.BAD_IMAGE, Fault.IMAGE_TOO_LARGE, Fault.BAD_REQUEST)
"""Faults that stand in the place of a picture's output."""


class UnknownModelFault(NotServedFault):
    """For a model that is not the one in whose place a server answers."""

    def __init__(self, model: str) -> None:
        super().__init__(Fault.UNKNOWN_OPERATION, f"{model}: no such model is served here")


def refusal_of(fault: RequestFault) -> Refusal:
    """How Clarifai says it."""
    no_such_model = (404, 21200, "Model does not exist")
    return no_such_model if isinstance(fault, UnknownModelFault) else REFUSALS[fault.fault]
