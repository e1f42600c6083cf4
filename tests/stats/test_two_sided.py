"""Both bounds: what they prove, when they are chosen, and how often any of them is wrong."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta, norm

from smoothing_proxy.errors import ConfigError
from smoothing_proxy.smoothing.drive import Recording, replay
from smoothing_proxy.smoothing.plan import certify_plan
from smoothing_proxy.smoothing.settings import Smoothing
from smoothing_proxy.stats.certificates import certify_votes
from smoothing_proxy.stats.two_sided import (
    MOST_NAMED,
    certify_either,
    certify_two_sided,
    named_others,
    simultaneous_bounds,
    two_sided_radius,
)
from smoothing_proxy.types import Votes

SIGMA = 0.25
SPREAD = Votes({"a": 70, "b": 10, "c": 10, "d": 10})


def times(votes: Votes, factor: int) -> Votes:
    return Votes({label: count * factor for label, count in votes.counts.items()}, votes.failed * factor)


@pytest.mark.parametrize(
    ("counts", "k", "named"),
    [
        ({"a": 90, "b": 10}, 1, "b"),
        ({"a": 100}, 1, ""),
        ({"a": 70, "b": 10, "c": 10, "d": 10}, 1, "bc"),
        ({"a": 70, "b": 20, "c": 5, "d": 5}, 1, "b"),
        ({"a": 70, "b": 20, "c": 5, "d": 5}, 2, "bcd"[:2]),
        ({"a": 20, "b": 60, "c": 20}, 1, "b"),
    ],
)
def test_others_are_named_until_those_left_over_weigh_no_more_than_one(
    counts: dict[str, int], k: int, named: str
) -> None:
    assert named_others(Votes(counts), "a", k) == tuple(named)


def test_no_more_than_so_many_others_are_named() -> None:
    many = Votes({"a": 1000} | {f"{i:03}": 10 for i in range(200)})
    assert len(named_others(many, "a", 1)) == MOST_NAMED


def test_bounds_are_clopper_pearson_with_alpha_shared_out() -> None:
    bounds = simultaneous_bounds(Votes({"a": 700, "b": 150, "c": 90, "d": 40}, failed=20), "a", ("b", "c"), 0.006)
    assert bounds.p_lower == pytest.approx(beta.ppf(0.003, 700, 301), rel=1e-9)
    assert bounds.uppers == pytest.approx([beta.isf(0.001, k + 21, 1000 - k - 20) for k in (150, 90)], rel=1e-9)
    assert bounds.rest == pytest.approx(beta.isf(0.001, 61, 940), rel=1e-9)
    assert bounds.p_upper == bounds.uppers[0]


def test_a_label_without_a_majority_is_certified_when_the_rest_is_spread() -> None:
    votes = Votes({"a": 450, "b": 200, "c": 200, "d": 150})
    assert certify_votes(votes, "a", sigma=SIGMA, alpha=0.001).label is None
    certificate = certify_two_sided(votes, "a", ("b", "c"), sigma=SIGMA, alpha=0.001)
    assert certificate.label == "a"
    assert certificate.p_upper is not None
    expected = SIGMA / 2 * (norm.ppf(certificate.p_lower) - norm.ppf(certificate.p_upper))
    assert 0.05 < certificate.radius <= expected
    assert certificate.radius == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("votes", "label"),
    [
        (Votes({"a": 400, "b": 390, "c": 210}), "a"),
        (Votes({"a": 450, "b": 200, "c": 150}, failed=200), "a"),
        (Votes({"b": 1000}), "a"),
        (Votes({"a": 1000}), None),
        (Votes(), "a"),
    ],
)
def test_what_is_not_proven_abstains(votes: Votes, label: str | None) -> None:
    certificate = certify_two_sided(votes, label, ("b",), sigma=SIGMA, alpha=0.001)
    assert (certificate.label, certificate.radius) == (None, 0.0)


counts = st.lists(st.integers(0, 300), min_size=2, max_size=5).filter(lambda c: sum(c) > 0)


@settings(deadline=None)
@given(counts, st.integers(0, 30), st.integers(1, 30))
def test_the_radius_falls_with_failed_draws_and_scales_with_sigma(c: list[int], failed: int, more: int) -> None:
    by_label = dict(zip("abcde", c, strict=False))

    def radius(failed: int, sigma: float = SIGMA) -> float:
        return certify_two_sided(Votes(by_label, failed), "a", ("b",), sigma=sigma, alpha=0.01).radius

    assert radius(failed + more) <= radius(failed)
    assert radius(failed, 2 * SIGMA) == pytest.approx(2 * radius(failed), rel=1e-12)


@settings(deadline=None)
@given(counts)
def test_a_vote_that_moves_to_the_label_proves_no_less(c: list[int]) -> None:
    by_label = dict(zip("abcde", c, strict=False))
    before = certify_two_sided(Votes(by_label), "a", ("b",), sigma=SIGMA, alpha=0.01)
    for other in "bcde":
        if by_label.get(other, 0):
            moved = by_label | {"a": by_label["a"] + 1, other: by_label[other] - 1}
            after = certify_two_sided(Votes(moved), "a", ("b",), sigma=SIGMA, alpha=0.01)
            assert after.radius >= before.radius - 1e-12


@settings(deadline=None)
@given(counts)
def test_it_never_proves_less_than_the_one_bound_at_its_own_share_of_alpha(c: list[int]) -> None:
    votes = Votes(dict(zip("abcde", c, strict=False)))
    one = certify_votes(votes, "a", sigma=SIGMA, alpha=0.005)
    assert certify_two_sided(votes, "a", ("b",), sigma=SIGMA, alpha=0.01).radius >= one.radius - 1e-9


@pytest.mark.parametrize("p", [(math.nan, 0.1), (0.5, math.nan), (0.4, 0.4), (0.3, 0.4)])
def test_no_radius_unless_the_label_is_ahead(p: tuple[float, float]) -> None:
    assert two_sided_radius(*p, SIGMA) == 0.0


def test_certain_bounds_have_a_finite_radius() -> None:
    assert 2.0 < two_sided_radius(1.0, 0.0, SIGMA) < 20.0


@pytest.mark.parametrize(
    ("selection", "chooses_both"),
    [
        (SPREAD, True),
        (Votes({"a": 100}), False),
        (Votes({"a": 95, "b": 5}), False),
        (Votes({"a": 60, "b": 40}), False),
    ],
)
def test_the_selection_alone_chooses_the_procedure(selection: Votes, chooses_both: bool) -> None:
    for estimation in (Votes({"a": 1000}), times(SPREAD, 10), Votes({"b": 900}, failed=100)):
        certificate = certify_either(estimation, selection, sigma=SIGMA, alpha=0.001)
        assert (certificate.p_upper is not None) == chooses_both
        named = named_others(selection, "a")
        expected = (
            certify_two_sided(estimation, "a", named, sigma=SIGMA, alpha=0.001, selection=selection)
            if chooses_both
            else certify_votes(estimation, "a", sigma=SIGMA, alpha=0.001, selection=selection)
        )
        assert certificate == expected


def test_a_selection_of_failures_abstains() -> None:
    assert certify_either(Votes({"a": 100}), Votes(failed=10), sigma=SIGMA, alpha=0.001).label is None


def outcomes(n: int, chances: dict[str | None, float]) -> Iterator[tuple[Votes, float]]:
    """Every possible count of n draws, with its probability."""
    for ks in product(range(n + 1), repeat=len(chances)):
        if sum(ks) == n:
            by_label = dict(zip(chances, ks, strict=True))
            chance = math.factorial(n) * math.prod(
                p**k / math.factorial(k) for p, k in zip(chances.values(), ks, strict=True)
            )
            failed = by_label.pop(None, 0)
            yield Votes({label: k for label, k in by_label.items() if label is not None}, failed), chance


@pytest.mark.parametrize(
    "chances",
    [
        {"a": 0.5, "b": 0.5},
        {"a": 0.5, "b": 0.25, "c": 0.25},
        {"a": 0.4, "b": 0.35, "c": 0.25},
        {"a": 0.34, "b": 0.33, "x": 0.33},
        {"a": 0.7, "b": 0.2, "x": 0.1},
        {"a": 0.6, "b": 0.1, None: 0.3},
    ],
)
def test_a_radius_beyond_the_true_one_is_no_likelier_than_alpha(chances: dict[str | None, float]) -> None:
    """By enumeration; the true radius is that of the true probabilities, which is tight."""
    alpha, n = 0.2, 24
    runner_up = max(p for label, p in chances.items() if label not in ("a", None))
    true_radius = max(0.0, (norm.ppf(chances["a"]) - norm.ppf(runner_up)) / 2)
    wrong = 0.0
    for votes, chance in outcomes(n, chances):
        certificate = certify_two_sided(votes, "a", ("b",), sigma=1.0, alpha=alpha)
        wrong += chance * (certificate.radius > true_radius + 1e-12)
    assert wrong <= alpha


def test_the_whole_procedure_errs_no_more_often_than_alpha_by_enumeration() -> None:
    """Selection chooses the label, the named others and the procedure; a radius is false beyond the label's
    own.
    """
    chances: dict[str | None, float] = {"a": 0.4, "b": 0.3, "c": 0.3}
    alpha, wrong, certified = 0.3, 0.0, 0.0
    for selection, chosen in outcomes(8, chances):
        for votes, chance in outcomes(13, chances):
            certificate = certify_either(votes, selection, sigma=1.0, alpha=alpha)
            if certificate.label is not None:
                label = certificate.label
                others = max(p for other, p in chances.items() if other != label)
                true_radius = max(0.0, (norm.ppf(chances[label]) - norm.ppf(others)) / 2)
                certified += chosen * chance
                wrong += chosen * chance * (certificate.radius > true_radius + 1e-12)
    assert 0.0 < wrong <= alpha
    assert certified > wrong


def test_the_plan_bounds_both_where_it_was_asked_to() -> None:
    draws = (["a"] * 7 + ["b", "c", "d"]) * 110
    plain = Smoothing(sigma=SIGMA, n0=100, n=1000)
    both = Smoothing(sigma=SIGMA, n0=100, n=1000, two_sided=True)
    one, two = (replay(certify_plan(s), Recording(draws)) for s in (plain, both))
    assert (one.label, two.label) == ("a", "a")
    assert one.p_upper is None
    assert two.radius > 1.5 * one.radius


@pytest.mark.parametrize("setting", [{"target_radius": 0.1}, {"method": "largest"}])
def test_two_sided_goes_with_a_fixed_number_of_draws_alone(setting: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="two_sided"):
        Smoothing(sigma=SIGMA, two_sided=True, **setting)  # type: ignore[arg-type]
