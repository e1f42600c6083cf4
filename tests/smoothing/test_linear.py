"""A linear classifier, whose smoothed radius is known in closed form: the certificate comes close from below.

For f(x) = "above" when <w, x> > t, the smoothed classifier's p_A at x is Phi(d / sigma) with d the distance of x
to the plane, and its label changes exactly at distance d. So the certified radius must stay below d, and come as
close as n allows.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import beta, norm

from smoothing_proxy.backends.scripted import ScriptedBackend
from smoothing_proxy.denoisers.identity import Identity
from smoothing_proxy.smoothing.base_classifier import BaseClassifier
from smoothing_proxy.smoothing.observe import Recalled
from smoothing_proxy.smoothing.picture import prepare
from smoothing_proxy.smoothing.plan import certify_plan
from smoothing_proxy.smoothing.sampler import Sampler
from smoothing_proxy.smoothing.settings import Smoothing

pytestmark = pytest.mark.anyio

SIGMA, N, ALPHA = 0.1, 4000, 0.001
SHAPE = (6, 6, 3)
MID_GREY = 128


def plane_at(distance: float) -> ScriptedBackend:
    """Says "above" on this side of a plane at `distance` from the grey picture, in a direction fixed for all."""
    direction = np.random.default_rng(5).normal(size=SHAPE)
    direction /= np.linalg.norm(direction)
    centre = np.full(SHAPE, MID_GREY / 255)
    threshold = float((direction * centre).sum()) - distance

    def side(pixels: npt.NDArray[np.uint8]) -> str:
        return "above" if float((direction * (pixels / 255)).sum()) > threshold else "below"

    return ScriptedBackend(side, batch_size=100, concurrency=2)


@pytest.mark.parametrize("in_sigmas", [0.5, 1.0, 1.5, 2.0])
async def test_the_certificate_comes_close_to_the_exact_radius_from_below(in_sigmas: float) -> None:
    distance = in_sigmas * SIGMA
    settings = Smoothing(sigma=SIGMA, n0=50, n=N, alpha=ALPHA)
    sampler = Sampler(BaseClassifier(plane_at(distance), Identity(), sigma=SIGMA))
    picture = prepare(np.full(SHAPE, MID_GREY, np.uint8), "original", entropy=bytes(range(16)))
    certificate, _ = await sampler.run(picture, certify_plan(settings), Recalled())
    assert certificate.label == "above"
    assert certificate.radius < distance
    # What Clopper-Pearson leaves at n draws, four standard deviations unlucky: nothing else may cost radius.
    p = norm.cdf(in_sigmas)
    votes = int(N * p - 4 * np.sqrt(N * p * (1 - p)))
    assert certificate.radius > SIGMA * norm.ppf(beta.ppf(ALPHA, votes, N - votes + 1))


async def test_a_picture_on_the_plane_is_abstained_on() -> None:
    settings = Smoothing(sigma=SIGMA, n0=50, n=N, alpha=ALPHA)
    sampler = Sampler(BaseClassifier(plane_at(0.0), Identity(), sigma=SIGMA))
    picture = prepare(np.full(SHAPE, MID_GREY, np.uint8), "original", entropy=bytes(range(16)))
    certificate, _ = await sampler.run(picture, certify_plan(settings), Recalled())
    assert (certificate.label, certificate.radius) == (None, 0.0)
