"""How many false proofs a whole folder may hold.

A certificate is false with probability <= alpha, so that among m of them up to alpha * m are to be expected. The
family-wise modes bound the probability that *any* of the folder's claims is false by alpha, by Bonferroni (each at
alpha / m) or by Holm's step-down procedure (Scandinavian Journal of Statistics 6, 1979), which proves at least as
much, and needs no independence between pictures either.

Both take p-values. Those of a fixed number of draws count once that number is there; an anytime p-value may be
looked at after every draw, and every picture may stop when it likes: it only ever falls, its lowest value ever is
a p-value, and Bonferroni and Holm reject no less where p-values are smaller. So whatever they reject on the way
they reject in the end, and any false rejection, at any moment, has probability <= alpha.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import takewhile
from typing import Literal, TypeAlias, get_args

import numpy as np

from smoothing_proxy.errors import ConfigError, nearest
from smoothing_proxy.stats.binomial import check_alpha, tail_at_least
from smoothing_proxy.stats.certificates import required_probability
from smoothing_proxy.stats.mixture import log_mixture
from smoothing_proxy.types import Certificate, Label

__all__ = [
    "Method",
    "anytime_p_value",
    "bonferroni_alpha",
    "claims_hold",
    "claims_hold_so_far",
    "false_claim_p_value",
    "holm_radii",
    "rejected",
]

Method: TypeAlias = Literal["per-picture", "bonferroni", "holm"]

_ROUNDING = 1e-9
"""Relative, of exp(-log M): its logarithm is a difference of numbers up to some 1e5."""


def bonferroni_alpha(alpha: float, m: int) -> float:
    """alpha / m: the alpha for each of m pictures at which any false proof at all has probability <= alpha.

    Raises ConfigError unless 1e-100 <= alpha < 1; ValueError when m < 1.
    """
    check_alpha(alpha)
    if m < 1:
        raise ValueError(f"m must be a number of pictures, at least 1, not {m}")
    return alpha / m


def claims_hold(certificates: Sequence[Certificate], radius: float, *, alpha: float, method: Method) -> list[bool]:
    """Which certificates prove "the label cannot change within `radius`", in their order.

    "per-picture": each claim is false with probability <= alpha. "bonferroni", "holm": any claim of the folder is
    false with probability <= alpha; a claim that Bonferroni proves, Holm proves too.
    alpha stands for itself: the certificates' own does not count, but one that abstained claims nothing.
    A sequential certificate's label was chosen by the draws that test it; such a claim is no hypothesis fixed
    beforehand, and Holm's argument does not cover it. So "holm" proves it at alpha / m or not at all, and counts
    it as unproven among the others, whose error then is at most the rest of alpha.
    radius: in the space where the noise was added, and fixed before the votes are seen.
    Raises ConfigError for alpha outside [1e-100, 1), an unknown method, or radius negative or not finite.
    """
    p_values = [false_claim_p_value(c, radius) for c in certificates]
    if method != "holm":
        return rejected(p_values, alpha=alpha, method=method)
    fixed = [1.0 if c.sequential else p for c, p in zip(certificates, p_values, strict=True)]
    stepped = rejected(fixed, alpha=alpha, method="holm")
    alone = rejected(p_values, alpha=alpha, method="bonferroni")
    return [one if c.sequential else held for c, one, held in zip(certificates, alone, stepped, strict=True)]


def holm_radii(
    certificates: Sequence[Certificate], radii: Sequence[float], *, alpha: float, m: int
) -> list[float | None]:
    """For each certificate the largest of `radii` that is proven together with all the others', None for none.

    Any radius that is returned is false with probability <= alpha, all of them together. radii: in the space where
    the noise was added, fixed before the votes are seen. m: pictures, fixed as well, at least as many as there are
    certificates: those that have none yet count as unproven, so that what is proven once stays so.

    Holm's procedure, in which a picture makes room for the others once its largest radius is proven: every radius
    whose p-value is at most alpha / (pictures with a radius that is unproven), and again, until nothing is added.
    Before a false radius is proven, every picture that has any still counts among those, m0 of them or more. One
    picture's p-values rise with the radius, so that its smallest false one has a p-value <= alpha / m0, which
    happens to any of the m0 with probability <= alpha (the sequential rejection principle; Goeman and Solari,
    Annals of Statistics 38, 2010). With one radius this is `claims_hold` by "holm".

    Raises ConfigError for alpha outside [1e-100, 1), no radius or one that is negative or not finite, and for a
    sequential certificate: its label was chosen by the draws that test it, which Holm's argument does not cover.
    ValueError for an m that is less than the number of certificates.
    """
    check_alpha(alpha)
    ladder = sorted({*radii})
    if not ladder:
        raise ConfigError("Holm's procedure needs a radius, fixed before the draws")
    if any(certificate.sequential for certificate in certificates):
        raise ConfigError("Holm's procedure: sequential certificates' labels were chosen by what tests them")
    if m < len(certificates):
        raise ValueError(f"m must be a number of pictures, at least the {len(certificates)} there are, not {m}")
    p_values = [[false_claim_p_value(certificate, radius) for radius in ladder] for certificate in certificates]
    proven = [0] * len(p_values)
    while unproven := m - sum(count == len(ladder) for count in proven):
        more = [sum(1 for _ in takewhile((alpha / unproven).__ge__, rising)) for rising in p_values]
        if more == proven:
            break
        proven = more
    return [ladder[count - 1] if count else None for count in proven]


def false_claim_p_value(certificate: Certificate, radius: float) -> float:
    """The p-value of "the claim that this label holds within `radius` is false", rounded up; in (0, 1].

    False means p_A < p0 = Phi(radius / sigma): with p_A >= p0 Theorem 1 of Cohen et al. proves the claim. The
    label's votes are then Binomial(n, p_A), stochastically fewer than Binomial(n, p0), so that
    P(Binomial(n, p0) >= votes) is a p-value; it is <= alpha just when the Clopper-Pearson bound at alpha is >= p0.
    Valid for a number of draws fixed beforehand and a label chosen by other draws. 1.0 for an abstention,
    whose label has no votes. Of a sequential certificate it is the alpha that it was made at, as far as its radius
    reaches, and 1.0 beyond: what stopped the draws has chosen the votes, so that these say no more.
    Raises ConfigError when radius is negative or not finite.
    """
    needed = required_probability(radius, certificate.sigma)
    if certificate.sequential:
        return certificate.alpha if certificate.label is not None and radius <= certificate.radius else 1.0
    return tail_at_least(certificate.votes.of(certificate.label), certificate.votes.n, needed)


def claims_hold_so_far(
    streams: Sequence[tuple[Label, Sequence[Label | None]]],
    radius: float,
    *,
    sigma: float,
    alpha: float,
    method: Method,
) -> list[bool]:
    """Which claims "this label cannot change within `radius`" are proven by the draws so far, in their order.

    streams: of each picture the label, and its draws' votes as in `anytime_p_value`. May be asked after every draw
    of any picture: a claim that was proven once stays so, and the error of all looks together is that of `method`.
    Raises ConfigError for alpha, radius or sigma out of range or an unknown method.
    """
    p_values = [anytime_p_value(votes, label, radius, sigma=sigma) for label, votes in streams]
    return rejected(p_values, alpha=alpha, method=method)


def anytime_p_value(votes: Sequence[Label | None], label: Label, radius: float, *, sigma: float) -> float:
    """The p-value of "p_A < Phi(radius / sigma)", valid whenever one looks, rounded up; in (0, 1].

    votes: of the draws in the order in which they were issued, without a gap; None voted for nothing. label:
    chosen by other draws. A label that leads the same draws is no fixed hypothesis: Holm's argument does not cover
    it. It is 1 / max over the draws so far of the mixture martingale M (stats.mixture), which exceeds 1 / a ever,
    when the claim is false, with probability <= a (Ville).
    Raises ConfigError when radius is negative or not finite, or sigma is not positive.
    """
    p0 = required_probability(radius, sigma)
    n = np.arange(1, len(votes) + 1)
    k = np.cumsum([vote == label for vote in votes], dtype=np.int64)
    strongest = float(log_mixture(n, k, p0).max(initial=0.0)) if p0 < 1.0 else 0.0
    return min(1.0, math.exp(-strongest) * (1.0 + _ROUNDING))


def rejected(p_values: Sequence[float], *, alpha: float, method: Method) -> list[bool]:
    """Which null hypotheses `method` rejects at alpha, in the p-values' order.

    Raises ConfigError for alpha outside [1e-100, 1) or an unknown method; ValueError for a p-value outside [0, 1].
    """
    check_alpha(alpha)
    if method not in get_args(Method):
        raise ConfigError(f"unknown method {method!r}{nearest(method, get_args(Method))}")
    # NaN is no p-value: it would stay on whichever side a comparison happens to leave it.
    if not all(0.0 <= p <= 1.0 for p in p_values):
        raise ValueError(f"p-values must be in [0, 1]: {list(p_values)}")
    if method == "holm":
        return _step_down(p_values, alpha)
    limit = alpha if method == "per-picture" else alpha / max(1, len(p_values))
    return [p <= limit for p in p_values]


def _step_down(p_values: Sequence[float], alpha: float) -> list[bool]:
    """Holm: the smallest p-value at alpha / m, the next at alpha / (m - 1), ... until the first that is larger."""
    m = len(p_values)
    reject = [False] * m
    for rank, index in enumerate(sorted(range(m), key=p_values.__getitem__)):
        if p_values[index] > alpha / (m - rank):
            break
        reject[index] = True
    return reject
