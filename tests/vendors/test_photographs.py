"""Photographs of real size, cleaned by the shipped denoiser, through each simulated vendor."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.simulator.processes import simulation
from tests.vendors.runs import ENVIRONMENT, VendorRun, backend_table
from tests.vendors.test_vendor_runs import VENDORS, leaks

PHOTOGRAPHS = ("n01795545_black_grouse.JPEG", "n02007558_flamingo.JPEG", "n02102480_Sussex_spaniel.JPEG")
"""Without a denoiser no noisy copy of them keeps the classifier's answer, cleaned by `natural` every one does."""

N0, N = 4, 16

SETTINGS = """
[smoothing]
sigma = 0.12
n0 = {n0}
n = {n}
working_size = "shorter=256,crop=224"

[denoiser]
name = "natural"

[backend]
{backend}

[run]
canaries = false
"""


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "vendor", [pytest.param(vendor, marks=[pytest.mark.slow] if vendor != "aws" else []) for vendor in VENDORS]
)
def test_photographs_are_certified_behind_the_shipped_denoiser(
    vendor: str, shared_data: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in PHOTOGRAPHS:
        (folder / name).symlink_to(shared_data / "imagenet-sample" / name)
    blackbox = shared_data / "blackbox"
    model = f"local:{blackbox / 'mobilenet_v2_1.0_224_quant.tflite'}"
    names = (blackbox / "imagenet_labels.txt").read_text(encoding="utf-8").splitlines()
    labels = ("-b", f"labels={blackbox / 'imagenet_labels.txt'}")
    with simulation(vendor, tmp_path, *labels, backend=model, environment=ENVIRONMENT) as there:
        table = backend_table(vendor, there).replace('["dark", "grey", "light"]', str(sorted(set(names))))
        config = tmp_path / "photographs.toml"
        config.write_text(SETTINGS.format(n0=N0, n=N, backend=table), encoding="utf-8")
        run = VendorRun(folder, tmp_path / "run", config, ("--insecure-seed", "3"))
        status, summary, printed = run.finish()
        till = there.till()
    assert status == 0, printed
    assert summary["pictures"]["decided"] == len(PHOTOGRAPHS)
    assert till["billed"] == summary["cost"]["queries"] == len(PHOTOGRAPHS) * (1 + N0 + N)
    right = next(point for point in summary["certified_accuracy"] if point["radius"] == 0.0)
    assert right["count"] == len(PHOTOGRAPHS)
    assert not leaks(run.out, printed)
