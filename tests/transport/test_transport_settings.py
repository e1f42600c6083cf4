"""The transport's settings: the defaults hold together, and faults name the key."""

from __future__ import annotations

import pytest

from smoothing_proxy.errors import ConfigError
from smoothing_proxy.settings_file import parse_settings
from smoothing_proxy.transport.settings import TransportSettings


def test_the_defaults_are_valid_and_charge_a_picture_at_most_twice() -> None:
    settings = parse_settings(TransportSettings, {}, source="proxy.toml")
    assert settings.resends_after_unknown == 1
    assert settings.requests_per_s is None


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"requests_per_s": 0}, "requests_per_s: Input should be greater than 0"),
        ({"attempts": 0}, "attempts: Input should be greater than or equal to 1"),
        ({"request_per_s": 5}, "did you mean 'requests_per_s'"),
        ({"backoff_base_s": 50.0}, "backoff_base_s is 50: expected at most backoff_max_s, which is 30"),
        ({"requests_per_s": 0.01}, "min_per_s is 0.1: expected at most requests_per_s, which is 0.01"),
        ({"give_up_after_s": 10.0}, "circuit_pause_max_s is 60: expected at most give_up_after_s, which is 10"),
        ({"circuit_pause_s": float("nan")}, "circuit_pause_s: Input should be"),
    ],
)
def test_a_value_out_of_range_is_refused_by_its_key(values: dict[str, float], expected: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        parse_settings(TransportSettings, values, source="proxy.toml")
    assert expected in str(refusal.value)
