"""Sequential plans, driven by votes of known probability: what they prove, and what they pay for."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain, repeat
from pathlib import Path

import numpy as np
import pytest

from smoothing_proxy.errors import LedgerError
from smoothing_proxy.smoothing.boundaries import cache_folder, cached_boundary
from smoothing_proxy.smoothing.drive import Recording, replay
from smoothing_proxy.smoothing.plan import certify_plan, ladder_of, predict_plan
from smoothing_proxy.smoothing.settings import Smoothing
from smoothing_proxy.stats.certificates import required_probability
from smoothing_proxy.stats.sequential import boundary
from smoothing_proxy.types import Draws, Label, Votes

TARGET = Smoothing(sigma=0.25, alpha=0.001, target_radius=0.25, max_queries=1000)


class Stream:
    """Votes in issue order; issued, told: how many draws were ever under way, and how many were looked at."""

    def __init__(self, votes: Iterator[Label | None]) -> None:
        self.votes = votes
        self.issued = self.told = 0

    def __call__(self, request: Draws) -> Votes:
        self.issued = max(self.issued, self.told + request.count)
        self.told += request.answered
        return Votes.tally(next(self.votes) for _ in range(request.answered))


def of_probability(p: float, rng: np.random.Generator) -> Iterator[Label | None]:
    while True:
        yield from np.where(rng.random(1000) < p, "cat", "dog").tolist()


def test_unanimous_votes_prove_the_target_at_the_first_crossing_and_waste_nothing() -> None:
    stream = Stream(repeat("cat"))
    certificate = replay(certify_plan(TARGET), stream)
    assert (certificate.label, certificate.radius) == ("cat", 0.25)
    assert certificate.p_lower == required_probability(0.25, 0.25)
    assert stream.issued == stream.told == certificate.queries == ladder_of(TARGET)[0][1].first_crossing


def test_failed_draws_count_in_n_and_never_for_the_label() -> None:
    certificate = replay(certify_plan(TARGET), Stream(chain(repeat(None, 3), repeat("cat"))))
    assert certificate.label == "cat"
    assert certificate.votes.failed == 3
    assert certificate.queries > 3 + ladder_of(TARGET)[0][1].first_crossing
    assert replay(certify_plan(TARGET), Stream(repeat(None))).label is None


def test_hopeless_pictures_are_given_up_soon() -> None:
    certificate = replay(certify_plan(TARGET), Stream(of_probability(0.6, np.random.default_rng(3))))
    assert certificate.label is None
    assert certificate.radius == 0.0
    assert certificate.queries < 150


def test_a_ladder_reports_the_largest_radius_that_was_proven_with_all_smaller_ones() -> None:
    ladder = replace(TARGET, target_radius=None, target_radii=(0.5, 0.1, 0.25))
    rng = np.random.default_rng(4)
    assert replay(certify_plan(ladder), Stream(repeat("cat"))).radius == 0.5
    assert replay(certify_plan(ladder), Stream(of_probability(0.93, rng))).radius == 0.25
    assert replay(certify_plan(ladder), Stream(of_probability(0.8, rng))).radius == 0.1
    assert replay(certify_plan(ladder), Stream(of_probability(0.5, rng))).label is None


def test_few_draws_are_needless_when_it_stops_and_all_are_there_at_once_where_time_counts() -> None:
    rng = np.random.default_rng(5)
    issued, told = 0, 0
    for p in rng.beta(4, 0.5, 300):
        stream = Stream(of_probability(p, rng))
        replay(certify_plan(TARGET), stream)
        issued, told = issued + stream.issued, told + stream.told
    assert issued <= 1.12 * told
    eager = Stream(repeat("cat"))
    replay(certify_plan(replace(TARGET, policy="latency")), eager)
    assert eager.issued > eager.told


def test_the_largest_radius_takes_a_pilot_and_one_fixed_proof_on_fresh_draws() -> None:
    largest = Smoothing(sigma=0.25, n0=32, alpha=0.001, method="largest", max_queries=1000)
    sure = replay(certify_plan(largest), Stream(repeat("cat")))
    assert sure.selection.n == 32
    assert sure.votes.n < 1000
    full = replay(certify_plan(replace(largest, method="fixed", n=1000)), Stream(repeat("cat")))
    assert full.radius / 1.25 <= sure.radius <= full.radius
    hopeless = replay(certify_plan(largest), Stream(of_probability(0.3, np.random.default_rng(6))))
    assert (hopeless.label, hopeless.queries) == (None, 32) or hopeless.label == "dog"
    split = replay(certify_plan(largest), Stream(iter(["a", "b", "c", "d"] * 8)))
    assert (split.label, split.queries) == (None, 32)


def test_predict_answers_after_a_dozen_votes_and_needs_no_majority() -> None:
    assert replay(predict_plan(TARGET), Stream(repeat("cat"))).queries < 15
    rng = np.random.default_rng(7)
    plurality = iter(rng.choice(["cat", "dog", "emu", "fox"], 1000, p=[0.4, 0.2, 0.2, 0.2]).tolist())
    plural = replay(predict_plan(TARGET), Stream(plurality))
    assert plural.label == "cat"
    assert plural.votes.of("cat") < plural.queries / 2
    assert plural.p_value <= TARGET.alpha
    tied = replay(predict_plan(TARGET), Stream(iter(["cat", "dog"] * 500)))
    assert (tied.label, tied.queries) == (None, 1000)
    assert replay(predict_plan(TARGET), Stream(repeat(None))).label is None


@pytest.mark.parametrize("p", [(0.5, 0.5), (0.34, 0.33, 0.33), (0.26, 0.26, 0.24, 0.24)])
def test_predict_rejects_the_mode_no_more_often_than_alpha(p: Sequence[float]) -> None:
    """With tied labels each is a mode, so naming either is right; only a label below the mode is an error."""
    settings, rng = replace(TARGET, alpha=0.05, max_queries=300), np.random.default_rng(8)
    names = np.array(["a", "b", "c", "d"])[: len(p)]
    modes = set(names[np.array(p) == max(p)])
    wrong = 0
    for _ in range(400):
        verdict = replay(predict_plan(settings), Stream(iter(rng.choice(names, 300, p=p).tolist())))
        wrong += verdict.label is not None and verdict.label not in modes
    assert wrong <= 400 * 0.05 * 1.5


def errors_by_simulation(ratio: float, runs: int, seed: int) -> float:
    """The share of streams at the boundary p = p0 that certify; each vote is looked at, as the plan does."""
    made = boundary(required_probability(ratio, 1.0), 0.001, 300)
    rng = np.random.default_rng(seed)
    wrong = 0
    for _ in range(runs // 10_000):
        counts = (rng.random((10_000, 300)) < made.p0).cumsum(axis=1)
        others = np.arange(1, 301) - counts
        wrong += int(((counts >= made.up[1:]) | (others >= made.up[1:])).any(axis=1).sum())
    return wrong / runs


@pytest.mark.parametrize("ratio", [0.0, 0.5, 1.0])
def test_the_error_at_the_boundary_is_alpha_by_simulation(ratio: float) -> None:
    assert errors_by_simulation(ratio, 50_000, 9) <= 0.001 + 3 * (0.001 / 50_000) ** 0.5


@pytest.mark.slow
@pytest.mark.parametrize("ratio", [0.0, 0.25, 0.5, 1.0, 1.5])
def test_the_error_at_the_boundary_is_alpha_by_long_simulation(ratio: float) -> None:
    assert errors_by_simulation(ratio, 1_000_000, 10) <= 0.001 + 3 * (0.001 / 1_000_000) ** 0.5


def test_stopping_in_the_order_of_completion_would_break_the_proof() -> None:
    """At the boundary itself: with slow answers for the other label, the votes that are in favour come first."""
    made = boundary(required_probability(0.25, 1.0), 0.001, 300)
    rng, runs, in_flight = np.random.default_rng(11), 4000, 32
    wrong = 0
    for _ in range(runs):
        votes = rng.random(300) < made.p0
        finish = np.zeros(300)
        free = np.zeros(in_flight)
        for draw in range(
            300
        ):  # each draw starts when one in flight has ended; the other label takes three times as long
            place = int(free.argmin())
            free[place] += rng.exponential(1.0 if votes[draw] else 3.0)
            finish[draw] = free[place]
        counts = votes[np.argsort(finish)].cumsum()
        wrong += bool((counts >= made.up[1:]).any())
    assert wrong / runs > 0.02, "twenty times the promised error"


def test_a_recorded_stream_gives_the_same_verdict_and_answers_easier_questions() -> None:
    votes: list[Label | None] = list(chain(repeat("cat", 60), repeat("dog", 2), repeat("cat", 60)))
    live = Stream(iter(votes))
    certificate = replay(certify_plan(TARGET), live)
    recorded: list[Label | None] = votes[: live.told]
    assert replay(certify_plan(TARGET), Recording(recorded)) == certificate
    assert replay(certify_plan(replace(TARGET, alpha=0.01)), Recording(recorded)).label == "cat"
    assert replay(certify_plan(replace(TARGET, target_radius=0.1)), Recording(recorded)).radius == 0.1
    with pytest.raises(LedgerError, match="the recording ends"):
        replay(certify_plan(replace(TARGET, target_radius=0.5)), Recording(recorded))


def test_a_boundary_is_kept_on_disk_and_believed_only_when_it_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cached_boundary.cache_clear()
    first = cached_boundary(0.6, 0.01, 200)
    [path] = cache_folder(os.environ).glob("*.npy")
    cached_boundary.cache_clear()
    assert (cached_boundary(0.6, 0.01, 200).up == first.up).all()
    np.save(path, np.maximum(0, first.up - 20))  # a boundary that proves too much
    cached_boundary.cache_clear()
    assert (cached_boundary(0.6, 0.01, 200).up == first.up).all()
    path.write_bytes(b"no array")
    cached_boundary.cache_clear()
    assert (cached_boundary(0.6, 0.01, 200).up == first.up).all()
    cached_boundary.cache_clear()
