"""What sequential proofs reach on the published logs, and their error in simulations of answers in any order."""

from __future__ import annotations

import json
import runpy
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from smoothing_proxy.stats.certificates import required_probability
from smoothing_proxy.stats.priors import PUBLISHED, Prior
from smoothing_proxy.stats.sequential import Boundary, boundary, error_of

BENCH: Any = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "bench_queries.py")))

ALPHA = 0.001
RATIOS = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0)
RUNS = 200_000


@pytest.fixture(scope="module")
def prior(shared_data: Path) -> Prior:
    found: Prior = BENCH.published_prior(shared_data / "cohen-logs")
    return found


@pytest.mark.parametrize(
    ("n_max", "ratio", "fixed", "ours", "queries"),
    [
        (1000, 0.25, 0.819, 0.816, 90),
        (1000, 0.5, 0.742, 0.739, 95),
        (1000, 1.0, 0.620, 0.617, 99),
        (1000, 1.5, 0.510, 0.507, 133),
        (1000, 2.0, 0.397, 0.389, 208),
        (10_000, 1.0, 0.641, 0.639, 250),
    ],
)
def test_a_target_radius_costs_and_proves_what_was_promised(
    prior: Prior, n_max: int, ratio: float, fixed: float, ours: float, queries: float
) -> None:
    row = BENCH.target_row(prior, ratio, n_max, mixture=n_max > 1000)
    found = (row["fixed_certifies"], row["certifies"], row["queries"])
    assert found == pytest.approx((fixed, ours, queries), rel=0.03)


def test_the_largest_radius_costs_and_proves_what_was_promised(prior: Prior) -> None:
    """With at most 10,000 draws it takes up to 7 % more queries than the 935 that were promised."""
    for row in BENCH.largest_rows(prior):
        assert row["radius"] == pytest.approx(row["study"]["radius"], rel=0.03)
        assert row["queries"] == pytest.approx(
            row["study"]["queries"], rel=0.07 if row["n_max"] == 10_000 else 0.03
        )


@pytest.mark.slow
def test_the_label_alone_costs_what_was_promised(prior: Prior) -> None:
    row = BENCH.predict_row(prior, trials=20)
    assert row["median"] == 12
    assert row["mean"] == pytest.approx(133, rel=0.03)
    assert row["abstains"] == pytest.approx(0.09, abs=0.005)


def test_the_level_at_which_a_log_is_read_matters_little(shared_data: Path, prior: Prior) -> None:
    other = BENCH.published_prior(shared_data / "cohen-logs", log_alpha=0.001)
    a, b = BENCH.target_row(prior, 0.5, 1000), BENCH.target_row(other, 0.5, 1000)
    assert a["queries"] == pytest.approx(b["queries"], rel=0.01)
    assert a["certifies"] == pytest.approx(b["certifies"], abs=0.005)


def test_the_prior_that_is_shipped_is_that_of_the_log(prior: Prior) -> None:
    values = np.repeat(prior.p, np.rint(prior.weight * 500).astype(int))
    assert len(values) == 500
    middles = (np.arange(50) + 0.5) / 50
    shipped = np.repeat(PUBLISHED.p, np.rint(PUBLISHED.weight * 50).astype(int))
    assert shipped == pytest.approx(np.quantile(values, middles), abs=1e-5)


def test_the_documented_tables_are_those_of_the_measurement() -> None:
    found = json.loads(BENCH.RESULTS.read_text(encoding="utf-8"))
    page = BENCH.DOCS.read_text(encoding="utf-8")
    assert BENCH.with_tables(page, found) == page
    assert all(made in page for made in BENCH.tables(found).values())
    assert {"machine", "software"} <= found.keys()
    assert all(row["trials"] >= 1000 for row in (*found["in_flight"], found["predict"]))


@cache
def made(ratio: float, n_max: int) -> Boundary:
    return boundary(required_probability(ratio, 1.0), ALPHA, n_max)


@pytest.mark.parametrize("ratio", RATIOS)
def test_the_error_with_ten_thousand_draws_is_exactly_at_most_alpha(ratio: float) -> None:
    rule = made(ratio, 10_000)
    assert rule.error == error_of(rule.up, rule.p0) <= ALPHA


Times = npt.NDArray[np.float32]


