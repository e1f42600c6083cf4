"""An attack's queries in a ledger, and its budget against the money's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from smoothing_proxy.assembly import LEDGER_NAME, make_ledger
from smoothing_proxy.config import ProxyConfig
from smoothing_proxy.errors import ConfigError
from smoothing_proxy.ledger.store import Ledger
from smoothing_proxy.runs.manifest import software_versions
from smoothing_proxy.smoothing.base_classifier import BaseClassifier

__all__ = ["check_affordable", "is_kept", "open_ledger"]


def is_kept(config: ProxyConfig, classifier: BaseClassifier) -> bool:
    """Whether queries go through a ledger: they cost something, or may not be more than so many."""
    limit = config.budget.limit_queries(classifier.backend.price_usd)
    return classifier.backend.price_usd > 0 or classifier.backend.remote or limit is not None


def check_affordable(config: ProxyConfig, classifier: BaseClassifier, queries: int) -> None:
    """Raises ConfigError, before anything is sent, where the attack could cost more than the budget allows."""
    price = classifier.backend.price_usd
    limit = config.budget.limit_queries(price)
    if limit is not None and queries > limit:
        raise ConfigError(
            f"the attack may take up to {queries:,} queries (${queries * price:,.2f}), and the budget allows "
            f"{limit:,} (${limit * price:,.2f}): fewer pictures (--limit), attacks, eps, --attack-queries or "
            "--attack-draws make it smaller; nothing was sent"
        )


def open_ledger(
    config: ProxyConfig, classifier: BaseClassifier, out: Path, names: Sequence[str], question: dict[str, Any]
) -> Ledger:
    """A fresh ledger in `out`, with a picture for each attacked one; what it charges is limited by the budget.

    Raises ConfigError where `out` holds a ledger already: an attack is not resumed, and its budget is spent anew.
    """
    if (out / LEDGER_NAME).exists():
        raise ConfigError(f"{out}: holds the ledger of an earlier run; name another folder with --out")
    price = classifier.backend.price_usd
    ledger = make_ledger(out, paid=price > 0, limit_queries=config.budget.limit_queries(price))
    ledger.begin({"attack": question, "backend": dict(classifier.backend.fingerprint)}, software_versions())
    ledger.add_pictures(names)
    return ledger
