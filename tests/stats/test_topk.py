"""Top-k radii: against closed forms, against an adversary by linear programming, and by their error."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from scipy.stats import norm

from smoothing_proxy.errors import ConfigError
from smoothing_proxy.stats.topk import LARGEST_K, certify_top_k, top_k_radius
from smoothing_proxy.stats.two_sided import certify_two_sided, named_others, two_sided_radius
from smoothing_proxy.types import Votes
from tests.stats.test_two_sided import outcomes

probability = st.floats(0.01, 0.99)


@settings(deadline=None, max_examples=40)
@given(probability, st.lists(probability, min_size=1, max_size=4), st.floats(0.0, 0.9))
def test_the_top_one_is_the_two_sided_radius(p_lower: float, uppers: list[float], rest: float) -> None:
    p_upper = min(1 - p_lower, max(*uppers, rest))
    found = top_k_radius(p_lower, uppers, rest, 1, 0.25)
    expected = two_sided_radius(p_lower, p_upper, 0.25)
    assert found <= expected + 1e-10
    assert found == pytest.approx(expected, abs=1e-9)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 400), min_size=3, max_size=6).filter(any), st.integers(0, 20))
def test_votes_prove_no_more_for_the_top_one_than_certify_with_both_bounds(c: list[int], failed: int) -> None:
    votes = Votes(dict(zip("abcdef", c, strict=False)), failed)
    named = named_others(votes, "a")
    two_sided = certify_two_sided(votes, "a", named, sigma=0.25, alpha=0.01)
    top = certify_top_k(votes, "a", 1, sigma=0.25, alpha=0.01, selection=votes)
    assert top.radius <= two_sided.radius + 1e-10


@pytest.mark.parametrize(
    ("p_lower", "uppers", "k"),
    [
        (0.5, [0.3, 0.1], 2),
        (0.3, [0.6, 0.05], 2),
        (0.3, [0.35, 0.2, 0.1], 2),
        (0.2, [0.3, 0.3, 0.15], 3),
        (0.2, [0.4, 0.35, 0.01], 3),
    ],
)
def test_without_a_pool_it_is_equation_eight(p_lower: float, uppers: list[float], k: int) -> None:
    """Of Jia et al., solved on a fine grid."""
    radii = np.linspace(0, 4, 400_001)
    sums = [min(1 - p_lower, sum(uppers[k - t : k])) for t in range(1, k + 1)]
    most = np.min([norm.cdf(norm.ppf(m) + radii) / t for t, m in enumerate(sums, 1)], axis=0)
    holds = norm.cdf(norm.ppf(p_lower) - radii) > most
    expected = radii[holds].max() if holds.any() else 0.0
    assert top_k_radius(p_lower, uppers, 0.0, k, 1.0) == pytest.approx(expected, abs=2e-5)


def adversary_wins(p: float, uppers: Sequence[float], pooled: Sequence[bool], rest: float, shift: float) -> bool:
    """Whether some classifier of a shifted Gaussian makes all of these labels as likely as the one of probability
    p.

    Along the shift's direction, in cells of equal probability: how much of each cell each label has is a linear
    programme. uppers: of each rival; pooled: whether it belongs to those bounded together by `rest`. Cells make
    the adversary weaker, so what it can do is possible.
    """
    cells = 300
    edges = norm.ppf(np.linspace(0, 1, cells + 1))
    here = np.diff(norm.cdf(edges))
    there = np.diff(norm.cdf(edges - shift))
    k = len(uppers)
    ratio = there / here
    rows: list[npt.NDArray[np.float64]] = []
    limits: list[float] = []
    unit = np.eye(k + 1)
    for label in range(k):
        rows.append(np.kron(unit[0] - unit[label + 1], ratio))  # P'(l) - P'(rival) <= 0
        limits.append(0.0)
        if not pooled[label]:
            rows.append(np.kron(unit[label + 1], np.ones(cells)))
            limits.append(uppers[label])
    if any(pooled):
        rows.append(np.kron(np.concatenate([[0.0], np.array(pooled, float)]), np.ones(cells)))
        limits.append(rest)
    rows.append(-np.kron(unit[0], np.ones(cells)))
    limits.append(-p)
    each_cell = [np.kron(np.ones(k + 1), unit_cell) for unit_cell in np.eye(cells)]
    found = linprog(
        np.zeros((k + 1) * cells),
        A_ub=np.array([*rows, *each_cell]),
        b_ub=np.array([*limits, *here]),
        bounds=(0, 1),
        method="highs",
    )
    return bool(found.status == 0)


CASES = [
    # p_lower, uppers of the named, the pool, k
    (0.6, [0.3, 0.2], 0.0, 1),
    (0.5, [0.3, 0.2], 0.0, 2),
    (0.3, [0.5, 0.1], 0.0, 2),
    (0.3, [0.4, 0.2, 0.1], 0.0, 2),
    (0.35, [0.3, 0.25, 0.1], 0.0, 3),
    (0.5, [0.2], 0.25, 2),
    (0.3, [0.4], 0.2, 2),
    (0.25, [0.5, 0.1], 0.15, 3),
]


@pytest.mark.parametrize(("p_lower", "uppers", "rest", "k"), CASES)
def test_no_adversary_beats_the_radius_and_one_does_just_beyond_it(
    p_lower: float, uppers: list[float], rest: float, k: int
) -> None:
    radius = top_k_radius(p_lower, uppers, rest, k, 1.0)
    assert radius > 0
    teams = [
        (sorted(uppers, reverse=True)[: k - j] + [1.0] * j, [False] * (k - j) + [True] * j)
        for j in range(k + 1)
        if k - j <= len(uppers) and (j == 0 or rest > 0)
    ]
    inside, beyond = (
        [adversary_wins(p_lower, team, pooled, rest, shift) for team, pooled in teams]
        for shift in (radius * 0.999, radius + 0.02)
    )
    assert not any(inside)
    assert any(beyond), "the radius is (nearly) the largest there is"


@settings(deadline=None, max_examples=40)
@given(probability, st.lists(probability, min_size=4, max_size=5), st.floats(0.01, 0.3))
def test_a_larger_k_and_smaller_bounds_prove_more(p_lower: float, uppers: list[float], rest: float) -> None:
    radii = [top_k_radius(p_lower, uppers, rest, k, 1.0) for k in (1, 2, 3, 4)]
    assert radii == sorted(radii)
    for k in (1, 3):
        base = top_k_radius(p_lower, uppers, rest, k, 1.0)
        assert top_k_radius(min(1.0, p_lower + 0.01), uppers, rest, k, 1.0) >= base
        assert top_k_radius(p_lower, [u * 0.9 for u in uppers], rest, k, 1.0) >= base
        assert top_k_radius(p_lower, uppers, rest * 0.9, k, 1.0) >= base
        assert top_k_radius(p_lower, uppers, rest, k, 0.5) == pytest.approx(base / 2, rel=1e-12)


@pytest.mark.parametrize(
    "arguments",
    [(math.nan, [0.1], 0.1), (0.5, [math.nan], 0.1), (0.5, [0.1], math.nan), (0.0, [0.1], 0.1), (0.5, [1.1], 0.1)],
)
def test_what_is_no_probability_proves_nothing(arguments: tuple[float, list[float], float]) -> None:
    assert top_k_radius(*arguments, 2, 1.0) == 0.0


def test_a_label_behind_two_others_is_proven_to_stay_among_three() -> None:
    votes = Votes({"a": 400, "b": 350, "c": 200, "d": 50})
    found = {k: certify_top_k(votes, "c", k, sigma=0.25, alpha=0.001, selection=votes) for k in (1, 2, 3)}
    assert [found[k].label for k in (1, 2, 3)] == [None, None, "c"]
    assert found[3].radius > 0.05
    assert found[3].named[:2] == ("a", "b")


def test_failed_draws_prove_less_and_no_draws_nothing() -> None:
    votes = {"a": 800, "b": 100, "c": 50}
    radii = [
        certify_top_k(Votes(votes, failed), "a", 2, sigma=1.0, alpha=0.01, selection=Votes(votes)).radius
        for failed in (0, 10, 50, 400)
    ]
    assert radii == sorted(radii, reverse=True)
    assert len(set(radii)) == 4
    assert certify_top_k(Votes(), None, 2, sigma=1.0, alpha=0.01, selection=Votes(failed=10)).label is None


@pytest.mark.parametrize("k", [0, -1, LARGEST_K + 1, 2.0, True])
def test_a_k_out_of_range_is_refused(k: int) -> None:
    with pytest.raises(ConfigError, match="k = "):
        certify_top_k(Votes({"a": 10}), "a", k, sigma=1.0, alpha=0.01, selection=Votes())


def is_false(votes: Votes, chances: dict[str | None, float], k: int, label: str) -> bool:
    """Whether a radius is printed beyond the label's true one; labels x... are never named."""
    others = sorted((p for name, p in chances.items() if name not in (label, None)), reverse=True)
    true_radius = top_k_radius(chances[label], others, 0.0, k, 1.0)
    seen = {name: max(1, round(100 * p)) for name, p in chances.items() if name and not name.startswith("x")}
    radius = certify_top_k(votes, label, k, sigma=1.0, alpha=ALPHA, selection=Votes(seen)).radius
    return radius > true_radius + 1e-9


