"""The package as a whole: what it exports, and what importing it costs."""

from __future__ import annotations

import subprocess
import sys

import pytest

import smoothing_proxy


def test_the_public_face_is_sorted_and_complete() -> None:
    assert smoothing_proxy.__all__ == sorted(smoothing_proxy.__all__)
    assert set(smoothing_proxy.__all__) == set(smoothing_proxy._HOME)
    for name in smoothing_proxy.__all__:
        assert getattr(smoothing_proxy, name) is not None


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'SmoothClassifier'"):
        _ = smoothing_proxy.SmoothClassifier


@pytest.mark.parametrize(
    "statement",
    [
        "import smoothing_proxy",
        "from smoothing_proxy import SmoothedClassifier, Smoothing, backend, denoiser",
        "import smoothing_proxy.cli.app",
        "import smoothing_proxy.assembly",
    ],
)
def test_importing_loads_no_torch_and_configures_no_logging(statement: str) -> None:
    check = (
        f"import sys, logging\n{statement}\n"
        "heavy = {'torch', 'torchvision', 'sklearn', 'onnxruntime', 'statsmodels', 'matplotlib'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "assert not logging.getLogger().handlers"
    )
    subprocess.run([sys.executable, "-c", check], check=True, timeout=60)


def test_importing_the_package_loads_nothing_else() -> None:
    check = "import sys, smoothing_proxy; print([m for m in sys.modules if m.startswith('smoothing_proxy.')])"
    output = subprocess.run([sys.executable, "-c", check], check=True, timeout=60, capture_output=True, text=True)
    assert output.stdout.strip() == "[]"
