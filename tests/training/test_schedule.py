from __future__ import annotations

import pytest

from denoiser_training.batches import Place
from denoiser_training.schedule import cosine, locate


@pytest.mark.parametrize(
    ("step", "place"),
    [(0, Place(0, 0)), (2, Place(0, 2)), (3, Place(1, 0)), (7, Place(1, 4)), (8, Place(2, 0)), (9, Place(2, 1))],
)
def test_a_step_lies_in_its_phase(step: int, place: Place) -> None:
    assert locate(step, [3, 5, 1]) == place


@pytest.mark.parametrize(
    ("step", "steps", "warm_up", "factor"),
    [
        (0, 100, 0, 1.0),
        (0, 100, 9, 0.1),
        (8, 100, 9, 0.9),
        (10, 110, 10, 1.0),
        (60, 110, 10, 0.5),
        (0, 1, 50, 1.0),
    ],
)
def test_the_rate_climbs_in_a_line_and_falls_as_a_cosine(
    step: int, steps: int, warm_up: int, factor: float
) -> None:
    assert cosine(step, steps, warm_up) == pytest.approx(factor)


def test_the_rate_is_never_zero_and_falls_after_the_warm_up() -> None:
    row = [cosine(step, 50, 10) for step in range(50)]
    assert all(0 < factor <= 1 for factor in row)
    assert row[10:] == sorted(row[10:], reverse=True)
