"""The smoothed classifier g for asynchronous programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from types import TracebackType
from typing import Self, TypeVar

import anyio.to_thread

from smoothing_proxy.backends.base import Backend
from smoothing_proxy.backends.labels import LabelMap
from smoothing_proxy.backends.registry import backend as backend_named
from smoothing_proxy.denoisers.base import Denoiser
from smoothing_proxy.denoisers.registry import denoiser as denoiser_named
from smoothing_proxy.errors import ConfigError
from smoothing_proxy.images.codec import Encoding
from smoothing_proxy.smoothing.base_classifier import BaseClassifier
from smoothing_proxy.smoothing.label_plans import check_watched, labels_plan, top_k_plan
from smoothing_proxy.smoothing.observe import Journal, Observer, Recalled
from smoothing_proxy.smoothing.picture import ImageLike, Picture, canonical, prepare
from smoothing_proxy.smoothing.placing import place_labels, place_top_k
from smoothing_proxy.smoothing.plan import certify_plan, predict_plan, warm
from smoothing_proxy.smoothing.reply_stream import RecalledReplies, run_replies
from smoothing_proxy.smoothing.sampler import Sampler
from smoothing_proxy.smoothing.settings import PerLabel, Smoothing
from smoothing_proxy.transport.settings import TransportSettings
from smoothing_proxy.types import Certificate, Label, LabelsCertificate, Prediction, TopKCertificate

__all__ = ["AsyncSmoothedClassifier"]

Verdict = TypeVar("Verdict", Certificate, Prediction)


class AsyncSmoothedClassifier:
    """A classifier that nobody may change, made provably robust by asking it about many noisy, denoised copies.

    backend: a Backend, or its name ("local:model.onnx"). denoiser: a Denoiser, or its name or card's path.
    smoothing: sigma, n0, n, alpha. labels: from the classifier's labels to yours. encoding: of the copies; None
    takes what the backend prefers. in_flight: requests under way at once; None likewise. transport: retries,
    rate and outages; None takes the defaults for a vendor, and neither limits nor retries on this machine.
    journal: is told of each draw before it is sent, so that it can keep a budget; None for none. Draws are not
    remembered: to certify a folder without ever paying twice, use a run.

    Use it as an asynchronous context manager: leaving it closes the backend.
    Raises ConfigError for an unknown backend or denoiser, DenoiserError for weights that cannot be used.
    """

    def __init__(
        self,
        backend: Backend | str,
        *,
        smoothing: Smoothing,
        denoiser: Denoiser | str = "identity",
        labels: LabelMap | None = None,
        encoding: Encoding | None = None,
        in_flight: int | None = None,
        transport: TransportSettings | None = None,
        journal: Journal | None = None,
        observers: Sequence[Observer] = (),
    ) -> None:
        self.smoothing = smoothing
        self.backend = backend_named(backend) if isinstance(backend, str) else backend
        classifier = BaseClassifier(
            self.backend,
            denoiser_named(denoiser) if isinstance(denoiser, str) else denoiser,
            sigma=smoothing.sigma,
            labels=labels,
            encoding=encoding,
        )
        classifier.check_sigma()
        self._sampler = Sampler(
            classifier, in_flight=in_flight, transport=transport, journal=journal, observers=observers
        )
        self._ids = count()

    async def certify(self, image: ImageLike) -> Certificate:
        """CERTIFY: the majority label and the radius within which it cannot change, or an abstention.

        image: a file, a file's bytes, or a uint8 [h, w, 3] RGB array. Raises ImageError when it
        cannot be read, and AuthenticationError when the classifier refuses the credentials.
        """
        picture = self._prepare(image)
        await anyio.to_thread.run_sync(warm, self.smoothing)
        certificate, cost = await self._sampler.run(picture, certify_plan(self.smoothing), Recalled())
        return replace(picture.place(certificate), cost=cost.at(self.backend.price_usd))

    async def predict(self, image: ImageLike) -> Prediction:
        """PREDICT: the smoothed classifier's label, wrong with probability at most alpha, or an abstention."""
        plan = predict_plan(self.smoothing)
        prediction, cost = await self._sampler.run(self._prepare(image), plan, Recalled())
        return replace(prediction, cost=cost.at(self.backend.price_usd))

    async def certify_labels(self, image: ImageLike, asked: PerLabel = PerLabel()) -> LabelsCertificate:  # noqa: B008 (frozen)
        """Which labels of a multi-label reply stay present, and which stay absent, each within its own radius.

        Takes n0 draws, and where any claim is worth testing n fresh ones (max_queries, where the method is not
        "fixed"). The label map's groups are labels here, its threshold is not used. See stats.per_label.
        Raises ConfigError where the label map asks a question of its own (`present`) or is closed to a watched
        label, and the errors of `certify`.
        """
        labels = self._sampler.classifier.labels
        if labels.present is not None:
            raise ConfigError("the label map's `present` asks about one label: leave it out for per-label proofs")
        check_watched(asked, labels.classes)
        picture, plan = self._prepare(image), labels_plan(self.smoothing, asked)
        certificate, cost = await run_replies(self._sampler, picture, plan, RecalledReplies())
        return replace(place_labels(certificate, picture.resize), cost=cost.at(self.backend.price_usd))

    async def certify_top_k(self, image: ImageLike, k: int, label: Label | None = None) -> TopKCertificate:
        """The radius within which a label stays among the k most likely ones, or an abstention (stats.topk).

        label: None takes the one that most selection draws vote for. k: 1..20, else ConfigError.
        """
        picture = self._prepare(image)
        certificate, cost = await self._sampler.run(picture, top_k_plan(self.smoothing, k, label), Recalled())
        return replace(place_top_k(certificate, picture.resize), cost=cost.at(self.backend.price_usd))

    async def classify(self, image: ImageLike) -> Label | None:
        """The base classifier's own answer to the picture, with neither noise nor denoiser: one query."""
        label, _ = await self._sampler.clean(self._prepare(image), Recalled())
        return label

    async def aclose(self) -> None:
        """Close the backend."""
        await self.backend.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def _prepare(self, image: ImageLike) -> Picture:
        return prepare(canonical(image), self.smoothing.working_size, picture_id=next(self._ids))
