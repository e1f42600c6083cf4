"""The raw and the hardened classifier of a configuration, as attacks see them. Ends with whoever made it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from smoothing_proxy.backends.labels import LabelMap
from smoothing_proxy.config import NamedOptions, ProxyConfig
from smoothing_proxy.redteam.asked import AskedTarget, HardenedTarget
from smoothing_proxy.redteam.coded import coded
from smoothing_proxy.redteam.defended import defended
from smoothing_proxy.redteam.judge import Judge
from smoothing_proxy.redteam.networks import Network, differentiable
from smoothing_proxy.redteam.queries import Queries
from smoothing_proxy.redteam.targets import GradientTarget, Target
from smoothing_proxy.smoothing.base_classifier import BaseClassifier
from smoothing_proxy.smoothing.settings import Smoothing
from smoothing_proxy.types import Label

__all__ = ["ConfiguredSides"]

MOST_AT_ONCE = 16
"""Pictures in one pass of the hardened classifier, each with its noisy copies."""


class ConfiguredSides:
    """Gives compare.py its targets. Close it, or use it as a context manager.

    classes: the labels of the pictures. draws: noisy copies behind one query of the hardened classifier; copies:
    in the expectation that gradients go through. surrogate: for transfer, as `backend` takes it.
    Raises ConfigError, when gradients are asked for, where the classifier or surrogate has none.
    """

    def __init__(
        self,
        config: ProxyConfig,
        classifier: BaseClassifier,
        classes: Sequence[Label],
        *,
        draws: int,
        copies: int,
        seed: int,
        queries: Queries,
        surrogate: NamedOptions | None = None,
    ) -> None:
        self.draws, self.copies, self.seed = draws, copies, seed
        self._config, self._classifier, self._surrogate = config, classifier, surrogate
        self._open = ExitStack()
        common = {"queries": queries, "in_flight": config.run.in_flight, "transport": config.transport}
        self._asked: dict[bool, Target] = {
            False: self._open.enter_context(AskedTarget(classifier, classes, **common)),  # type: ignore[arg-type]
            True: self._open.enter_context(HardenedTarget(classifier, classes, draws=draws, **common)),  # type: ignore[arg-type]
        }
        self._networks: dict[tuple[bool, bool], Network] = {}

    def target(self, needs: str, hardened: bool) -> Target:  # noqa: FBT001 (one of two, by position in compare)
        """See compare.Sides."""
        if needs != "gradients":
            return self._asked[hardened]
        network = self._network(surrogate=False, hardened=hardened)
        return GradientTarget(network, batch_size=MOST_AT_ONCE if hardened else 64)

    def surrogate(self, hardened: bool) -> Network | None:  # noqa: FBT001
        """See compare.Sides. An attacker of the hardened classifier puts the same defence before the surrogate."""
        return None if self._surrogate is None else self._network(surrogate=True, hardened=hardened)

    def judge(self, queries: Queries, *, predicting: Smoothing, certifying: Smoothing) -> Judge:
        """What the product itself answers; closed with this."""
        return self._open.enter_context(
            Judge(
                self._classifier,
                predicting=predicting,
                certifying=certifying,
                queries=queries,
                in_flight=self._config.run.in_flight,
                transport=self._config.transport,
            )
        )

    def close(self) -> None:
        """End the threads that ask."""
        self._open.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _network(self, *, surrogate: bool, hardened: bool) -> Network:
        key = (surrogate, hardened)
        if key not in self._networks:
            self._networks[key] = self._hardened(surrogate=surrogate) if hardened else self._raw(surrogate)
        return self._networks[key]

    def _raw(self, surrogate: bool) -> Network:  # noqa: FBT001
        named = self._surrogate if surrogate and self._surrogate is not None else self._config.backend
        label_map: LabelMap | None = self._config.labels
        network = differentiable(named.name, label_map=label_map, **named.options)
        return coded(network, self._classifier.encoding)

    def _hardened(self, *, surrogate: bool) -> Network:
        return defended(
            self._network(surrogate=surrogate, hardened=False),
            self._classifier.denoiser,
            sigma=self._classifier.sigma,
            copies=self.copies,
            seed=self.seed,
        )
