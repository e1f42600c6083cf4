"""The command line in this process, and a folder of pictures for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from smoothing_proxy.cli.app import app
from tests.cli.command_line import Invoke


@pytest.fixture
def invoke(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Invoke:
    """Run `smoothing-proxy ARGUMENTS` in an empty current directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(Path(__file__).parent)  # for local:shade_classifier:...

    def run(*arguments: str | Path) -> Result:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six pictures: two of each shade."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, level in enumerate((10, 30, 120, 130, 230, 250)):
        Image.fromarray(np.full((12, 12, 3), level, np.uint8)).save(folder / f"{number}.png")
    (tmp_path / "labels.csv").write_text(
        "file,label,verdict\n0.png,dark,a\n1.png,dark,a\n2.png,grey,a\n3.png,grey,a\n4.png,light,a\n5,light,a\n"
    )
    return folder