ALPHA = 0.2


@pytest.mark.parametrize(
    ("chances", "k", "label", "n"),
    [
        ({"a": 0.4, "b": 0.3, "c": 0.3}, 2, "c", 18),
        ({"a": 0.5, "b": 0.25, "x1": 0.25}, 2, "b", 18),
        ({"a": 0.5, "b": 0.2, None: 0.3}, 1, "a", 18),
        ({"a": 0.4, "b": 0.2, "x1": 0.2, "x2": 0.2}, 3, "b", 10),
    ],
)
def test_a_false_radius_is_no_likelier_than_alpha(
    chances: dict[str | None, float], k: int, label: str, n: int
) -> None:
    """By enumeration, mostly at the boundary: the label is level with another one for the last place."""
    wrong = sum(chance for votes, chance in outcomes(n, chances) if is_false(votes, chances, k, label))
    assert 0.0 < wrong <= ALPHA


@pytest.mark.slow
@pytest.mark.parametrize("k", [1, 2, 3])
def test_a_false_radius_is_no_likelier_than_alpha_in_long(k: int) -> None:
    chances: dict[str | None, float] = {"a": 0.3, "b": 0.2, "c": 0.2, "d": 0.15, "x1": 0.15}
    rng, runs = np.random.default_rng(8), 500
    for label in "abcd":
        rows = rng.multinomial(150, list(chances.values()), size=runs).tolist()
        votes = [Votes({str(name): count for name, count in zip(chances, row, strict=True)}) for row in rows]
        share = sum(is_false(cast, chances, k, label) for cast in votes) / runs
        assert share <= ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / runs)
