"""The public face: the smoothed classifier from Python, asynchronous, blocking, and in a notebook."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from smoothing_proxy import AsyncSmoothedClassifier, ScriptedBackend, SmoothedClassifier, Smoothing
from smoothing_proxy.errors import AuthenticationError, ConfigError, ImageError
from smoothing_proxy.types import Cost

SETTINGS = Smoothing(sigma=0.12, n0=10, n=100)
WHITE = np.full((40, 60, 3), 250, np.uint8)


def brightness(pixels: npt.NDArray[np.uint8]) -> str:
    return "light" if pixels.mean() > 127 else "dark"


def test_a_certificate_carries_its_sizes_radii_votes_and_cost(tmp_path: Path) -> None:
    Image.fromarray(WHITE).save(tmp_path / "white.png")
    settings = Smoothing(sigma=0.12, n0=10, n=100, working_size="20x30")
    with SmoothedClassifier(ScriptedBackend(brightness, price_usd=0.001), smoothing=settings) as g:
        certificate = g.certify(tmp_path / "white.png")
    assert certificate.label == "light"
    assert certificate.working_size == (20, 30)
    assert certificate.input_size == (40, 60)
    assert certificate.input_radius is not None
    assert 0 < certificate.radius < certificate.input_radius, "shrinking averages a change away"
    assert certificate.votes.n == 100
    assert certificate.queries == 110
    assert certificate.cost == Cost(110).at(0.001)


def test_a_picture_is_a_path_bytes_or_an_array(tmp_path: Path) -> None:
    stream = io.BytesIO()
    Image.fromarray(WHITE).save(stream, "PNG")
    (tmp_path / "white.png").write_bytes(stream.getvalue())
    with SmoothedClassifier(ScriptedBackend(brightness), smoothing=SETTINGS) as g:
        for image in (tmp_path / "white.png", str(tmp_path / "white.png"), stream.getvalue(), WHITE):
            assert g.predict(image).label == "light"
            assert g.classify(image) == "light"


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((8, 8), np.uint8), r"expected a uint8 array \[height, width, 3\]"),
        (np.zeros((8, 8, 3), np.float32), "float32"),
        (b"no picture", "not a PNG"),
        (Path("nowhere.png"), "nowhere.png: no such file"),
    ],
)
def test_what_is_no_picture_is_refused_before_any_query(image: object, message: str) -> None:
    backend = ScriptedBackend("light")
    with SmoothedClassifier(backend, smoothing=SETTINGS) as g, pytest.raises(ImageError, match=message):
        g.certify(image)  # type: ignore[arg-type]  # wrong on purpose
    assert backend.asked == 0


@pytest.mark.anyio
async def test_the_blocking_client_works_where_a_loop_already_runs() -> None:
    assert asyncio.get_running_loop().is_running()
    with SmoothedClassifier(ScriptedBackend(brightness), smoothing=SETTINGS) as g:
        assert g.predict(WHITE).label == "light"


@pytest.mark.anyio
async def test_many_pictures_at_once_through_the_asynchronous_client() -> None:
    backend = ScriptedBackend(brightness, latency_s=0.001, concurrency=16)
    async with AsyncSmoothedClassifier(backend, smoothing=SETTINGS) as g:
        certificates = await asyncio.gather(*(g.certify(WHITE) for _ in range(5)))
    assert {certificate.label for certificate in certificates} == {"light"}
    assert backend.most_in_flight == 16


def test_refused_credentials_reach_the_caller() -> None:
    backend = ScriptedBackend("light", failures={0: AuthenticationError("no such key")})
    with SmoothedClassifier(backend, smoothing=SETTINGS) as g, pytest.raises(AuthenticationError):
        g.predict(WHITE)


def test_unknown_names_are_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'scripted'"):
        SmoothedClassifier("scriptd", smoothing=SETTINGS)
    with pytest.raises(ConfigError, match="did you mean 'median'"):
        SmoothedClassifier(ScriptedBackend("light"), denoiser="meddian:3", smoothing=SETTINGS)
