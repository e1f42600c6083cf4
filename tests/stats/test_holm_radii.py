"""Holm's procedure over several radii: what it proves, and its exact error."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from smoothing_proxy.errors import ConfigError
from smoothing_proxy.stats.certificates import certify_votes, proven_within, required_probability
from smoothing_proxy.stats.familywise import claims_hold, holm_radii
from smoothing_proxy.types import Certificate, Votes

SIGMA = 0.25
RADII = (0.0, 0.1, 0.25)

counts = st.lists(st.integers(50, 100), min_size=1, max_size=12)


def certificate(k: int, n: int = 100, alpha: float = 0.5) -> Certificate:
    return certify_votes(Votes({"cat": k}, n - k), "cat", sigma=SIGMA, alpha=alpha)


@settings(deadline=None)
@given(counts, st.sampled_from(RADII), st.integers(0, 5))
def test_with_one_radius_it_is_holms_procedure(ks: list[int], radius: float, to_come: int) -> None:
    made = [certificate(k) for k in ks]
    nothing = [certificate(0)] * to_come
    held = claims_hold([*made, *nothing], radius, alpha=0.05, method="holm")[: len(made)]
    found = holm_radii(made, [radius], alpha=0.05, m=len(made) + to_come)
    assert found == [radius if one else None for one in held]


@settings(deadline=None)
@given(counts)
def test_it_proves_what_bonferroni_proves_at_every_radius(ks: list[int]) -> None:
    alone = [certificate(k, alpha=0.05 / len(ks)) for k in ks]
    found = holm_radii([certificate(k) for k in ks], RADII, alpha=0.05, m=len(ks))
    for radius in RADII:
        held = claims_hold(alone, radius, alpha=0.05, method="bonferroni")
        assert all(proven is not None and proven >= radius for proven, one in zip(found, held, strict=True) if one)


@settings(deadline=None)
@given(counts, st.data())
def test_what_is_proven_while_others_are_under_way_stays_proven(ks: list[int], data: st.DataObject) -> None:
    made = [certificate(k) for k in ks]
    now = holm_radii(made[: data.draw(st.integers(0, len(made)))], RADII, alpha=0.05, m=len(made))
    later = holm_radii(made, RADII, alpha=0.05, m=len(made))
    assert all(b is not None and b >= a for a, b in zip(now, later, strict=False) if a is not None)


def test_a_picture_makes_room_once_its_largest_radius_is_proven() -> None:
    """The second one's 76 votes prove 0.1 at alpha, and not at half of it."""
    sure, half_sure, close = certificate(100), certificate(90), certificate(76)
    assert holm_radii([sure, close], (0.0, 0.1, 0.25), alpha=0.02, m=2) == [0.25, 0.1]
    assert holm_radii([half_sure, close], (0.0, 0.1, 0.25), alpha=0.02, m=2) == [0.1, 0.0]
    assert holm_radii([sure, close], (0.0, 0.1, 0.25), alpha=0.02, m=3) == [0.25, 0.0]


@pytest.mark.parametrize("alpha", [0.05, 0.3])
def test_any_false_radius_has_at_most_alpha_by_enumeration(alpha: float) -> None:
    """Two pictures, all counts of votes, each probability at, just below and between the radii's boundaries."""
    n = 20
    boundaries = [required_probability(radius, SIGMA) for radius in RADII]
    chances = sorted({*boundaries, *(p - 1e-9 for p in boundaries), 0.55, 0.75, 0.95})
    ends = [certificate(k, n) for k in range(n + 1)]
    proven = np.full((n + 1, n + 1, 2), -1.0)
    for a, b in product(range(n + 1), repeat=2):
        found = holm_radii([ends[a], ends[b]], RADII, alpha=alpha, m=2)
        proven[a, b] = [-1.0 if radius is None else radius for radius in found]
    worst = 0.0
    for p, q in product(chances, repeat=2):
        true = [
            max((r for r, bound in zip(RADII, boundaries, strict=True) if x >= bound), default=-1) for x in (p, q)
        ]
        wrong = (proven > np.array(true)).any(axis=2)
        weight = np.outer(binom.pmf(np.arange(n + 1), n, p), binom.pmf(np.arange(n + 1), n, q))
        worst = max(worst, float(weight[wrong].sum()))
    assert alpha / 4 < worst <= alpha


def test_what_it_does_not_cover_is_refused() -> None:
    stopped = proven_within(0.1, "cat", Votes({"cat": 99}, 1), sigma=SIGMA, alpha=0.01)
    with pytest.raises(ConfigError, match="chosen by what tests them"):
        holm_radii([certificate(90), stopped], RADII, alpha=0.05, m=2)
    with pytest.raises(ConfigError, match="needs a radius"):
        holm_radii([certificate(90)], (), alpha=0.05, m=1)
    with pytest.raises(ConfigError, match="radius"):
        holm_radii([certificate(90)], (-0.1,), alpha=0.05, m=1)
    with pytest.raises(ConfigError, match="alpha"):
        holm_radii([certificate(90)], RADII, alpha=2.0, m=1)
    with pytest.raises(ValueError, match="at least the 2"):
        holm_radii([certificate(90)] * 2, RADII, alpha=0.05, m=1)
    assert holm_radii([], RADII, alpha=0.05, m=3) == []
