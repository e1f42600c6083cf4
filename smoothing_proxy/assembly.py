"""The composition root: settings into objects. The only place that knows how everything fits together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from smoothing_proxy.backends.registry import backend
from smoothing_proxy.config import ProxyConfig
from smoothing_proxy.denoisers.registry import denoiser
from smoothing_proxy.errors import ConfigError
from smoothing_proxy.ledger.store import Ledger
from smoothing_proxy.runs.runner import FolderRun
from smoothing_proxy.smoothing.base_classifier import BaseClassifier
from smoothing_proxy.smoothing.client import AsyncSmoothedClassifier
from smoothing_proxy.types import Label

__all__ = ["LEDGER_NAME", "make_classifier", "make_client", "make_ledger", "make_run", "wants_canaries"]

LEDGER_NAME = "ledger.db"


def make_classifier(config: ProxyConfig) -> BaseClassifier:
    """The base classifier of a configuration: its backend, denoiser, label map and encoding."""
    return BaseClassifier(
        backend(config.backend.name, **config.backend.options),
        denoiser(config.denoiser.name, **config.denoiser.options),
        sigma=config.smoothing.sigma,
        labels=config.labels,
        encoding=config.encoding,
    )


def make_client(config: ProxyConfig) -> AsyncSmoothedClassifier:
    """The smoothed classifier of a configuration. Close it, or use it as an asynchronous context manager."""
    return AsyncSmoothedClassifier(
        backend(config.backend.name, **config.backend.options),
        denoiser=denoiser(config.denoiser.name, **config.denoiser.options),
        smoothing=config.smoothing,
        labels=config.labels,
        encoding=config.encoding,
        in_flight=config.run.in_flight,
        transport=config.transport,
    )


def make_ledger(out: Path, *, paid: bool, limit_queries: int | None = None) -> Ledger:
    """The ledger of a run folder, which is made where there is none. paid: survive a power cut too.

    limit_queries: the most that the run may ever spend.

    Raises ConfigError when the folder cannot be made.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{out}: cannot be the run's folder: {error}") from error
    return Ledger(out / LEDGER_NAME, durable=paid, limit_queries=limit_queries)


def wants_canaries(config: ProxyConfig, classifier: BaseClassifier) -> bool:
    """Whether the run asks them: where queries are paid, unless the configuration decides."""
    wanted = config.run.canaries
    return classifier.backend.price_usd > 0 if wanted is None else wanted


def make_run(
    config: ProxyConfig,
    classifier: BaseClassifier,
    ledger: Ledger,
    *,
    folder: Path,
    names: Sequence[str],
    reference: Mapping[str, Label] | None,
    insecure_seed: int | None,
) -> FolderRun:
    """The run of a configuration over these pictures."""
    return FolderRun(
        ledger=ledger,
        classifier=classifier,
        smoothing=config.smoothing,
        folder=folder,
        names=names,
        reference=reference,
        in_flight=config.run.in_flight,
        transport=config.transport,
        pictures_at_once=config.run.pictures_at_once,
        canaries=wants_canaries(config, classifier),
        insecure_seed=insecure_seed,
    )
