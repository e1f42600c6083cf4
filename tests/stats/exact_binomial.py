"""Binomial tails and normal quantiles in 40 digits: the oracle of this folder's tests."""

from __future__ import annotations

import mpmath as mp

mp.mp.dps = 40

_SCALE = 140  # binary digits of the sum's fixed point


def tail(k: int, n: int, p: mp.mpf | float) -> mp.mpf:
    """P(Binomial(n, p) >= k), as the probability of k times a sum of ratios."""
    p = mp.mpf(p)
    if k == 0 or p == 1:
        return mp.mpf(1)
    if p == 0:
        return mp.mpf(0)
    log_pmf = mp.loggamma(n + 1) - mp.loggamma(k + 1) - mp.loggamma(n - k + 1)
    log_pmf += k * mp.log(p) + (n - k) * mp.log1p(-p)
    odds = int(p / (1 - p) * 2**_SCALE)
    total = term = 2**_SCALE
    for i in range(k, n):
        term = (term * (n - i) // (i + 1) * odds) >> _SCALE
        total += term
        if term == 0:
            break
    return min(mp.mpf(1), mp.exp(log_pmf) * total / mp.mpf(2) ** _SCALE)


def normal_quantile(p: float) -> mp.mpf:
    """Phi^-1(p)."""
    return mp.sqrt(2) * mp.erfinv(2 * mp.mpf(p) - 1)


def normal_probability(z: mp.mpf | float) -> mp.mpf:
    """Phi(z)."""
    return mp.ncdf(mp.mpf(z))
