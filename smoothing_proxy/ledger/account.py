"""What a run has spent and what it may spend: one number, tracked where it is enforced."""

from __future__ import annotations

from smoothing_proxy.errors import BudgetExceededError

__all__ = ["CANARY", "Account"]

CANARY = -1
"""Stands for a picture where canaries are promised and charged."""


class Account:
    """The queries of a run, counted as its ledger counts them.

    spent: answered, possibly billed, or in flight. limit: the most that may ever be spent; None for any number.
    A picture is promised its queries before its first draw, so that no budget is left over in halves of proofs.
    """

    def __init__(self, spent: int, limit: int | None) -> None:
        self.spent = spent
        self.limit = limit
        self._promised: dict[int, int] = {}
        self._taken: dict[int, int] = {}

    @property
    def free(self) -> float:
        """Queries that are neither spent nor promised; infinite without a limit."""
        if self.limit is None:
            return float("inf")
        return self.limit - self.spent - sum(self._promised.values())

    def promise(self, picture: int, queries: int) -> bool:
        """Keep so many queries for this picture, if there are as many."""
        if queries > self.free:
            return False
        self._promised[picture] = self.promised(picture) + queries
        return True

    def promised(self, picture: int) -> int:
        """Queries that this picture was promised and has not used."""
        return self._promised.get(picture, 0)

    def release(self, picture: int) -> None:
        """The picture needs no more: what it was promised and did not use is free again."""
        self._promised.pop(picture, None)
        self._taken.pop(picture, None)

    def charge(self, picture: int, queries: int) -> None:
        """Before a send: taken from what the picture was promised, beyond that from what is free.

        Raises BudgetExceededError, having charged nothing, when that is not enough.
        """
        promised = min(queries, self.promised(picture))
        if queries - promised > self.free:
            raise self.exceeded()
        if promised:
            self._promised[picture] -= promised
            self._taken[picture] = self._taken.get(picture, 0) + promised
        self.spent += queries

    def credit(self, picture: int, queries: int) -> None:
        """So many sends were not billed after all; what they took of a standing promise goes back to it."""
        self.spent -= queries
        back = min(queries, self._taken.get(picture, 0))
        if back:
            self._taken[picture] -= back
            self._promised[picture] = self.promised(picture) + back

    def exceeded(self) -> BudgetExceededError:
        """The error for a budget that is too small for what comes next."""
        limit = 0 if self.limit is None else self.limit
        return BudgetExceededError(
            f"the budget allows {limit:,} queries, {self.spent:,} are spent, and what comes next needs more than "
            "is left; what was proven is kept: raise the budget and give the same command again",
            spent=self.spent,
            limit=limit,
        )
