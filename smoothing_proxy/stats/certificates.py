"""PREDICT and CERTIFY of Cohen, Rosenfeld and Kolter 2019 (arXiv 1902.02918) as pure functions of votes.

f is the base classifier, eps ~ N(0, sigma^2 I), and the smoothed classifier g(x) is the label c with the largest
P(f(x + eps) = c). A draw that fails is an outcome of f like any other, but never a label.

Theorem 1. Let f be any deterministic or random function. If a label A and numbers p_lower and p_upper satisfy
    P(f(x + eps) = A) >= p_lower >= p_upper >= max over c != A of P(f(x + eps) = c),
then g(x + delta) = A for every delta with |delta|_2 < R, where
    R = sigma / 2 * (Phi^-1(p_lower) - Phi^-1(p_upper)).                                            (their eq. 3)
Where p_lower > 1/2, p_upper = 1 - p_lower is always admissible, and R = sigma * Phi^-1(p_lower) > 0.
"""

from __future__ import annotations

import math

from scipy.special import ndtr, ndtri

from smoothing_proxy.errors import ConfigError
from smoothing_proxy.stats.binomial import check_alpha, lower_bound, two_sided_at_half
from smoothing_proxy.types import Certificate, Label, Prediction, Votes

__all__ = [
    "certified_radius",
    "certify_votes",
    "check_sigma",
    "predict_votes",
    "proven_within",
    "required_probability",
]

# A probability is moved by it to the safe side. Against 40-digit arithmetic, the errors of ndtr and ndtri on
# [1/2, 1], as probabilities, stayed below 2^-51; the latter's relative error below 2^-49.
_GUARD = 2.0**-49


def certify_votes(
    votes: Votes, label: Label | None, *, sigma: float, alpha: float, selection: Votes | None = None
) -> Certificate:
    """CERTIFY: the radius in which g keeps `label`, or abstention.

    Proposition 2. If `label` was chosen without looking at `votes`, and `votes` are of independent draws, then
    with probability >= 1 - alpha over those draws either the certificate abstains or g(x + delta) = label for
    every |delta|_2 < radius.
    Proof: p_lower <= P(f(x + eps) = label) with that probability (Clopper-Pearson at votes.of(label) of votes.n);
    where it holds and p_lower > 1/2, Theorem 1 applies with p_upper = 1 - p_lower.

    votes: of the estimation phase; failed draws count in n and never for the label. label: from the selection
    phase; None abstains. selection: that phase's votes, for the record only. sigma: > 0, on the [0, 1] pixel
    scale, as is the radius, which is rounded down. An abstaining certificate keeps the p_lower that was too small.
    Raises ConfigError unless 1e-100 <= alpha < 1 and sigma is positive and finite.
    """
    check_sigma(sigma)
    p_lower = lower_bound(votes.of(label), votes.n, alpha)
    proven = label is not None and p_lower > 0.5
    return Certificate(
        label=label if proven else None,
        radius=certified_radius(p_lower, sigma) if proven else 0.0,
        p_lower=p_lower,
        sigma=sigma,
        alpha=alpha,
        votes=votes,
        selection=Votes() if selection is None else selection,
    )


def proven_within(
    radius: float | None, label: Label | None, votes: Votes, *, sigma: float, alpha: float
) -> Certificate:
    """The certificate of a sequential test that rejected P(f = label) <= required_probability(radius, sigma).

    radius: that was tested; None abstains. votes: all that the test looked at, for the record: the bound is the
    tested one, since what stopped the test has also chosen them. The error of the test is alpha. The radius holds
    as it was asked for, since the tested probability was rounded up.
    """
    check_sigma(sigma)
    if radius is None or label is None:
        return Certificate(None, 0.0, 0.0, sigma, alpha, votes, sequential=True)
    return Certificate(label, radius, required_probability(radius, sigma), sigma, alpha, votes, sequential=True)


def predict_votes(votes: Votes, *, alpha: float) -> Prediction:
    """PREDICT: g's label, or abstention.

    Proposition 1. With probability >= 1 - alpha over the draws, the prediction abstains or is g(x).
    What is tested is whether n_A of n_A + n_B could come from a fair coin, A and B being the two labels with most
    votes (two-sided exact binomial test). The test is valid although A and B are chosen by the same votes (Hung
    and Fithian, Annals of Statistics 47, 2019). It conditions on n_A + n_B, so that draws for other labels, and
    failed ones, neither help nor harm: given any number of them, each of the other n_A + n_B draws is an
    independent toss between A and B. If f fails more often where it would have said B, that is part of what f is:
    g compares the probabilities with which f answers A and B.

    Abstains at a tie, and when no draw voted for a label (p_value 1.0).
    Raises ConfigError unless 1e-100 <= alpha < 1.
    """
    check_alpha(alpha)
    best, second = (*(count for _, count in votes.ranked()), 0, 0)[:2]
    p_value = two_sided_at_half(best, best + second)
    return Prediction(label=votes.top() if p_value <= alpha else None, p_value=p_value, alpha=alpha, votes=votes)


def certified_radius(p_lower: float, sigma: float) -> float:
    """sigma * Phi^-1(p_lower), rounded down; 0.0 unless p_lower > 1/2 (so also for NaN).

    p_lower: in [0, 1]. The result has sigma's unit, and is finite: rounding down caps it below 8 sigma.
    """
    if not p_lower > 0.5:
        return 0.0
    return max(0.0, sigma * float(ndtri(p_lower - _GUARD)) * (1.0 - _GUARD))


def required_probability(radius: float, sigma: float) -> float:
    """Phi(radius / sigma), rounded up: the p_A from which on g keeps its label within `radius`. In [1/2, 1].

    `radius` and sigma in one unit. Raises ConfigError unless radius >= 0 and sigma are finite and sigma > 0.
    """
    check_sigma(sigma)
    if not 0.0 <= radius < math.inf:
        raise ConfigError(f"radius is {radius!r}: expected an l2 distance >= 0 on the [0, 1] pixel scale")
    return min(1.0, float(ndtr(radius / sigma)) + _GUARD / 4)


def check_sigma(sigma: float) -> None:
    """Raises ConfigError unless sigma is positive and finite."""
    if not 0.0 < sigma < math.inf:
        raise ConfigError(
            f"sigma is {sigma!r}: expected a noise level > 0 on the [0, 1] pixel scale, such as 0.25"
        )
