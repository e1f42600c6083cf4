"""A filter stands wherever a denoiser does: library, command line, gateway."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import numpy.typing as npt
import pytest
from anyio.from_thread import start_blocking_portal
from click.testing import CliRunner
from PIL import Image

from smoothing_proxy import SmoothedClassifier, Smoothing, backend, denoiser
from smoothing_proxy.assembly import make_classifier
from smoothing_proxy.cli.app import app
from smoothing_proxy.gateway.app import every_wire, make_gateway
from smoothing_proxy.gateway.memory_store import MemoryKey, MemoryStore
from smoothing_proxy.gateway.ports import Caller
from smoothing_proxy.gateway.service import Gateway
from smoothing_proxy.gateway.serving import listening
from smoothing_proxy.gateway.settings import GatewayConfig, read_gateway_config

BACKEND = "local:tests.test_filters_everywhere:surface"
SECRET = "a-secret-of-a-test-key"
FILTERS = ("identity", "wavelet:haar", "wavelet:db2", "gaussian:1.5", "median:3")


def surface(pixels: npt.NDArray[np.uint8]) -> list[str]:
    """uint8 [n, h, w, 3] -> whether noise of sigma .25 is still in it, or has been removed."""
    steps = np.abs(np.diff(pixels.astype(np.int16), axis=2)).mean(axis=(1, 2, 3))
    return ["rough" if step > 40 else "smooth" for step in steps]


def by_library(spec: str, picture: Path) -> str | None:
    smoothing = Smoothing(sigma=0.25, n0=10, n=60, alpha=0.001)
    with SmoothedClassifier(backend(BACKEND), denoiser=denoiser(spec), smoothing=smoothing) as client:
        return client.certify(picture).label


def by_command_line(spec: str, picture: Path) -> str | None:
    settings = ("--backend", BACKEND, "--sigma", "0.25", "--n0", "10", "--n", "60", "--json")
    result = CliRunner().invoke(app, ["certify", str(picture), "--denoiser", spec, *settings])
    assert result.exit_code == 0, result.output
    label: str | None = json.loads(result.stdout)["label"]
    return label


def by_gateway(spec: str, picture: Path) -> str | None:
    config_file = picture.with_suffix(".toml")
    config_file.write_text(
        '[gateway]\nport = 0\n[[keys]]\nid = "key"\nsecret_env = "UNUSED"\n'
        f'[smoothing]\nsigma = 0.25\nmax_queries = 120\n[backend]\nname = "{BACKEND}"\n'
        f'[denoiser]\nname = "{spec}"\n'
    )
    with gateway(read_gateway_config(config_file)) as url:
        headers = {"authorization": f"Bearer {SECRET}", "content-type": "image/png"}
        reply = httpx.post(f"{url}/v1/predict", content=picture.read_bytes(), headers=headers, timeout=30)
    assert reply.status_code == 200, reply.text
    label: str | None = reply.json()["label"]
    return label


@contextmanager
def gateway(config: GatewayConfig) -> Iterator[str]:
    store = MemoryStore(lambda: [MemoryKey(Caller("KEY"), SECRET)], cache_s=60.0, replay_s=60.0)

    async def made() -> Gateway:
        return make_gateway(config.gateway, make_classifier(config), config.smoothing, store)

    with start_blocking_portal() as portal:
        service = portal.call(made)
        with portal.wrap_async_context_manager(listening(service, every_wire())) as address:
            yield address.url


@pytest.mark.parametrize("spec", FILTERS)
@pytest.mark.parametrize("door", [by_library, by_command_line, by_gateway])
def test_a_filter_stands_wherever_a_denoiser_does(
    tmp_path: Path, spec: str, door: Callable[[str, Path], str | None]
) -> None:
    picture = tmp_path / "grey.png"
    Image.fromarray(np.full((32, 32, 3), 128, np.uint8)).save(picture)
    assert door(spec, picture) == ("rough" if spec == "identity" else "smooth")
