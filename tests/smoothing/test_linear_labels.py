"""Labels whose presence and confidence are linear in the picture: what may be proven is known in closed form."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import norm

from smoothing_proxy.backends.scripted import ScriptedBackend
from smoothing_proxy.smoothing.client import AsyncSmoothedClassifier
from smoothing_proxy.smoothing.settings import PerLabel, Smoothing
from smoothing_proxy.types import Reply, ScoredLabel

pytestmark = pytest.mark.anyio

SIGMA, N = 0.1, 25_000
SHAPE = (6, 6, 3)
GREY = np.full(SHAPE, 128, np.uint8)


def slopes(distance: float) -> ScriptedBackend:
    """confidence = 1/2 + distance to a plane, at which the grey picture has `distance`; and the reverse."""
    direction = np.random.default_rng(5).normal(size=SHAPE)
    direction /= np.linalg.norm(direction)
    centre = float((direction * GREY / 255).sum())

    def reply(pixels: npt.NDArray[np.uint8]) -> Reply:
        height = float((direction * (pixels / 255)).sum()) - centre + distance
        up, down = (min(1.0, max(0.0, 0.5 + signed)) for signed in (height, -height))
        return Reply((ScoredLabel("up", up), ScoredLabel("down", down)))

    return ScriptedBackend(reply, batch_size=100, concurrency=2)


@pytest.mark.parametrize("in_sigmas", [0.5, 1.5])
async def test_what_is_proven_comes_close_to_what_is_true_and_never_beyond(in_sigmas: float) -> None:
    distance, radius = in_sigmas * SIGMA, 0.5 * SIGMA
    settings = Smoothing(sigma=SIGMA, n0=50, n=N)
    async with AsyncSmoothedClassifier(slopes(distance), smoothing=settings) as g:
        certificate = await g.certify_labels(GREY, PerLabel(watched=("up", "down"), confidence_radius=radius))
    up, down = certificate.labels
    assert (up.present, down.present) == (True, False)
    for proof, middle in ((up, 0.5 + distance), (down, 0.5 - distance)):
        assert 0.85 * distance < proof.radius < distance
        assert proof.confidence is not None
        assert proof.confidence.low <= middle - radius < middle + radius <= proof.confidence.high
        spread = 6 * SIGMA / np.sqrt(N) / norm.pdf(0.5)  # of an order statistic there
        assert proof.confidence.high - proof.confidence.low <= 2 * (radius + spread)


async def test_labels_on_the_threshold_are_proven_for_neither() -> None:
    async with AsyncSmoothedClassifier(slopes(0.0), smoothing=Smoothing(sigma=SIGMA, n0=50, n=N)) as g:
        certificate = await g.certify_labels(GREY, PerLabel(watched=("up", "down")))
    assert [proof.present for proof in certificate.labels] == [None, None]
