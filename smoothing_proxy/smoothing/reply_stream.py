"""Draws whose whole replies are told, for plans that ask about more than one label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from anyio.abc import TaskGroup

from smoothing_proxy.backends.labels import LabelMap
from smoothing_proxy.errors import MalformedReplyError
from smoothing_proxy.smoothing.drive import drive
from smoothing_proxy.smoothing.halt import Halt
from smoothing_proxy.smoothing.label_plans import Replies, ReplyPlan
from smoothing_proxy.smoothing.observe import Outcome, Recalled
from smoothing_proxy.smoothing.picture import Picture
from smoothing_proxy.smoothing.sampler import DrawStream, Sampler, task_group
from smoothing_proxy.stats.per_label import Scores
from smoothing_proxy.types import Cost, Draws, Reply

__all__ = ["RecalledReplies", "ReplyStream", "run_replies", "scores_of"]

Verdict = TypeVar("Verdict")


@dataclass(frozen=True, slots=True)
class RecalledReplies:
    """What is known of a picture from before, as Recalled, with replies for votes.

    scores: of the settled draws by number; None where nothing was answered.
    """

    scores: Mapping[int, Scores | None] = field(default_factory=dict)
    cost: Cost = field(default_factory=Cost)
    model_versions: frozenset[str] = frozenset()


async def run_replies(
    sampler: Sampler,
    picture: Picture,
    plan: ReplyPlan[Verdict],
    recalled: RecalledReplies,
    halt: Halt | None = None,
) -> tuple[Verdict, Cost]:
    """As Sampler.run, with the same errors, for a plan over whole replies."""
    sampler.classifier.check(picture)
    async with task_group() as tasks:
        stream = ReplyStream(sampler, picture, recalled, tasks, halt or Halt())
        try:
            verdict = await drive(plan, stream.replies)
        finally:
            stream.end()
    return verdict, stream.cost


class ReplyStream(DrawStream):
    """The numbered draws of one picture; scores are kept from a draw's answer until the plan is told of it."""

    def __init__(
        self, sampler: Sampler, picture: Picture, recalled: RecalledReplies, tasks: TaskGroup, halt: Halt
    ) -> None:
        votes = Recalled(dict.fromkeys(recalled.scores), recalled.cost, recalled.model_versions)
        super().__init__(sampler, picture, votes, tasks, halt)
        self._scores = dict(recalled.scores)

    async def replies(self, request: Draws) -> Replies:
        """As `draw`; the answer is the scores of each draw."""
        first = self._told
        await self.draw(request)
        return [self._scores.pop(number) for number in range(first, self._told)]

    def take_note(self, outcomes: Sequence[Outcome]) -> None:
        """See DrawStream.take_note."""
        for outcome in outcomes:
            reply = outcome.reply if outcome.error is None else None
            self._scores[outcome.draw] = scores_of(reply, self.sampler.classifier.labels)
        super().take_note(outcomes)


def scores_of(reply: Reply | None, labels: LabelMap) -> Scores | None:
    """What a draw answered, as a plan is told it; None where it failed, is malformed, or named no label at all.

    An empty reply is no evidence that a label is absent: a classifier that has nothing to say has not looked.
    """
    if reply is None or not reply.labels:
        return None
    try:
        return labels.scores(reply)
    except MalformedReplyError:
        return None
