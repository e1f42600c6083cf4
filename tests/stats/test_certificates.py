from __future__ import annotations

import math
from itertools import product

import mpmath as mp
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from smoothing_proxy.errors import ConfigError
from smoothing_proxy.stats.binomial import lower_bound
from smoothing_proxy.stats.certificates import (
    certified_radius,
    certify_votes,
    predict_votes,
    required_probability,
)
from smoothing_proxy.types import Votes
from tests.stats.exact_binomial import normal_probability, normal_quantile

sigmas = st.floats(0.01, 2.0)
alphas = st.floats(-12, -0.5).map(lambda exponent: 10.0**exponent)
probabilities = st.floats(0.5, 1.0) | st.floats(-15, -1).map(lambda e: 1 - 10.0**e)


def radius(k: int, n: int, *, failed: int = 0, sigma: float = 0.25, alpha: float = 0.001) -> float:
    votes = Votes({"cat": k, "dog": n - k - failed}, failed)
    return certify_votes(votes, "cat", sigma=sigma, alpha=alpha).radius


@pytest.mark.parametrize(
    ("votes", "expected"),
    [
        (Votes({"cat": 10}), 0.25 * 0.00297596),
        (Votes({"cat": 100}), 0.25 * 1.50048),
        (Votes({"cat": 99, "dog": 1}), 0.25 * 1.34926),
        (Votes({"cat": 99}, failed=1), 0.25 * 1.34926),
        (Votes({"cat": 100_000}), 0.25 * 3.811457),
    ],
)
def test_a_majority_is_certified_within_its_radius(votes: Votes, expected: float) -> None:
    certificate = certify_votes(votes, "cat", sigma=0.25, alpha=0.001)
    assert certificate.label == "cat"
    assert certificate.radius == pytest.approx(expected, rel=1e-5)
    assert certificate.p_lower == lower_bound(votes.of("cat"), votes.n, 0.001)
    assert (certificate.votes, certificate.sigma, certificate.alpha) == (votes, 0.25, 0.001)


@pytest.mark.parametrize(
    ("votes", "label"),
    [
        (Votes(), "cat"),
        (Votes(), None),
        (Votes({"cat": 100}), None),
        (Votes({"dog": 100}), "cat"),
        (Votes({"cat": 9}), "cat"),
        (Votes({"cat": 60, "dog": 40}), "cat"),
        (Votes({"cat": 60}, failed=40), "cat"),
        (Votes(failed=100), "cat"),
    ],
)
def test_what_is_not_proven_abstains(votes: Votes, label: str | None) -> None:
    certificate = certify_votes(votes, label, sigma=0.25, alpha=0.001)
    assert (certificate.label, certificate.radius) == (None, 0.0)
    assert not certificate.p_lower > 0.5


def test_a_bound_of_one_half_proves_nothing() -> None:
    votes = Votes({"cat": 10})
    assert certify_votes(votes, "cat", sigma=0.25, alpha=2.0**-10).label is None
    assert certify_votes(votes, "cat", sigma=0.25, alpha=2.0**-10 * 1.0001).label == "cat"


def test_a_certificate_keeps_both_phases() -> None:
    selection = Votes({"cat": 15, "dog": 4}, failed=1)
    certificate = certify_votes(Votes({"cat": 90}, failed=10), "cat", sigma=0.25, alpha=0.001, selection=selection)
    assert certificate.selection == selection
    assert certificate.queries == 120


@pytest.mark.parametrize("p_lower", [math.nan, 0.0, 0.4, 0.5])
def test_no_radius_without_a_proven_majority(p_lower: float) -> None:
    assert certified_radius(p_lower, 0.25) == 0.0


@given(probabilities, sigmas)
def test_a_radius_is_rounded_down_and_stays_next_to_the_true_one(p_lower: float, sigma: float) -> None:
    rounded = certified_radius(p_lower, sigma)
    if p_lower == 1.0:
        assert 7.5 * sigma < rounded < 8 * sigma
        return
    exact = sigma * normal_quantile(p_lower)
    assert rounded <= max(0, exact)
    lost = normal_probability(exact / sigma) - normal_probability(rounded / sigma)
    assert lost <= 2.0**-47


@given(probabilities, sigmas)
def test_a_radius_asks_for_no_more_than_the_probability_it_came_from(p_lower: float, sigma: float) -> None:
    proven = certified_radius(p_lower, sigma)
    if proven > 0:
        assert required_probability(proven, sigma) <= p_lower


@given(st.floats(0.0, 3.0), sigmas)
def test_a_required_probability_is_rounded_up(asked: float, sigma: float) -> None:
    exact = normal_probability(mp.mpf(asked) / mp.mpf(sigma))
    assert exact <= required_probability(asked, sigma) <= exact + 1e-15


@given(st.integers(10, 2_000).flatmap(lambda n: st.tuples(st.integers(0, n - 1), st.just(n))))
def test_the_radius_grows_with_votes(votes: tuple[int, int]) -> None:
    k, n = votes
    assert radius(k + 1, n) >= radius(k, n)
    if radius(k + 1, n) > 0:
        assert radius(k + 1, n) > radius(k, n)


