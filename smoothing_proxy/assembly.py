"""The composition root: settings into objects. The only place that knows how everything fits together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from smoothing_proxy.backends.base import Backend
from smoothing_proxy.backends.registry import backend, takes_option
from smoothing_proxy.config import ProxyConfig
from smoothing_proxy.denoisers.registry import denoiser
from smoothing_proxy.errors import ConfigError
from smoothing_proxy.ledger.purse import Purse
from smoothing_proxy.ledger.store import Ledger
from smoothing_proxy.runs.family import NOT_SHARED, Family
from smoothing_proxy.runs.runner import FolderRun
from smoothing_proxy.smoothing.base_classifier import BaseClassifier
from smoothing_proxy.smoothing.client import AsyncSmoothedClassifier
from smoothing_proxy.types import Label

__all__ = [
    "LEDGER_NAME",
    "make_backend",
    "make_classifier",
    "make_client",
    "make_family",
    "make_ledger",
    "make_run",
    "wants_canaries",
]

LEDGER_NAME = "ledger.db"


def make_backend(config: ProxyConfig) -> Backend:
    """The backend of a configuration, which sends as many requests at once as the configuration has under way.

    Raises ConfigError where its own `concurrency` was given and is less than that: the rest would wait, written
    down as sent.
    """
    name, options, in_flight = config.backend.name, config.backend.options, config.run.in_flight
    if in_flight is not None and takes_option(name, "concurrency"):
        given = options.setdefault("concurrency", in_flight)
        if isinstance(given, int) and given < in_flight:
            raise ConfigError(
                f"run.in_flight is {in_flight}, and backend.concurrency lets {given} requests out at once: leave "
                "one of them out, or make them equal"
            )
    return backend(name, **options)


def make_classifier(config: ProxyConfig) -> BaseClassifier:
    """The base classifier of a configuration: its backend, denoiser, label map and encoding."""
    return BaseClassifier(
        make_backend(config),
        denoiser(config.denoiser.name, **config.denoiser.options),
        sigma=config.smoothing.sigma,
        labels=config.labels,
        encoding=config.encoding,
    )


def make_client(config: ProxyConfig) -> AsyncSmoothedClassifier:
    """The smoothed classifier of a configuration, which spends no more than its budget over all that it is asked.

    Close it, or use it as an asynchronous context manager.
    """
    asked = make_backend(config)
    return AsyncSmoothedClassifier(
        asked,
        denoiser=denoiser(config.denoiser.name, **config.denoiser.options),
        smoothing=config.smoothing,
        labels=config.labels,
        encoding=config.encoding,
        in_flight=config.run.in_flight,
        transport=config.transport,
        journal=Purse(config.budget.limit_queries(asked.price_usd)),
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
    family: Family | None = None,
    beside: Mapping[str, Any] | None = None,
) -> FolderRun:
    """The run of a configuration over these pictures.

    family: see `make_family`; the configuration's smoothing is that of one picture then. beside: further entries
    of the run's question.
    """
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
        family=family or make_family(config, pictures=len(names)),
        beside=beside or {},
    )


def make_family(config: ProxyConfig, *, pictures: int, begun: Family | None = None) -> Family:
    """What the certificates of a run say together. pictures: how many there are.

    begun: of the run that is resumed, whose number of pictures stays. Raises ConfigError where a setting is out of
    range or belongs to another statement.
    """
    method, size = config.run.family, config.run.family_size
    if method == "per-picture" and size is not None:
        raise ConfigError(NOT_SHARED)
    if size is None:
        size = begun.size if begun is not None and begun.method == method else pictures
    return Family(method, config.smoothing.alpha, size, config.run.family_radii)
