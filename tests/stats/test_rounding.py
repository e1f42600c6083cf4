"""A figure for a person is never better than its proof."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smoothing_proxy.stats.rounding import rounded_down


@given(value=st.floats(0, 100), digits=st.integers(0, 6))
def test_what_is_printed_never_exceeds_the_value(value: float, digits: int) -> None:
    printed = float(rounded_down(value, digits))
    assert printed <= value < printed + 10.0**-digits * (1 + 1e-9) + 1e-12


@pytest.mark.parametrize(("value", "printed"), [(0.5338710, "0.5338"), (0.0, "0.0000"), (1.23459, "1.2345")])
def test_four_digits(value: float, printed: str) -> None:
    assert rounded_down(value, 4) == printed
