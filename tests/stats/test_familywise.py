from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from smoothing_proxy.errors import ConfigError
from smoothing_proxy.stats.certificates import certify_votes, proven_within, required_probability
from smoothing_proxy.stats.familywise import (
    Method,
    anytime_p_value,
    bonferroni_alpha,
    claims_hold,
    claims_hold_so_far,
    false_claim_p_value,
    rejected,
)
from smoothing_proxy.stats.mixture import crossing_counts, log_mixture
from smoothing_proxy.stats.reaching import reach_probability
from smoothing_proxy.types import Certificate, Votes

SIGMA = 0.25


METHODS: list[Method] = ["per-picture", "bonferroni", "holm"]

p_value_lists = st.lists(st.floats(0.0, 1.0) | st.floats(-8, -1).map(lambda e: 10.0**e), max_size=12)


def certificate(k: int, n: int = 100, alpha: float = 0.05) -> Certificate:
    return certify_votes(Votes({"cat": k}, n - k), "cat", sigma=SIGMA, alpha=alpha)


@settings(deadline=None)
@given(st.integers(10, 3_000).flatmap(lambda n: st.tuples(st.integers(n // 2, n), st.just(n))), st.floats(-9, -1))
def test_a_certificate_holds_up_to_its_own_radius(votes: tuple[int, int], exponent: float) -> None:
    k, n = votes
    made = certificate(k, n, alpha=10.0**exponent)
    if made.label is not None:
        held = claims_hold([made], made.radius, alpha=made.alpha, method="per-picture")
        beyond = claims_hold([made], made.radius + 1e-9, alpha=made.alpha, method="per-picture")
        assert (held, beyond) == ([True], [False])


@settings(deadline=None)
@given(st.lists(st.integers(50, 100), min_size=1, max_size=30), st.sampled_from([0.05, 0.1, 0.2, 0.3]))
def test_bonferroni_is_certifying_every_picture_at_alpha_over_m(ks: list[int], radius: float) -> None:
    alpha = bonferroni_alpha(0.01, len(ks))
    recertified = [certificate(k, alpha=alpha).radius >= radius for k in ks]
    assert claims_hold([certificate(k) for k in ks], radius, alpha=0.01, method="bonferroni") == recertified


@pytest.mark.parametrize(
    ("p_values", "bonferroni", "holm"),
    [
        ([], "", ""),
        ([0.04], "y", "y"),
        ([0.06], "n", "n"),
        ([0.01, 0.04, 0.03, 0.005], "ynny", "ynny"),
        ([0.03, 0.01, 0.02], "nyn", "yyy"),
        ([0.013, 0.012, 0.5, 0.6], "nynn", "yynn"),
        ([0.013, 0.014, 0.5, 0.6], "nnnn", "nnnn"),
        ([0.0, 1.0], "yn", "yn"),
    ],
)
def test_examples_by_hand_at_five_percent(p_values: list[float], bonferroni: str, holm: str) -> None:
    assert rejected(p_values, alpha=0.05, method="bonferroni") == [c == "y" for c in bonferroni]
    assert rejected(p_values, alpha=0.05, method="holm") == [c == "y" for c in holm]


@settings(deadline=None)
@given(p_value_lists)
def test_each_method_proves_what_the_stricter_one_proves(p_values: list[float]) -> None:
    single, bonferroni, holm = (
        np.array(rejected(p_values, alpha=0.05, method=method), bool) for method in METHODS
    )
    assert (bonferroni <= holm).all()
    assert (holm <= single).all()


@settings(deadline=None)
@given(p_value_lists)
@pytest.mark.parametrize("method", METHODS)
def test_the_order_of_pictures_does_not_matter(method: Method, p_values: list[float]) -> None:
    backwards = rejected(p_values[::-1], alpha=0.05, method=method)
    assert backwards[::-1] == rejected(p_values, alpha=0.05, method=method)


@pytest.mark.parametrize("method", METHODS)
def test_a_picture_that_abstained_claims_nothing(method: Method) -> None:
    abstained = certificate(100, 100, alpha=1e-40)
    assert abstained.label is None
    assert false_claim_p_value(abstained, 0.0) == 1.0
    assert claims_hold([abstained, certificate(100)], 0.0, alpha=0.05, method=method) == [False, True]


def test_the_p_value_is_the_tail_at_the_boundary() -> None:
    assert false_claim_p_value(certificate(90), 0.2) == pytest.approx(
        binom.sf(89, 100, 0.788144601416603), rel=1e-9
    )


@pytest.mark.parametrize("radius", [0.0, 0.1, 0.25, 0.5])
@pytest.mark.parametrize("n", [20, 100])
def test_the_error_of_one_claim_at_the_boundary_is_at_most_alpha(radius: float, n: int) -> None:
    boundary = 0.5 * math.erfc(-radius / SIGMA / math.sqrt(2))
    proven = [
        k
        for k in range(n + 1)
        if claims_hold([certificate(k, n, alpha=0.5)], radius, alpha=0.05, method="per-picture") == [True]
    ]
    assert np.sum(binom.pmf(proven, n, boundary)) <= 0.05 * (1 + 1e-9)


@pytest.mark.parametrize("method", ["bonferroni", "holm"])
@pytest.mark.parametrize("true_claims", [0, 15, 29])
def test_a_folder_holds_a_false_claim_no_more_often_than_alpha(method: Method, true_claims: int) -> None:
    runs, pictures, n, radius, alpha = 1_000, 30, 200, 0.1, 0.1
    p = np.full(pictures, 0.5 * math.erfc(-radius / SIGMA / math.sqrt(2)))
    p[:true_claims] = 0.95
    votes = np.random.default_rng(20260702).binomial(n, p, size=(runs, pictures))
    by_count = {int(k): certificate(int(k), n, alpha=0.5) for k in np.unique(votes)}
    false_claims = {
        kind: np.mean(
            [
                any(claims_hold([by_count[k] for k in run], radius, alpha=alpha, method=kind)[true_claims:])
                for run in votes.tolist()
            ]
        )
        for kind in (method, "per-picture")
    }
    allowed = alpha + 4 * math.sqrt(alpha * (1 - alpha) / runs)
    assert false_claims[method] <= allowed
    if true_claims < 29:
        assert false_claims["per-picture"] > allowed


def test_holm_proves_more_than_bonferroni_in_a_folder_of_mostly_true_claims() -> None:
    folder = [certificate(k) for k in [100] * 19 + [91]]
    counted = {method: sum(claims_hold(folder, 0.2, alpha=0.01, method=method)) for method in METHODS}
    assert counted == {"per-picture": 20, "bonferroni": 19, "holm": 20}


def test_holm_proves_what_chose_its_label_by_the_same_draws_at_alpha_over_m_or_not_at_all() -> None:
    tight, loose = (
        proven_within(0.1, "cat", Votes({"cat": 99}, 1), sigma=SIGMA, alpha=alpha) for alpha in (0.005, 0.01)
    )
    assert claims_hold([tight, loose], 0.1, alpha=0.01, method="holm") == [True, False]
    assert claims_hold([loose, certificate(100)], 0.1, alpha=0.01, method="holm") == [False, True]


def test_alpha_is_shared_out_evenly() -> None:
    assert bonferroni_alpha(0.001, 4) == 0.00025


@pytest.mark.parametrize("m", [0, -1])
def test_a_folder_has_pictures(m: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        bonferroni_alpha(0.001, m)


@pytest.mark.parametrize("alpha", [0.0, 1.0, math.nan])
def test_an_alpha_outside_its_range_is_refused(alpha: float) -> None:
    with pytest.raises(ConfigError, match="alpha"):
        bonferroni_alpha(alpha, 3)
    for method in METHODS:
        with pytest.raises(ConfigError, match="alpha"):
            claims_hold([], 0.1, alpha=alpha, method=method)


def test_an_unknown_method_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'bonferroni'"):
        claims_hold([], 0.1, alpha=0.05, method="bonferoni")  # type: ignore[arg-type]


@pytest.mark.parametrize("p_value", [math.nan, -0.1, 1.1])
@pytest.mark.parametrize("method", METHODS)
def test_what_is_no_p_value_is_refused_not_rejected(p_value: float, method: Method) -> None:
    with pytest.raises(ValueError, match="p-values"):
        rejected([0.5, p_value], alpha=0.05, method=method)


def test_a_negative_radius_is_refused() -> None:
    with pytest.raises(ConfigError, match="radius"):
        claims_hold([certificate(90)], -0.1, alpha=0.05, method="holm")


@settings(deadline=None)
@given(p_value_lists)
def test_it_rejects_what_statsmodels_rejects(p_values: list[float]) -> None:
    from statsmodels.stats.multitest import multipletests

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gc.collect", lambda: 0)  # it collects garbage on each call of Holm's procedure
        for method in METHODS[1:]:
            theirs = multipletests(p_values, alpha=0.05, method=method)[0].tolist() if p_values else []
            assert rejected(p_values, alpha=0.05, method=method) == theirs


streams = st.lists(st.sampled_from(["cat", "cat", "cat", "dog", None]), max_size=60)


@settings(deadline=None)
@given(streams)
def test_an_anytime_p_value_only_falls_and_starts_at_one(votes: list[str | None]) -> None:
    p_values = [anytime_p_value(votes[:n], "cat", 0.1, sigma=SIGMA) for n in range(len(votes) + 1)]
    assert p_values[0] == 1.0
    assert p_values == sorted(p_values, reverse=True)
    assert 0.0 < p_values[-1] <= 1.0


@settings(deadline=None)
@given(streams.filter(bool))
def test_a_failed_draw_weighs_as_much_as_another_label(votes: list[str | None]) -> None:
    failed = [None if vote == "dog" else vote for vote in votes]
    assert anytime_p_value(failed, "cat", 0.1, sigma=SIGMA) == anytime_p_value(votes, "cat", 0.1, sigma=SIGMA)


@pytest.mark.parametrize("radius", [0.0, 0.1, 0.25])
def test_an_anytime_p_value_is_one_by_enumeration_of_every_stream(radius: float) -> None:
    """At p_A = p0, the chance that it is ever <= a is <= a, for every a that it takes."""
    n, p0 = 12, required_probability(radius, SIGMA)
    chance_of: dict[float, float] = {}
    for votes in product(["cat", "dog"], repeat=n):
        p_value = anytime_p_value(votes, "cat", radius, sigma=SIGMA)
        cats = votes.count("cat")
        chance_of[p_value] = chance_of.get(p_value, 0.0) + p0**cats * (1 - p0) ** (n - cats)
    total = 0.0
    for p_value in sorted(chance_of):
        total += chance_of[p_value]
        assert total <= p_value + 1e-12
    assert min(chance_of) < 0.25


def ever_below(a: float, radius: float, n: int, p: float) -> float:
    """The exact chance that an anytime p-value is ever <= a within n draws of a label of probability p."""
    p0 = required_probability(radius, SIGMA)
    return reach_probability(p, crossing_counts(n, p0, math.log(1 / a)))


@pytest.mark.parametrize("m", [1, 5, 30])
@pytest.mark.parametrize("radius", [0.0, 0.1, 0.25])
def test_a_folder_of_false_claims_is_rejected_at_some_moment_no_more_often_than_alpha(
    radius: float, m: int
) -> None:
    """Exactly, for independent pictures: where all claims are false, Holm's first step is Bonferroni's."""
    each = ever_below(0.05 / m, radius, 3000, required_probability(radius, SIGMA))
    assert 0.0 < 1 - (1 - each) ** m <= 0.05


@pytest.mark.parametrize("sigmas", [0.0, 0.5, 1.0, 2.0, 3.5, 6.0])
@pytest.mark.parametrize("every", [0, 2])
def test_a_label_that_others_outvote_is_not_proven_by_many_draws(sigmas: float, every: int) -> None:
    """Not by 3000 draws without a vote, nor by 3000 of which half are votes for it."""
    votes = ["cat" if every and number % every else "dog" for number in range(3000)]
    radius = sigmas * SIGMA
    assert anytime_p_value(votes, "cat", radius, sigma=SIGMA) >= (0.1 if sigmas == 0.0 and every else 1.0)
    assert claims_hold_so_far([("cat", votes)], radius, sigma=SIGMA, alpha=0.05, method="holm") == [False]


@pytest.mark.parametrize("radius", [0.0, 0.1, 0.25, 0.5, 1.5])
def test_the_p_value_falls_below_alpha_just_where_the_boundary_is_reached(radius: float) -> None:
    """At every count of votes that 1200 draws can bring, so that the exact error of the boundary is its own."""
    p0, most, h = required_probability(radius, SIGMA), 1200, math.log(1 / 0.05)
    fewest = crossing_counts(most, p0, h)
    for n in range(1, most + 1):
        k = np.arange(n + 1)
        reached = log_mixture(np.full(n + 1, n), k, p0) >= h
        assert (reached == (k >= fewest[n])).all(), n


def test_looking_after_every_draw_and_stopping_at_will_keeps_the_error_of_holm() -> None:
    """Some claims are true; each round draws once for every picture that is not proven yet."""
    runs, n, radius, alpha = 300, 80, 0.1, 0.2
    p0 = required_probability(radius, SIGMA)
    rng = np.random.default_rng(4)
    chances = np.array([0.97] * 4 + [p0] * 4)
    wrong = proven = 0
    for _ in range(runs):
        votes = [np.where(row, "cat", "dog").tolist() for row in rng.random((8, n)) < chances[:, None]]
        shown = [0] * 8
        held = [False] * 8
        for _round in range(n // 10):
            shown = [count if done else count + 10 for count, done in zip(shown, held, strict=True)]
            so_far = [("cat", row[:count]) for row, count in zip(votes, shown, strict=True)]
            before, held = held, claims_hold_so_far(so_far, radius, sigma=SIGMA, alpha=alpha, method="holm")
            assert all(now for now, then in zip(held, before, strict=True) if then), "what was proven stays so"
        wrong += any(held[4:])
        proven += sum(held[:4])
    assert wrong / runs <= alpha + 3 * math.sqrt(alpha * (1 - alpha) / runs)
    assert proven / runs > 3.5


def test_holm_proves_more_of_the_same_streams_than_bonferroni() -> None:
    sure, close = ["cat"] * 60, ["cat"] * 16
    streams = [("cat", sure)] * 19 + [("cat", close)]
    held = {
        method: sum(claims_hold_so_far(streams, 0.1, sigma=SIGMA, alpha=0.01, method=method)) for method in METHODS
    }
    assert held == {"per-picture": 20, "bonferroni": 19, "holm": 20}
