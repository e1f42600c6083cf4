from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from denoiser_training.export_onnx import TOLERANCE, check_onnx, export_onnx, main
from smoothing_proxy.denoisers import weights
from smoothing_proxy.denoisers.shipped import shipped_cards
from smoothing_proxy.errors import ConfigError, DenoiserError

onnxruntime = pytest.importorskip("onnxruntime")
CARD = shipped_cards()["digits"]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped digits denoiser as ONNX."""
    path = tmp_path_factory.mktemp("onnx") / "deep" / "digits.onnx"
    assert export_onnx(CARD, path) < TOLERANCE
    assert [file.name for file in path.parent.iterdir()] == ["digits.onnx"]
    return path


@pytest.mark.parametrize("shape", [(1, 3, 8, 8), (5, 3, 9, 40), (2, 3, 33, 10), (1, 3, 224, 160)])
def test_the_file_gives_what_torch_gives_at_any_size(exported: Path, shape: tuple[int, ...]) -> None:
    session = onnxruntime.InferenceSession(str(exported), providers=["CPUExecutionProvider"])
    _, network = weights.load(CARD)
    noisy, sigma = torch.randn(shape), torch.rand(shape[0]) * 0.5 + 0.1
    (denoised,) = session.run(["denoised"], {"noisy": noisy.numpy(), "sigma": sigma.numpy()})
    assert denoised.dtype == np.float32
    assert torch.allclose(torch.from_numpy(denoised), network(noisy, sigma), atol=1e-5)


def test_the_file_says_whose_weights_it_holds(exported: Path) -> None:
    session = onnxruntime.InferenceSession(str(exported), providers=["CPUExecutionProvider"])
    facts = session.get_modelmeta().custom_metadata_map
    card, _ = weights.load(CARD)
    assert (facts["name"], facts["sha256"]) == ("digits", card.sha256)
    assert (float(facts["sigma_min"]), float(facts["sigma_max"])) == (card.sigma_min, card.sigma_max)


@pytest.mark.parametrize("fault", [1e-3, float("nan")])
def test_a_file_that_disagrees_with_torch_is_refused(exported: Path, fault: float) -> None:
    card, network = weights.load(CARD)
    network.get_parameter("tail.bias").add_(fault)
    with pytest.raises(DenoiserError, match=r"'digits' as ONNX differs from torch"):
        check_onnx(exported.read_bytes(), card, network)


def test_the_command_writes_where_it_is_told_and_names_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(CARD), "--out", str(tmp_path / "d.onnx")]) == 0
    assert "d.onnx: within" in capsys.readouterr().out
    assert (tmp_path / "d.onnx").exists()
    (tmp_path / "file").touch()
    for arguments, says in (
        ([str(tmp_path / "none.json")], "no such denoiser card"),
        ([str(CARD), "--out", str(tmp_path / "file" / "d.onnx")], "cannot write it"),
    ):
        assert main(arguments) == 2
        assert says in capsys.readouterr().err


@pytest.mark.parametrize("library", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, library: str) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ConfigError, match=rf"needs {library}: pip install"):
        export_onnx(CARD, tmp_path / "d.onnx")
