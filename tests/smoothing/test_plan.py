"""Plans are conversations: driven here by hand-written votes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from smoothing_proxy.errors import ConfigError, LedgerError
from smoothing_proxy.smoothing.drive import Recording, drive, replay
from smoothing_proxy.smoothing.plan import ESTIMATION, SELECTION, certify_plan, most_draws, predict_plan
from smoothing_proxy.smoothing.settings import Smoothing
from smoothing_proxy.stats.certificates import certify_votes, predict_votes
from smoothing_proxy.types import Draws, Votes

SETTINGS = Smoothing(sigma=0.25, n0=20, n=100, alpha=0.001)


@pytest.mark.parametrize(
    ("selection", "estimation"),
    [
        (Votes({"cat": 15, "dog": 5}), Votes({"cat": 90, "dog": 10})),
        (Votes({"cat": 15, "dog": 5}), Votes({"cat": 40, "dog": 60})),
        (Votes({"cat": 10, "dog": 10}), Votes({"cat": 99}, failed=1)),
        (Votes(failed=20), Votes({"cat": 100})),
    ],
)
def test_certify_takes_its_label_from_the_selection_and_its_proof_from_the_estimation(
    selection: Votes, estimation: Votes
) -> None:
    plan = certify_plan(SETTINGS)
    assert next(plan) == Draws(SELECTION, 20)
    assert plan.send(selection) == Draws(ESTIMATION, 100)
    with pytest.raises(StopIteration) as end:
        plan.send(estimation)
    expected = certify_votes(estimation, selection.top(), sigma=0.25, alpha=0.001, selection=selection)
    assert end.value.value == expected


def test_fixed_predict_is_one_phase() -> None:
    votes = Votes({"cat": 80, "dog": 15}, failed=5)
    fixed = replace(SETTINGS, method="fixed")
    assert replay(predict_plan(fixed), lambda request: votes) == predict_votes(votes, alpha=0.001)


@pytest.mark.anyio
async def test_the_live_driver_and_the_replay_reach_the_same_verdict() -> None:
    votes = ["cat"] * 70 + ["dog"] * 40 + [None] * 10

    async def live(request: Draws) -> Votes:
        return recording(request)

    recording = Recording(votes)
    assert await drive(certify_plan(SETTINGS), live) == replay(certify_plan(SETTINGS), Recording(votes))


def test_a_recording_tells_votes_in_issue_order() -> None:
    recording = Recording(["a", "b", None, "a"])
    assert recording(Draws("selection", 1)) == Votes({"a": 1})
    assert recording(Draws("estimation", 3, at_least=1)) == Votes({"b": 1})
    assert recording(Draws("estimation", 2)) == Votes({"a": 1}, failed=1)


def test_a_recording_that_ends_too_early_is_refused() -> None:
    with pytest.raises(LedgerError, match="estimation phase asks for 100 draws, 30 remain"):
        replay(certify_plan(SETTINGS), Recording(["cat"] * 50))


@pytest.mark.parametrize(
    ("settings", "most"),
    [
        ({}, 120),
        ({"target_radius": 0.25, "max_queries": 300}, 300),
        ({"method": "largest", "max_queries": 300}, 320),
    ],
)
def test_the_most_that_a_proof_can_cost_is_known_before(settings: dict[str, Any], most: int) -> None:
    assert most_draws(replace(SETTINGS, **settings)) == most


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sigma": 0.0}, "sigma = 0.0: expected a number above 0"),
        ({"sigma": float("nan")}, "sigma = nan"),
        ({"sigma": 64}, r"64 on the 0..255 scale is 0.251 here"),
        ({"sigma": 0.25, "alpha": 0.0}, "alpha"),
        ({"sigma": 0.25, "alpha": 1.0}, r"expected a probability in \(0, 1\)"),
        ({"sigma": 0.25, "n": 9}, "10"),
        ({"sigma": 0.25, "n0": 0}, "n0 = 0: expected a whole number of draws, at least 1"),
        ({"sigma": 0.25, "n": 100.5}, "n = 100.5"),
        ({"sigma": 0.25, "working_size": "big"}, "working size 'big'"),
        ({"sigma": 0.25, "method": "tarket"}, "did you mean 'target'"),
        ({"sigma": 0.25, "method": "target"}, "say which radius"),
        ({"sigma": 0.25, "method": "fixed", "target_radius": 0.25}, "has no target"),
        ({"sigma": 0.25, "target_radius": 0.25, "target_radii": (0.5,)}, "give one of them"),
        ({"sigma": 0.25, "target_radius": 0.5, "max_queries": 200}, "at least 301 draws, max_queries is 200"),
        ({"sigma": 0.25, "target_radius": -0.5}, "target_radius = -0.5"),
        ({"sigma": 0.25, "policy": "fast"}, "policy = 'fast'"),
        ({"sigma": 0.25, "lookahead": 0}, "lookahead = 0"),
    ],
)
def test_settings_out_of_range_are_refused_with_what_was_expected(values: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Smoothing(**values)  # type: ignore[arg-type]  # wrong on purpose
