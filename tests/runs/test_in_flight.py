"""As many requests as the run has under way are what the backend sends."""

from __future__ import annotations

from typing import Any

import pytest

from smoothing_proxy.assembly import make_backend
from smoothing_proxy.backends.scripted import ScriptedBackend
from smoothing_proxy.config import ProxyConfig
from smoothing_proxy.denoisers.identity import Identity
from smoothing_proxy.errors import ConfigError
from smoothing_proxy.settings_file import parse_settings
from smoothing_proxy.smoothing.base_classifier import BaseClassifier
from smoothing_proxy.smoothing.sampler import Sampler

VENDOR = {
    "name": "json-api",
    "url": "http://127.0.0.1:9",
    "body": "raw",
    "label_path": "$.a",
    "price_usd_per_1000": 1,
}


def configured(run: dict[str, Any], **options: Any) -> ProxyConfig:
    tables = {"smoothing": {"sigma": 0.1}, "backend": {**VENDOR, **options}, "run": run}
    return parse_settings(ProxyConfig, tables, source="test")


@pytest.mark.parametrize(
    ("run", "options", "concurrency"),
    [
        ({}, {}, 8),
        ({"in_flight": 64}, {}, 64),
        ({"in_flight": 4}, {}, 4),
        ({"in_flight": 64}, {"concurrency": 100}, 100),
        ({}, {"concurrency": 100}, 100),
    ],
)
def test_the_backend_sends_as_many_at_once_as_the_run_has_under_way(
    run: dict[str, Any], options: dict[str, Any], concurrency: int
) -> None:
    assert make_backend(configured(run, **options)).concurrency == concurrency


def test_two_numbers_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"run\.in_flight is 64, and backend\.concurrency lets 8"):
        make_backend(configured({"in_flight": 64}, concurrency=8))


@pytest.mark.parametrize(("remote", "refused"), [(True, True), (False, False)])
def test_no_draw_waits_behind_a_vendors_own_bound_written_down_as_sent(remote: bool, refused: bool) -> None:
    classifier = BaseClassifier(ScriptedBackend("cat", concurrency=8, remote=remote), Identity(), sigma=0.1)
    if refused:
        with pytest.raises(ConfigError, match="in_flight is 9, and scripted sends 8 requests at once"):
            Sampler(classifier, in_flight=9)
    else:
        Sampler(classifier, in_flight=9)
