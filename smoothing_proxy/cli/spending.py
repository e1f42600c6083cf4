"""What a command is about to spend: said, asked about, and held against the budget before anything is paid."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from smoothing_proxy.errors import BudgetExceededError, ConfigError, LedgerError, RunMismatchError

if TYPE_CHECKING:
    from smoothing_proxy.backends.base import Backend
    from smoothing_proxy.config import Budget
    from smoothing_proxy.ledger.reader import LedgerReader

__all__ = ["check_price", "confirm", "confirm_one", "most_usd_left", "yes_option"]

yes_option = click.option("--yes", is_flag=True, help="Do not ask before money is spent.")


def confirm(usd: float) -> None:
    """Ask before money is spent. Raises ConfigError where nobody can be asked, or the answer is no."""
    if usd <= 0:
        return
    if not sys.stdin.isatty():
        raise ConfigError(f"this costs up to ${usd:,.2f}: say --yes to spend it without being asked")
    if not click.confirm(f"Spend up to ${usd:,.2f}?", err=True):
        raise ConfigError("not confirmed: nothing was spent")


def confirm_one(backend: Backend, queries: int, budget: Budget, *, yes: bool) -> None:
    """Before one picture is asked about. queries: the most that it takes.

    Raises BudgetExceededError where the budget is less than that, since half a proof is none, and the errors of
    `confirm`.
    """
    limit = budget.limit_queries(backend.price_usd)
    if limit is not None and queries > limit:
        raise BudgetExceededError(
            f"this takes up to {queries:,} queries, and the budget allows {limit:,}: nothing was spent; raise the "
            "budget, or lower n or max_queries",
            spent=0,
            limit=limit,
        )
    if backend.price_usd <= 0:
        return
    click.echo(f"at most {queries:,} queries to {backend.name}, ${queries * backend.price_usd:,.4f}", err=True)
    if not yes:
        confirm(queries * backend.price_usd)


def check_price(ledger: LedgerReader, out: Path, price_usd: float, budget: Budget) -> None:
    """A budget in dollars is counted at one price: that of the run's start, as is all that its report says.

    out: the run's folder, for messages. Raises RunMismatchError where such a budget meets another price; says it
    where none does.
    """
    began = (ledger.manifest() or {}).get("price_usd", price_usd)
    if began == price_usd:
        return
    text = f"{out}: a query cost ${began:g} when this run began, and ${price_usd:g} now"
    if budget.usd is not None:
        raise RunMismatchError(
            f"{text}; a budget in dollars is counted at one price: give the budget in queries (what was spent "
            f"counts), set price_usd_per_1000 = {began * 1000:g} again, or use another --out"
        )
    click.echo(f"{text}; its cost is counted at the price it began with", err=True)


def most_usd_left(out: Path, names: Sequence[str], figures: Mapping[str, Any]) -> float:
    """What finishing the plan (cli.plan.figures_of) for these pictures can still cost.

    That is without what is settled, and no more than what is left of the budget.
    """
    from smoothing_proxy.assembly import LEDGER_NAME
    from smoothing_proxy.ledger.reader import LedgerReader

    queries, limit, spent = figures["queries"], figures["budget_queries"], 0
    per_picture = (queries - figures["canaries"]) // max(1, len(names))
    try:
        with LedgerReader.open(out / LEDGER_NAME) as ledger:
            needed, spent = _needed(ledger, names, per_picture), _spent(ledger)
            queries = needed + figures["canaries"] if needed else 0
    except LedgerError:
        pass  # none yet, or one that `run` has to bring up to date: whatever is wrong with it, `run` says
    if limit is not None:
        queries = min(queries, max(0, limit - spent))
    return float(queries * figures["price_usd"])


def _needed(ledger: LedgerReader, names: Sequence[str], per_picture: int) -> int:
    """The queries that the pictures without a verdict still take."""
    decided, settled = ledger.verdicts().keys(), ledger.totals.settled_by_picture()
    left = {
        record.name: 0 if record.id in decided else per_picture - settled.get(record.id, 0)
        for record in ledger.pictures()
    }
    return sum(max(0, left.get(name, per_picture)) for name in names)


def _spent(ledger: LedgerReader) -> int:
    cost = ledger.totals.cost()
    return cost.queries + cost.unknown