def finished(latency: Times, batch: int) -> Times:
    """float [runs, n]: when each draw is answered, if each batch leaves as soon as the last one is complete."""
    runs, n = latency.shape
    whole = np.zeros((runs, -(-n // batch) * batch), dtype=np.float32)
    whole[:, :n] = latency
    parts = whole.reshape(runs, -1, batch)
    longest = parts.max(axis=2)
    started = longest.cumsum(axis=1) - longest
    finish: Times = (parts + started[:, :, np.newaxis]).reshape(runs, -1)[:, :n]
    return finish


def looks_of(finish: Times) -> npt.NDArray[np.bool_]:
    """bool [runs, n]: whether at some moment the draws up to this one, and no more, are settled without a gap.

    Only then does a plan look at this prefix last.
    """
    settled = np.maximum.accumulate(finish, axis=1)
    looks = np.ones(finish.shape, dtype=np.bool_)
    looks[:, :-1] = settled[:, 1:] > settled[:, :-1]
    return looks


def wrong_share(
    ratio: float, n_max: int, batch: int, *, tied: int, failing: float, seed: int, runs: int = RUNS
) -> tuple[float, int]:
    """The share of streams in which a label is certified though none has more than p0, and how many there were.

    One label has p0, `tied` others share the rest; `failing` is the share of their draws that vote for nothing.
    Answers for the first label take a third of the others' time.
    """
    rule, rng = made(ratio, n_max), np.random.default_rng(seed)
    chunk = min(runs, 2_000_000 // n_max)
    done = wrong = 0
    while done < runs:
        first = rng.random((chunk, n_max), dtype=np.float32) < rule.p0
        label = np.where(first, np.int8(0), rng.integers(1, tied + 1, (chunk, n_max), dtype=np.int8))
        if failing:
            label[~first & (rng.random((chunk, n_max), dtype=np.float32) < failing)] = -1
        latency = rng.standard_exponential((chunk, n_max), dtype=np.float32) * np.where(first, 1, 3)
        looks = looks_of(finished(latency.astype(np.float32), batch))
        certified = np.zeros(chunk, dtype=np.bool_)
        for name in range(tied + 1):
            counts = (label == name).cumsum(axis=1, dtype=np.int32)
            certified |= ((counts >= rule.up[1:]) & looks).any(axis=1)
        wrong += int(certified.sum())
        done += chunk
    return wrong / done, done


@pytest.mark.slow
@pytest.mark.parametrize(("tied", "failing"), [(1, 0.0), (3, 0.2)])
@pytest.mark.parametrize("batch", [1, 8, 32])
@pytest.mark.parametrize("n_max", [100, 300, 1000])
@pytest.mark.parametrize("ratio", RATIOS)
def test_no_order_of_answers_and_no_failure_makes_more_errors_than_promised(
    ratio: float, n_max: int, batch: int, tied: int, failing: float
) -> None:
    share, runs = wrong_share(ratio, n_max, batch, tied=tied, failing=failing, seed=batch)
    assert runs >= RUNS
    assert share <= ALPHA + 4 * (ALPHA / runs) ** 0.5


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("ratio", RATIOS)
def test_nor_do_ten_thousand_draws(ratio: float) -> None:
    share, runs = wrong_share(ratio, 10_000, 32, tied=3, failing=0.2, seed=5)
    assert runs >= RUNS
    assert share <= ALPHA + 4 * (ALPHA / runs) ** 0.5


@pytest.mark.parametrize("batch", [1, 8, 32])
def test_the_simulated_world_makes_nearly_the_exact_error_so_that_it_tests_something(batch: int) -> None:
    """Where each draw is looked at, the error is the computed one."""
    share, runs = wrong_share(0.5, 100, batch, tied=1, failing=0.0, seed=batch)
    exact = made(0.5, 100).error
    noise = 4 * (exact / runs) ** 0.5
    assert share <= exact + noise
    assert share >= (exact - noise if batch == 1 else 0.2 * exact)


def test_with_label_dependent_latency_completion_order_breaks_what_issue_order_keeps() -> None:
    """The same streams and times as above, told in the order of completion within 32 in flight."""
    rule, rng, runs = made(0.25, 300), np.random.default_rng(3), 20_000
    first = rng.random((runs, 300)) < rule.p0
    finish = finished(rng.exponential(np.where(first, 1.0, 3.0)).astype(np.float32), 32)
    told = np.take_along_axis(first, finish.argsort(axis=1), axis=1).cumsum(axis=1)
    assert (told >= rule.up[1:]).any(axis=1).mean() > 3 * ALPHA
