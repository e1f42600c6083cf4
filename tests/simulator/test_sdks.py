"""The vendors' own SDKs meet each fault as their users would."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.simulator import sdk_clients
from tests.simulator.plain_wire import picture
from tests.simulator.processes import SECRET, Simulation, simulation
from tests.simulator.sdk_clients import Ask

PICTURE = picture(side=96)

SDKS: dict[str, tuple[str, Ask]] = {
    "boto3": ("aws", sdk_clients.boto3),
    "openai": ("openai", sdk_clients.openai),
    "azure": ("azure", sdk_clients.azure),
    "clarifai": ("clarifai", sdk_clients.clarifai),
    "google_rest": ("google", sdk_clients.google_rest),
    "google_grpc": ("google", sdk_clients.google_grpc),
}

SEEN: dict[str, dict[str, str | None]] = {
    "boto3": {
        "none": "cat",
        "throttle": "ThrottlingException",
        "unavailable": "ClientError",
        "internal": "InternalServerError",
        "timeout": "InternalServerError",
        "reset_before": "ConnectionClosedError",
        "reset_after": "ConnectionClosedError",
        "cut_off": "KeyError",  # it takes half of a JSON document for an empty one
        "blank": "KeyError",
        "empty": None,
        "picture_internal": "InternalServerError",
        "quota_pictures": "ServiceQuotaExceededException",
        "bad_auth_after": "ClientError",
    },
    "openai": {
        "none": "cat",
        "throttle": "RateLimitError",
        "unavailable": "InternalServerError",
        "internal": "InternalServerError",
        "timeout": "InternalServerError",
        "reset_before": "APIConnectionError",
        "reset_after": "APIConnectionError",
        "cut_off": "APIConnectionError",
        "blank": "JSONDecodeError",
        "empty": None,
        "picture_internal": "InternalServerError",
        "quota_pictures": "RateLimitError",
        "bad_auth_after": "AuthenticationError",
    },
    "azure": {
        "none": "cat",
        "throttle": "HttpResponseError",
        "unavailable": "HttpResponseError",
        "internal": "HttpResponseError",
        "timeout": "HttpResponseError",
        "reset_before": "ServiceResponseError",
        "reset_after": "ServiceResponseError",
        "cut_off": "IncompleteReadError",
        "blank": "JSONDecodeError",
        "empty": None,
        "picture_internal": "HttpResponseError",
        "quota_pictures": "HttpResponseError",
        "bad_auth_after": "ClientAuthenticationError",
    },
    "clarifai": {
        "none": "cat",
        "throttle": "AnnotationError 11005",
        "unavailable": "AnnotationError 10030",
        "internal": "AnnotationError 98004",
        "timeout": "AnnotationError 98009",
        "reset_before": "ApiError",
        "reset_after": "ApiError",
        "cut_off": "ApiError",
        "blank": "ApiError",
        "empty": None,
        "picture_internal": "AnnotationError 98004",
        "quota_pictures": "AnnotationError 11004",
        "bad_auth_after": "AnnotationError 11008",
    },
    "google_rest": {
        "none": "cat",
        "throttle": "TooManyRequests",
        "unavailable": "ServiceUnavailable",
        "internal": "InternalServerError",
        "timeout": "GatewayTimeout",
        "reset_before": "ConnectionError",
        "reset_after": "ConnectionError",
        "cut_off": "ChunkedEncodingError",
        "blank": "ParseError",
        "empty": None,
        "picture_internal": "AnnotationError 13",
        "quota_pictures": "Forbidden",
        "bad_auth_after": "Unauthorized",
    },
    "google_grpc": {
        "none": "cat",
        "throttle": "ResourceExhausted",
        "unavailable": "ServiceUnavailable",
        "internal": "InternalServerError",
        "timeout": "DeadlineExceeded",
        "reset_before": "ServiceUnavailable",
        "reset_after": "ServiceUnavailable",
        "cut_off": "ServiceUnavailable",
        "blank": "InternalServerError",
        "empty": None,
        "picture_internal": "AnnotationError 13",
        "quota_pictures": "PermissionDenied",
        "bad_auth_after": "Unauthenticated",
    },
}
"""SDK -> fault -> the label or the exception's name. gRPC's server cannot break a connection off, only say so."""

FAULTS: dict[str, dict[str, float]] = {
    "none": {},
    **{name: {name: 1.0} for name in ("throttle", "unavailable", "internal", "timeout", "reset_before")},
    **{name: {name: 1.0} for name in ("reset_after", "cut_off", "blank", "empty", "picture_internal")},
    "quota_pictures": {"quota_pictures": 0},
    "bad_auth_after": {"bad_auth_after": 0},
}


ASKS_AGAIN = {"google_rest": 2}
"""Requests beyond one for each fault: a key that is refused is fetched anew and tried twice more."""


@pytest.fixture(scope="module")
def vendors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Simulation]]:
    """Each vendor's simulator, started when it is first needed."""
    with ExitStack() as stack:
        yield functools.cache(
            lambda vendor: stack.enter_context(simulation(vendor, tmp_path_factory.mktemp(vendor)))
        )


@pytest.fixture(params=SDKS)
def sdk(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def there(sdk: str, vendors: Callable[[str], Simulation]) -> Simulation:
    return vendors(SDKS[sdk][0])


def outcome(sdk: str, there: Simulation, image: bytes = PICTURE, secret: str = SECRET) -> str | None:
    """The label, or the name of the exception, with the code of one that stood in a reply."""
    try:
        return SDKS[sdk][1](there, image, secret)
    except sdk_clients.AnnotationError as error:
        return f"AnnotationError {error.code}"
    except Exception as error:  # noqa: BLE001 (whatever the SDK raises is what is looked at)
        return type(error).__name__


def test_an_sdk_meets_each_fault_and_each_is_one_request(sdk: str, there: Simulation) -> None:
    before = there.till()["requests"]
    seen = {}
    for name, faults in FAULTS.items():
        there.switch(**faults)
        seen[name] = outcome(sdk, there)
    assert {name: seen[name] for name in SEEN[sdk]} == SEEN[sdk]
    assert all(
        seen[name] in ("ServiceUnavailable", "InternalServerError") for name in seen.keys() - SEEN[sdk].keys()
    )
    assert there.till()["requests"] - before == len(FAULTS) + ASKS_AGAIN.get(sdk, 0)


@pytest.mark.parametrize("sdk", [name for name in SDKS if name != "clarifai"])  # that one never gives up
def test_an_sdk_that_waits_in_vain_gives_up(
    sdk: str, vendors: Callable[[str], Simulation], monkeypatch: pytest.MonkeyPatch
) -> None:
    there = vendors(SDKS[sdk][0])
    monkeypatch.setattr(sdk_clients, "TIMEOUT_S", 0.5)
    there.switch(hang=1.0)
    assert re.search("Timeout|DeadlineExceeded", str(outcome(sdk, there)))


def test_no_sdk_takes_a_malformed_reply_for_an_answer(sdk: str, there: Simulation) -> None:
    there.switch(malformed=1.0)
    assert "cat" not in [outcome(sdk, there) for _ in range(5)]


def test_the_key_and_the_picture_are_looked_at(sdk: str, there: Simulation) -> None:
    there.switch()
    assert outcome(sdk, there) == "cat"
    assert outcome(sdk, there, secret="wrong") == SEEN[sdk]["bad_auth_after"]
    assert outcome(sdk, there, PICTURE[:100]) not in ("cat", None)
