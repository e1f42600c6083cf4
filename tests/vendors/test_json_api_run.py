"""A folder certified through a vendor of no known format: described in the configuration, and nothing else."""

from __future__ import annotations

import base64
import json
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from smoothing_proxy.images import pixels
from smoothing_proxy.wire.base import HttpReply, HttpRequest
from tests.cli.shade_classifier import SHADES
from tests.simulator.processes import SECRET
from tests.vendors.runs import SETTINGS, VendorRun, shades
from tests.vendors.test_vendor_runs import leaks
from tests.vendors.validity import SHADES_OF_THREE, check_verdicts
from tests.wire.loopback import serving

BACKEND = """\
name = "json-api"
url = "{url}/v3/look"
method = "{method}"
headers = {{ X-Press-Card = "no. {{env:PRESS_CARD}}" }}
body = {{ exhibit = {{ b64 = "{{image_base64}}" }}, most = 3 }}
labels_path = "$.seen[*].thing"
scores_path = "$.seen[*].sure"
score_scale = 1000
model_version_path = "$.eye"
errors = {{ "430" = "throttled", "451" = "quota" }}
max_side_px = 64
read_timeout_s = 2.0
price_usd_per_1000 = 3.0"""


class Gallery:
    """The vendor: looks at pictures, keeps its own bill, and fails as often as it is told.

    faulty: (number of a request) -> the status that it fails with, or 0. A 500, and a page instead of JSON (299),
    come after the work was done and billed. quota: pictures, then 451.
    """

    def __init__(self, faulty: Callable[[int], int] = lambda _: 0, quota: int = 10**6) -> None:
        self.billed: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.quota = quota
        self._faulty = faulty
        self._requests = 0
        self._door = threading.Lock()

    def answer(self, request: HttpRequest) -> HttpReply:
        with self._door:
            self._requests += 1
            status = self._faulty(self._requests)
        if request.headers.get("x-press-card") != f"no. {SECRET}" or request.path != "/v3/look":
            return HttpReply(401)
        if status == 430:
            return HttpReply(430, {"retry-after": "0"})
        if self.billed.total() >= self.quota:
            return HttpReply(451)
        asked = json.loads(request.body)
        data = base64.b64decode(asked["exhibit"]["b64"], validate=True)
        image = pixels.decode(data)
        if max(image.shape) > 64:
            self.wrong.append(f"a picture of {image.shape}")
        self.billed[request.headers["content-length"]] += 1
        if status == 299:
            return HttpReply(200, {"content-type": "text/html"}, b"<html>the gallery is being repainted</html>")
        return HttpReply(500) if status == 500 else HttpReply(200, {}, _seen(image, asked["most"]))


def _seen(image: np.ndarray, most: int) -> bytes:
    best = min(int(image.mean() // 86), 2)
    order = [best, *(other for other in range(3) if other != best)]
    seen = [{"thing": SHADES[i], "sure": 900 - 400 * rank} for rank, i in enumerate(order[:most])]
    return json.dumps({"eye": "m-7", "seen": seen}).encode()


def run_against(url: str, tmp_path: Path, *, n0: int, n: int, method: str = "POST") -> VendorRun:
    config = tmp_path / "gallery.toml"
    backend = BACKEND.format(url=url, method=method)
    config.write_text(SETTINGS.format(sigma=0.1, n0=n0, n=n, backend=backend))
    folder = tmp_path / "pictures"
    folder = folder if folder.exists() else shades(folder, 3, side=96)
    return VendorRun(folder, tmp_path / "run", config, environment={"PRESS_CARD": SECRET})


@pytest.mark.timeout(200)
def test_a_folder_is_certified_paid_once_and_resumed_when_there_is_quota_again(tmp_path: Path) -> None:
    gallery = Gallery(quota=40)
    with serving(gallery.answer) as url:
        run = run_against(url, tmp_path, n0=5, n=20)
        status, _, printed = run.finish()
        assert status == 3, printed
        assert "HTTP 451 (quota)" in printed
        assert gallery.billed.total() == 40
        gallery.quota = 10**6
        status, summary, printed = run.finish()
    assert status == 0, printed
    assert check_verdicts(run.out, SHADES_OF_THREE, sigma=0.1, n0=5, n=20) == 3
    assert gallery.billed.total() == summary["cost"]["queries"] == 3 * 26
    assert summary["cost"] == {"queries": 78, "unknown": 0, "usd": pytest.approx(0.234)}
    assert summary["model_versions"] == ["m-7"]
    assert gallery.wrong == []
    assert not leaks(run.out, printed)


@pytest.mark.timeout(200)
@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_under_faults_every_verdict_is_valid_and_every_send_is_known(method: str, tmp_path: Path) -> None:
    def faulty(number: int) -> int:
        return next((status for every, status in ((23, 430), (7, 500), (31, 299)) if number % every == 0), 0)

    gallery = Gallery(faulty)
    with serving(gallery.answer) as url:
        run = run_against(url, tmp_path, n0=10, n=60, method=method)
        status, summary, printed = run.finish()
    assert status == 0, printed
    assert summary["draws"]["answered"] + summary["draws"]["failed"] == 3 * 71
    assert check_verdicts(run.out, SHADES_OF_THREE, sigma=0.1, n0=10, n=60) == 3
    cost = summary["cost"]
    assert cost["unknown"] > 0
    assert gallery.billed.total() == cost["queries"] + cost["unknown"]
    assert not leaks(run.out, printed)


@pytest.mark.timeout(100)
def test_a_page_in_place_of_the_vendor_ends_the_run_before_it_has_used_up_every_draw(tmp_path: Path) -> None:
    gallery = Gallery(lambda _: 299)
    with serving(gallery.answer) as url:
        run = run_against(url, tmp_path, n0=10, n=60)
        status, _, printed = run.finish()
    assert status == 3
    assert "answers in a row are not in its format" in printed
    assert "check the address and the network" in printed
    assert 20 <= gallery.billed.total() < 60
