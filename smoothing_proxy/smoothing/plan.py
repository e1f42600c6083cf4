"""Plans: a verdict as a conversation with no I/O in it.

A plan asks for draws and is told votes; at the end it returns its verdict. The same plan is driven live by the
sampler, offline by the ledger, by a test's hand-written votes, and by the dry run that counts calls and dollars.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeAlias, TypeVar

from smoothing_proxy.smoothing.settings import Smoothing
from smoothing_proxy.stats.certificates import certify_votes, predict_votes
from smoothing_proxy.types import Certificate, Draws, Prediction, Votes

__all__ = ["ESTIMATION", "SELECTION", "Plan", "certify_plan", "predict_plan"]

SELECTION = "selection"
ESTIMATION = "estimation"

Verdict = TypeVar("Verdict")
Plan: TypeAlias = Generator[Draws, Votes, Verdict]


def certify_plan(smoothing: Smoothing) -> Plan[Certificate]:
    """CERTIFY of Cohen et al. 2019: n0 draws choose the label, n fresh ones bound its probability."""
    selection = yield Draws(SELECTION, smoothing.n0)
    estimation = yield Draws(ESTIMATION, smoothing.n)
    return certify_votes(
        estimation, selection.top(), sigma=smoothing.sigma, alpha=smoothing.alpha, selection=selection
    )


def predict_plan(smoothing: Smoothing) -> Plan[Prediction]:
    """PREDICT of Cohen et al. 2019: n draws, and a two-sided test of the two best labels."""
    votes = yield Draws(ESTIMATION, smoothing.n)
    return predict_votes(votes, alpha=smoothing.alpha)
