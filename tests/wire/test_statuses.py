"""What a vendor's own words may say in a message."""

from __future__ import annotations

import pytest

from smoothing_proxy.wire.statuses import harmless


@pytest.mark.parametrize(
    ("said", "repeated"),
    [
        (
            "the key 0123456789abcdef0123456789abcdef is unknown",
            "the key ... is unknown",
        ),
        ("the model gpt-4o-mini-2024-07-18 does not exist", "the model gpt-4o-mini-2024-07-18 does not exist"),
        ("Bearer " + "eyJ0eXAi.x_y-" * 9, "Bearer ..."),
        ("two\nlines", "two lines"),
        (None, ""),
        ({"code": 1}, ""),
    ],
)
def test_words_are_repeated_and_keys_are_not(said: object, repeated: str) -> None:
    assert harmless(said) == repeated


def test_a_long_message_is_cut() -> None:
    assert len(harmless("so many words " * 100)) <= 303