@given(st.integers(10, 2_000), st.integers(0, 50), st.integers(1, 50))
def test_the_radius_shrinks_with_failed_draws(k: int, failed: int, more: int) -> None:
    fewer = radius(k, k + failed, failed=failed)
    assert radius(k, k + failed + more, failed=failed + more) < fewer or fewer == 0.0


@given(st.integers(10, 1_000), st.integers(0, 100))
def test_a_failed_draw_weighs_as_much_as_a_vote_for_another_label(k: int, others: int) -> None:
    assert radius(k, k + others, failed=others) == radius(k, k + others)


@given(st.integers(0, 1_000), sigmas, st.floats(0.1, 10.0))
def test_the_radius_scales_with_sigma(k: int, sigma: float, factor: float) -> None:
    scaled = radius(k, 1_000, sigma=sigma * factor)
    assert scaled == pytest.approx(factor * radius(k, 1_000, sigma=sigma), rel=1e-14)


@given(st.integers(500, 1_000), alphas, st.floats(1.01, 1e6))
def test_the_radius_falls_with_a_smaller_alpha(k: int, alpha: float, factor: float) -> None:
    larger = radius(k, 1_000, alpha=alpha)
    assert radius(k, 1_000, alpha=alpha / factor) < larger or larger == 0.0


@pytest.mark.parametrize("sigma", [0.0, -0.25, math.nan, math.inf])
def test_a_sigma_that_is_no_noise_level_is_refused(sigma: float) -> None:
    with pytest.raises(ConfigError, match="sigma"):
        certify_votes(Votes({"cat": 100}), "cat", sigma=sigma, alpha=0.001)


@pytest.mark.parametrize("alpha", [0.0, 1.0, math.nan])
def test_an_alpha_outside_its_range_is_refused(alpha: float) -> None:
    for votes in (Votes(), Votes({"cat": 100})):
        with pytest.raises(ConfigError, match="alpha"):
            certify_votes(votes, "cat", sigma=0.25, alpha=alpha)
        with pytest.raises(ConfigError, match="alpha"):
            predict_votes(votes, alpha=alpha)


@pytest.mark.parametrize("asked", [-0.1, math.nan, math.inf])
def test_a_radius_that_is_no_distance_is_refused(asked: float) -> None:
    with pytest.raises(ConfigError, match="radius"):
        required_probability(asked, 0.25)


@pytest.mark.parametrize(
    ("votes", "label"),
    [
        (Votes({"cat": 11}), "cat"),
        (Votes({"cat": 10}), None),
        (Votes({"cat": 11}, failed=500), "cat"),
        (Votes({"cat": 30, "dog": 5, "cow": 5}), "cat"),
        (Votes({"cat": 30, "dog": 25, "cow": 5}), None),
        (Votes({"cat": 50, "dog": 50}), None),
        (Votes({"cat": 1, "dog": 1, "cow": 1}), None),
        (Votes(failed=100), None),
        (Votes(), None),
    ],
)
def test_predict_answers_when_the_two_best_labels_can_be_told_apart(votes: Votes, label: str | None) -> None:
    prediction = predict_votes(votes, alpha=0.001)
    best, second = sorted([0, 0, *votes.counts.values()])[:-3:-1]
    expected = binomtest(best, best + second, 0.5).pvalue if best else 1.0
    assert prediction.p_value == pytest.approx(expected, rel=1e-12)
    assert (prediction.label, prediction.votes, prediction.alpha) == (label, votes, 0.001)


@pytest.mark.parametrize(
    "chances",
    [
        {"cat": 0.5, "dog": 0.5},
        {"cat": 0.51, "dog": 0.49},
        {"cat": 0.34, "dog": 0.33, "cow": 0.33},
        {"cat": 0.26, "dog": 0.25, "cow": 0.0, None: 0.49},
        {"cat": 0.1, "dog": 0.1, "cow": 0.05, None: 0.75},
        {"cat": 0.2, "dog": 0.2, "cow": 0.2, None: 0.4},
    ],
)
@pytest.mark.parametrize("alpha", [0.05, 0.2])
def test_predict_is_wrong_with_probability_at_most_alpha(chances: dict[str | None, float], alpha: float) -> None:
    n = 18
    largest = max(chance for label, chance in chances.items() if label is not None)
    wrong = 0.0
    for counts in product(range(n + 1), repeat=len(chances)):
        if sum(counts) != n:
            continue
        by_label = dict(zip(chances, counts, strict=True))
        failed = by_label.pop(None, 0)
        votes = Votes({label: count for label, count in by_label.items() if label is not None}, failed)
        label = predict_votes(votes, alpha=alpha).label
        # Where the best chances tie, either label is right; the cat alone is harder.
        if label is not None and (chances[label] < largest or label == "dog"):
            wrong += math.factorial(n) * math.prod(
                chance**count / math.factorial(count)
                for chance, count in zip(chances.values(), counts, strict=True)
            )
    assert 0.0 < wrong <= alpha
