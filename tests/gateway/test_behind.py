"""What is behind the gateway is down, throttled or gone mad."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from smoothing_proxy import errors
from smoothing_proxy.backends.scripted import ScriptedBackend
from smoothing_proxy.errors import BackendError, SmoothingProxyError
from smoothing_proxy.gateway.faults import FAULTS, fault_of
from smoothing_proxy.gateway.native_front import STATUS
from smoothing_proxy.smoothing.halt import Interrupted
from smoothing_proxy.wire.base import Fault
from tests.gateway.gateways import serving


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (errors.AuthenticationError("our own key AKIA0000 is refused"), 500, "internal"),
        (errors.QuotaExceededError("ours"), 402, "quota"),
        (errors.BackendTimeoutError("lost"), 504, "timeout"),
        (errors.BackendUnavailableError("down"), 503, "unavailable"),
        (errors.RequestRejectedError("no such picture"), 422, "bad_image"),
        (errors.MalformedReplyError("what is this"), 500, "internal"),
    ],
)
def test_a_failure_behind_is_told_without_its_particulars(error: BackendError, status: int, code: str) -> None:
    backend = ScriptedBackend("cat", failures=dict.fromkeys(range(500), error))
    with serving(backend) as there:
        reply = there.ask()
        metrics = there.client.get("/metrics").text
    assert (reply.status_code, reply.json()["error"]["code"]) == (status, code)
    assert str(error) not in reply.text
    assert f'outcome="{fault_of(error).fault.value}",vendor="native"' in metrics


def kinds(root: type[Exception]) -> Iterator[type[Exception]]:
    yield root
    for kind in root.__subclasses__():
        yield from kinds(kind)


def test_every_error_of_the_house_has_a_fault_and_every_fault_a_status() -> None:
    ours = [kind for kind in kinds(SmoothingProxyError) if kind.__module__ == "smoothing_proxy.errors"]
    assert len(ours) > 15
    for kind in ours:
        assert any(ancestor in FAULTS for ancestor in kind.__mro__), kind
    assert set(STATUS) == set(Fault)
    clients = {Fault.BAD_IMAGE, Fault.QUOTA, Fault.BAD_REQUEST}
    assert {kind for kind, (fault, said) in FAULTS.items() if not said} <= {
        kind for kind, (fault, _) in FAULTS.items() if fault in clients
    }


def test_an_error_without_a_line_of_its_own_has_its_ancestors() -> None:
    class NewError(errors.RateLimitedError):
        pass

    fault = fault_of(NewError("x", retry_after=7.0))
    assert (fault.fault, fault.retry_after_s) == (Fault.UNAVAILABLE, 7.0)
    assert fault_of(ValueError("a secret")).message == "internal error"
    assert fault_of(Interrupted()).fault is Fault.UNAVAILABLE
