"""How many false proofs a whole folder may hold.

A certificate is false with probability <= alpha, so that among m of them up to alpha * m are to be expected. The
family-wise modes bound the probability that *any* of the folder's claims is false by alpha, by Bonferroni (each at
alpha / m) or by Holm's step-down procedure (Scandinavian Journal of Statistics 6, 1979), which proves at least as
much, and needs no independence between pictures either.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias, get_args

from smoothing_proxy.errors import ConfigError, nearest
from smoothing_proxy.stats.binomial import check_alpha, tail_at_least
from smoothing_proxy.stats.certificates import required_probability
from smoothing_proxy.types import Certificate

__all__ = ["Method", "bonferroni_alpha", "claims_hold", "false_claim_p_value", "rejected"]

Method: TypeAlias = Literal["per-picture", "bonferroni", "holm"]


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
    radius: in the space where the noise was added, and fixed before the votes are seen.
    Raises ConfigError for alpha outside [1e-100, 1), an unknown method, or radius negative or not finite.
    """
    return rejected([false_claim_p_value(c, radius) for c in certificates], alpha=alpha, method=method)


def false_claim_p_value(certificate: Certificate, radius: float) -> float:
    """The p-value of "the claim that this label holds within `radius` is false", rounded up; in (0, 1].

    False means p_A < p0 = Phi(radius / sigma): with p_A >= p0 Theorem 1 of Cohen et al. proves the claim. The
    label's votes are then Binomial(n, p_A), stochastically fewer than Binomial(n, p0), so that
    P(Binomial(n, p0) >= votes) is a p-value; it is <= alpha just when the Clopper-Pearson bound at alpha is >= p0.
    Valid for a number of draws fixed beforehand and a label chosen by other draws. 1.0 for an abstention,
    whose label has no votes.
    Raises ConfigError when radius is negative or not finite.
    """
    needed = required_probability(radius, certificate.sigma)
    return tail_at_least(certificate.votes.of(certificate.label), certificate.votes.n, needed)


def rejected(p_values: Sequence[float], *, alpha: float, method: Method) -> list[bool]:
    """Which null hypotheses `method` rejects at alpha, in the p-values' order.

    Raises ConfigError for alpha outside [1e-100, 1) or an unknown method; ValueError for a p-value outside [0, 1].
    """
    check_alpha(alpha)
    if method not in get_args(Method):
        raise ConfigError(f"unknown method {method!r}{nearest(method, get_args(Method))}")
    # multipletests takes NaN for a rejection.
    if not all(0.0 <= p <= 1.0 for p in p_values):
        raise ValueError(f"p-values must be in [0, 1]: {list(p_values)}")
    if method == "per-picture" or not p_values:
        return [p <= alpha for p in p_values]
    from statsmodels.stats.multitest import multipletests

    return [bool(reject) for reject in multipletests(p_values, alpha=alpha, method=method)[0]]
