"""What the product itself answers to a picture: raw, predicted, certified. Paid as an attack's queries are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from smoothing_proxy.errors import BackendError
from smoothing_proxy.redteam.asked import Asked
from smoothing_proxy.redteam.queries import Queries
from smoothing_proxy.redteam.targets import Int64, UInt8
from smoothing_proxy.smoothing.base_classifier import BaseClassifier
from smoothing_proxy.smoothing.observe import CLEAN, Recalled
from smoothing_proxy.smoothing.picture import Picture
from smoothing_proxy.smoothing.plan import Plan, certify_plan, most_draws, predict_plan, warm
from smoothing_proxy.smoothing.settings import Smoothing
from smoothing_proxy.transport.settings import TransportSettings
from smoothing_proxy.types import Certificate, Label, Prediction

__all__ = ["Judge", "most_predicted"]

Verdict = TypeVar("Verdict", Certificate, Prediction)


def most_predicted(smoothing: Smoothing) -> int:
    """The most draws that PREDICT takes for one picture."""
    return smoothing.n if smoothing.method == "fixed" else smoothing.max_queries


class Judge(Asked):
    """predicting, certifying: the settings of the two verdicts. The rest is as AskedTarget has it."""

    def __init__(
        self,
        classifier: BaseClassifier,
        *,
        predicting: Smoothing,
        certifying: Smoothing,
        queries: Queries | None = None,
        in_flight: int | None = None,
        transport: TransportSettings | None = None,
    ) -> None:
        most = max(most_predicted(predicting), most_draws(certifying))
        super().__init__(
            classifier, draws_per_query=most, queries=queries, in_flight=in_flight, transport=transport
        )
        self.predicting, self.certifying = predicting, certifying

    def raw(self, pixels: Sequence[UInt8], subjects: Int64) -> list[Label | None]:
        """The base classifier's answers to uint8 [h, w, 3] pictures, with neither noise nor denoiser.

        Raises the BackendError of a query that failed: it is no success of an attack.
        """
        return [_answered(one) for one in self.raw_or_failed(pixels, subjects)]

    def raw_or_failed(self, pixels: Sequence[UInt8], subjects: Int64) -> list[Label | BackendError | None]:
        """The same, with the error of each query that failed in its place."""
        return self.each(self._raw, pixels, subjects)

    def predict(self, pixels: Sequence[UInt8], subjects: Int64) -> list[Prediction]:
        """PREDICT of each picture."""
        return self.each(self._predict, pixels, subjects)

    def certify(self, pixels: Sequence[UInt8], subjects: Int64) -> list[Certificate]:
        """CERTIFY of each picture."""
        warm(self.certifying)
        return self.each(self._certify, pixels, subjects)

    async def _raw(self, picture: Picture) -> Label | BackendError | None:
        label, _ = await self.sampler.clean(picture, Recalled(), number=CLEAN)
        outcome = self.listener.outcomes.pop(picture.id)
        return label if outcome.error is None else outcome.error

    async def _predict(self, picture: Picture) -> Prediction:
        return await self._verdict(picture, predict_plan(self.predicting))

    async def _certify(self, picture: Picture) -> Certificate:
        return picture.place(await self._verdict(picture, certify_plan(self.certifying)))

    async def _verdict(self, picture: Picture, plan: Plan[Verdict]) -> Verdict:
        verdict, cost = await self.sampler.run(picture, plan, Recalled())
        self.listener.forget(picture)
        return replace(verdict, cost=cost.at(self.classifier.backend.price_usd))


def _answered(answer: Label | BackendError | None) -> Label | None:
    if isinstance(answer, BackendError):
        raise answer
    return answer
