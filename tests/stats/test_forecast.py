"""Forecasts: exact against the boundary's own dynamic programme, and against the plans that they speak of."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np
import pytest
from scipy import stats

from smoothing_proxy.runs.choosing import forecast_of
from smoothing_proxy.smoothing.drive import replay
from smoothing_proxy.smoothing.plan import certify_plan, most_draws
from smoothing_proxy.smoothing.settings import Smoothing
from smoothing_proxy.stats.certificates import required_probability
from smoothing_proxy.stats.forecast import (
    Forecast,
    forecast_fixed,
    forecast_largest,
    forecast_predict,
    forecast_target,
)
from smoothing_proxy.stats.priors import PUBLISHED, Prior, after_pilot, beta_mixture
from smoothing_proxy.stats.reaching import operating
from smoothing_proxy.stats.sequential import Boundary, boundary
from smoothing_proxy.stats.stops import stops
from smoothing_proxy.types import Draws, Label, Votes

ALPHA = 0.001
P = np.array([0.0, 0.1, 0.5, 0.6, 0.75, 0.84, 0.9, 0.97, 0.999, 1.0])


@cache
def made(ratio: float, n_max: int = 300) -> Boundary:
    return boundary(required_probability(ratio, 1.0), ALPHA, n_max)


def only(p: float) -> Prior:
    return Prior.of([p], "one picture")


@pytest.mark.parametrize(("ratio", "n_max"), [(0.0, 100), (0.25, 1000), (1.0, 300), (2.0, 1000)])
def test_a_forecast_is_what_the_boundarys_own_programme_says(ratio: float, n_max: int) -> None:
    rule = made(ratio, n_max)
    ends = stops([rule])
    chances = ends.chances(P)
    exact = [operating(float(p), rule.up, rule.low) for p in P]
    assert chances.sum(axis=1) == pytest.approx(1.0)
    assert chances @ (ends.proven == 1) == pytest.approx([x.certifies for x in exact], abs=1e-12)
    assert chances @ ends.n == pytest.approx([x.draws for x in exact])


def test_the_ways_to_end_a_ladder_have_probability_one_for_any_picture() -> None:
    ends = stops([made(0.0, 1000), made(0.5, 1000), made(1.5, 1000)])
    assert ends.chances(np.linspace(0, 1, 41)).sum(axis=1) == pytest.approx(1.0)
    assert set(ends.proven.tolist()) == {0, 1, 2, 3}


def test_a_rung_of_a_ladder_is_proven_as_often_as_alone_but_for_giving_up() -> None:
    alone = [forecast_target(PUBLISHED, [(r, made(r))]).proven_at(r) for r in (0.25, 1.0)]
    ladder = forecast_target(PUBLISHED, [(r, made(r)) for r in (0.25, 1.0)])
    assert ladder.proven == pytest.approx(alone, abs=0.01)
    assert ladder.mean_radius == pytest.approx(0.25 * ladder.proven[0] + 0.75 * ladder.proven[1])


def answers(p: float, rng: np.random.Generator) -> Iterator[Label]:
    other = 0
    while True:
        other += 1
        yield "label" if rng.random() < p else f"other {other}"


def simulated(smoothing: Smoothing, prior: Prior, pictures: int, seed: int) -> tuple[list[int], list[float]]:
    """Queries and radii of the real plan, votes drawn from the prior."""
    rng = np.random.default_rng(seed)
    queries, radii = [], []
    for p in rng.choice(prior.p, pictures, p=prior.weight):
        votes = answers(float(p), rng)

        def draw(request: Draws, votes: Iterator[Label] = votes) -> Votes:
            return Votes.tally(next(votes) for _ in range(request.answered))

        certificate = replay(certify_plan(smoothing), draw)
        queries.append(certificate.queries)
        radii.append(certificate.radius)
    return queries, radii


@pytest.mark.parametrize(
    ("settings", "pictures"),
    [
        ({"target_radius": 0.5, "max_queries": 300}, 1000),
        ({"target_radii": (0.0, 0.5, 1.0), "max_queries": 300}, 1000),
        ({"method": "largest", "n0": 24, "max_queries": 300}, 200),
        ({"method": "fixed", "n0": 24, "n": 200}, 1000),
    ],
    ids=["target", "ladder", "largest", "fixed"],
)
def test_a_forecast_agrees_with_the_plan_it_speaks_of(settings: dict[str, object], pictures: int) -> None:
    smoothing = Smoothing(sigma=1.0, alpha=ALPHA, **settings)  # type: ignore[arg-type]
    prior = beta_mixture([(3, 8, 1), (1, 4, 3)], points=40)
    radii = smoothing.ladder or (0.0, 0.5, 1.0)
    forecast = forecast_of(smoothing, prior, radii)
    queries, found = simulated(smoothing, prior, pictures, seed=1)
    noise = 4 * forecast.deviation / pictures**0.5
    assert np.mean(queries) == pytest.approx(forecast.mean, abs=max(noise, 1e-9))
    assert np.mean(found) == pytest.approx(forecast.mean_radius, abs=4 * np.std(found) / pictures**0.5)
    for radius, expected in zip(radii, forecast.proven, strict=True):
        if radius > 0:
            assert np.mean(np.array(found) >= radius) == pytest.approx(expected, abs=2 / pictures**0.5)
    assert forecast.most == most_draws(smoothing) >= max(queries)


def test_a_fixed_procedure_costs_what_it_costs_and_proves_what_the_binomial_says() -> None:
    forecast = forecast_fixed(only(0.9), n0=10, n=100, alpha=ALPHA, sigma=1.0, radii=[0.5, 0.0])
    assert (forecast.mean, forecast.deviation, forecast.most, forecast.quantile(0.01)) == (110, 0, 110, 110)
    needed = next(k for k in range(101) if stats.beta.ppf(ALPHA, k, 101 - k) >= stats.norm.cdf(0.5))
    assert forecast.radii.tolist() == [0.0, 0.5]
    found = stats.binom.sf(5, 10, 0.9) + stats.binom.pmf(5, 10, 0.9) / 2
    assert forecast.proven_at(0.5) == pytest.approx(found * stats.binom.sf(needed - 1, 100, 0.9))
    assert forecast.proven_at(0.7) == 0.0, "it was not asked about"


def test_a_tolerance_saves_queries_and_costs_about_that_much_radius() -> None:
    exact = forecast_largest(PUBLISHED, n0=32, n_max=1000, alpha=ALPHA, sigma=0.25, tolerance=0.0)
    loose = forecast_largest(PUBLISHED, n0=32, n_max=1000, alpha=ALPHA, sigma=0.25, tolerance=0.1)
    assert loose.mean < 0.75 * exact.mean
    assert exact.mean_radius / 1.13 <= loose.mean_radius < exact.mean_radius


def test_quantiles_are_of_the_cost() -> None:
    forecast = Forecast(10, np.array([2, 5, 10]), np.array([0.5, 0.4, 0.1]), np.zeros(1), np.ones(1), 0.0)
    assert [forecast.quantile(x) for x in (0.0, 0.5, 0.51, 0.9, 1.0)] == [2, 2, 5, 5, 10]
    assert forecast.mean == pytest.approx(4.0)
    assert forecast.deviation == pytest.approx((0.5 * 4 + 0.4 * 1 + 0.1 * 36) ** 0.5)


def test_predict_is_quick_where_it_is_easy_and_abstains_on_a_tie() -> None:
    rng = np.random.default_rng(2)
    sure = forecast_predict(only(1.0), alpha=ALPHA, max_queries=200, rng=rng)
    assert (sure.proven[0], sure.deviation, sure.most) == (1.0, 0.0, 200)
    assert sure.mean < 20
    tied = forecast_predict(only(0.3), alpha=ALPHA, max_queries=200, rng=rng, trials=20)
    assert tied.proven[0] < 0.2
    assert tied.mean > 150


def test_a_pilot_moves_the_prior_towards_what_it_saw() -> None:
    good, bad = [(30, 30)] * 10, [(12, 30)] * 10
    means = [float(prior.p @ prior.weight) for prior in (after_pilot(bad, PUBLISHED), PUBLISHED)]
    means.append(float((better := after_pilot(good, PUBLISHED)).p @ better.weight))
    assert means == sorted(means)
    assert means[0] < 0.65 < 0.93 < means[2]
    assert "a pilot of 10 pictures" in better.source
    unmoved = after_pilot([], PUBLISHED)
    assert unmoved.weight == pytest.approx(PUBLISHED.weight)


def test_how_much_a_pilot_weighs_is_said() -> None:
    one, coin = [(0, 50)], Prior(np.array([0.2, 0.9]), np.array([1.0, 1.0]), "coin")
    assert after_pilot(one, coin, prior_pictures=3).weight == pytest.approx([2.5 / 4, 1.5 / 4])


def test_a_beta_mixture_has_the_means_of_its_parts() -> None:
    prior = beta_mixture([(1, 2, 2), (3, 9, 1)], points=2000)
    assert prior.p @ prior.weight == pytest.approx((0.5 + 3 * 0.9) / 4, abs=1e-4)
    assert prior.source == "1 Beta(2, 2) + 3 Beta(9, 1)"


@pytest.mark.parametrize(
    ("p", "weight"),
    [
        ([], []),
        ([0.5], [1.0, 1.0]),
        ([1.1], [1.0]),
        ([0.5], [0.0]),
        ([float("nan")], [1.0]),
        ([0.5], [float("inf")]),
    ],
)
def test_what_is_no_prior_is_refused(p: list[float], weight: list[float]) -> None:
    with pytest.raises(ValueError, match="expected"):
        Prior(np.array(p), np.array(weight), "none")


@pytest.mark.parametrize(("pilot", "message"), [((11, 10), "at most as many"), ((3, 10), "impossible")])
def test_a_pilot_that_cannot_be_is_refused(pilot: tuple[int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        after_pilot([pilot], only(1.0))
