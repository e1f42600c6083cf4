"""What a run says above its bar while it waits."""

from __future__ import annotations

import pytest

from smoothing_proxy.cli.progress import RunProgress
from smoothing_proxy.errors import BackendTimeoutError, BackendUnavailableError, RateLimitedError


def test_each_kind_of_failure_is_said_once_and_a_throttle_never(capsys: pytest.CaptureFixture[str]) -> None:
    with RunProgress(0.001) as progress:
        for _ in range(3):
            progress.withdrawn(0, [1], BackendUnavailableError("acme: no connection (vision.example.com:443)"))
            progress.withdrawn(0, [1], RateLimitedError("acme: slow down"))
            progress.withdrawn(0, [1], BackendTimeoutError("acme: no answer"))
    said = capsys.readouterr().err
    assert said.count("sent again: acme: no connection (vision.example.com:443)") == 1
    assert said.count("sent again: acme: no answer") == 1
    assert "slow down" not in said
