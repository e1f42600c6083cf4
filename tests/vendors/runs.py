"""`smoothing-proxy run` against a simulated vendor, both in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.simulator.processes import SECRET, Simulation

__all__ = ["CLASSIFIER", "ENVIRONMENT", "VendorRun", "shades"]

SHADES = Path(__file__).parents[1] / "cli"
CLASSIFIER = "local:shade_classifier:shade"
ENVIRONMENT = {
    "PYTHONPATH": str(SHADES),
    "AWS_ACCESS_KEY_ID": "simulator",
    "AWS_SECRET_ACCESS_KEY": SECRET,
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
    "AZURE_VISION_KEY": SECRET,
    "GOOGLE_KEY": SECRET,
    "CLARIFAI_PAT": SECRET,
    "OPENAI_API_KEY": SECRET,
    "OMP_WAIT_POLICY": "PASSIVE",
    "OMP_NUM_THREADS": "1",
}

SETTINGS = """
[smoothing]
sigma = {sigma}
n0 = {n0}
n = {n}

[backend]
{backend}

[run]
in_flight = 16
canaries = false

[transport]
requests_per_s = 5000
start_per_s = 1000
min_per_s = 1000
attempts = 8
backoff_base_s = 0.02
backoff_max_s = 0.1
circuit_pause_s = 0.05
circuit_pause_max_s = 0.2
"""


def shades(folder: Path, count: int, *, side: int = 16) -> Path:
    """So many flat pictures from dark to light."""
    folder.mkdir()
    for number, level in enumerate(np.linspace(10, 245, count).round().astype(np.uint8)):
        Image.fromarray(np.full((side, side, 3), level, np.uint8)).save(folder / f"{number:03}.png")
    return folder


def backend_table(vendor: str, there: Simulation) -> str:
    """The table [backend] that asks this simulator."""
    tables = {
        "aws": f'name = "aws-rekognition"\nregion = "eu-west-1"\nendpoint = "{there.url}"',
        "google": f'name = "google-vision"\nendpoint = "127.0.0.1:{there.grpc_port}"\ninsecure = true\n'
        'api_key_env = "GOOGLE_KEY"',
        "azure": f'name = "azure-vision"\nendpoint = "{there.url}"',
        "clarifai": f'name = "clarifai"\nbase_url = "{there.url}"\nuser_id = "u"\napp_id = "a"\nmodel_id = "m"\n'
        'model_version = "1"',
        "openai": f'name = "openai-vision"\nbase_url = "{there.url}/v1"\nmodel = "m"\n'
        'labels = ["dark", "grey", "light"]\nprice_usd_per_1000 = 2.0',
    }
    return tables[vendor] + "\nread_timeout_s = 2.0"


@dataclass(frozen=True)
class VendorRun:
    """One run of a folder. out: its folder."""

    folder: Path
    out: Path
    config: Path
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] | None = None

    @classmethod
    def against(
        cls,
        vendor: str,
        there: Simulation,
        folder: Path,
        *,
        sigma: float,
        n0: int,
        n: int,
        arguments: tuple[str, ...],
    ) -> VendorRun:
        """A configuration for this simulator beside its folder."""
        config = there.folder / f"{vendor}.toml"
        text = SETTINGS.format(sigma=sigma, n0=n0, n=n, backend=backend_table(vendor, there))
        config.write_text(text)
        return cls(folder, there.folder / f"{vendor}-run", config, arguments)

    def start(self) -> subprocess.Popen[str]:
        """The run as a process, in a session of its own so that it can be killed whole."""
        command = [sys.executable, "-m", "smoothing_proxy", "run", str(self.folder), "--config", str(self.config)]
        return subprocess.Popen(
            [*command, "--out", str(self.out), "--yes", "--json", *self.arguments],
            env=os.environ | ENVIRONMENT | dict(self.environment or {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def finish(self, *, timeout_s: float = 200.0) -> tuple[int, dict[str, Any], str]:
        """Run to the end: exit status, summary and all that was printed."""
        process = self.start()
        output, complaints = process.communicate(timeout=timeout_s)
        summary = json.loads(output) if output.startswith("{") else {}
        return process.returncode, summary, output + complaints
