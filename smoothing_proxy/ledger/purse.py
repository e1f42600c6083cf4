"""A budget without a memory: for proofs of single pictures, whose draws nobody keeps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from smoothing_proxy.errors import BudgetExceededError
from smoothing_proxy.ledger.account import Account
from smoothing_proxy.smoothing.observe import Outcome
from smoothing_proxy.types import Cost

__all__ = ["Purse"]


@final
class Purse:
    """Implements the Journal protocol: charges each send before it leaves, and forgets what became of it.

    limit_queries: the most that may ever be spent; None for any number. account: what was spent.
    """

    def __init__(self, limit_queries: int | None) -> None:
        self.account = Account(0, limit_queries)

    async def sent(self, picture: int, draws: Sequence[int]) -> None:
        """See Journal.sent."""
        try:
            self.account.charge(picture, len(draws))
        except BudgetExceededError as error:
            raise BudgetExceededError(
                f"the budget allows {error.limit:,} queries, {error.spent:,} are spent or under way, and a send "
                "that may have been billed has to be repeated: raise the budget and ask again",
                spent=error.spent,
                limit=error.limit,
            ) from None

    async def settled(self, picture: int, outcomes: Sequence[Outcome]) -> None:
        """See Journal.settled."""
        self.account.credit(picture, sum(outcome.cost == Cost() for outcome in outcomes))

    async def withdrawn(self, picture: int, draws: Sequence[int], *, maybe_billed: bool = False) -> None:
        """See Journal.withdrawn."""
        if not maybe_billed:
            self.account.credit(picture, len(draws))
