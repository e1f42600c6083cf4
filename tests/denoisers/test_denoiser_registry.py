from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from smoothing_proxy.denoisers import shipped
from smoothing_proxy.denoisers.base import Denoiser
from smoothing_proxy.denoisers.registry import denoiser, denoiser_names
from smoothing_proxy.errors import ConfigError, DenoiserError, WeightsMismatchError
from tests.denoisers.noisy_pictures import one_thread, rewrite, save_untrained, scene


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture
def shipping(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of shipped denoisers."""
    folder = tmp_path / "shipped"
    folder.mkdir()
    monkeypatch.setattr(shipped, "FOLDER", folder)
    return folder


@pytest.mark.parametrize(
    ("spec", "options", "fingerprint"),
    [
        ("identity", {}, "identity"),
        ("wavelet", {}, "wavelet:haar,mode=soft,rule=bayes,color=opponent"),
        ("wavelet:db2,level=2,mode=hard", {}, "wavelet:db2,level=2,mode=hard,rule=bayes,color=opponent"),
        ("wavelet:db2", {"level": 2, "mode": "hard"}, "wavelet:db2,level=2,mode=hard,rule=bayes,color=opponent"),
        ("wavelet:sym4,threshold=0.1", {"color": "rgb"}, "wavelet:sym4,mode=soft,threshold=0.1,color=rgb"),
        ("gaussian:2", {}, "gaussian:2.0"),
        ("gaussian,pixels=0.75", {}, "gaussian:0.75"),
        ("median:5", {}, "median:5"),
        ("median", {"window": 7}, "median:7"),
    ],
)
def test_a_spec_says_which_denoiser(spec: str, options: dict[str, Any], fingerprint: str) -> None:
    made = denoiser(spec, **options)
    assert isinstance(made, Denoiser)
    assert made.fingerprint == fingerprint


@pytest.mark.parametrize("spec", ["identity", "wavelet:db2,level=2", "gaussian:1.5", "median:5"])
def test_a_denoisers_name_is_a_spec_of_it(spec: str) -> None:
    made = denoiser(spec)
    assert made.name == spec
    assert denoiser(made.name).fingerprint == made.fingerprint


@pytest.mark.parametrize(
    ("spec", "options", "said"),
    [
        ("identiy", {}, "unknown denoiser 'identiy'; did you mean 'identity'?"),
        ("wavlet:haar", {}, "unknown denoiser 'wavlet'; did you mean 'wavelet'?"),
        ("zzz", {}, "unknown denoiser 'zzz'; known: "),
        ("", {}, "unknown denoiser ''; known: "),
        ("identity:3", {}, "denoiser 'identity': too many positional arguments"),
        ("median:3,windw=5", {}, "denoiser 'median': unknown option 'windw'; did you mean 'window'?"),
        ("median:3,window=5", {}, "denoiser 'median': multiple values for argument 'window'"),
        ("median,window=5", {"window": 3}, "window is also given as an option"),
        ("median,window=5,window=3", {}, "an option is given twice"),
        ("median:", {}, "median: '' is no window"),
        ("gaussian:many", {}, "gaussian: 'many' is no standard deviation"),
        ("wavelet:haar,mode=", {}, "mode is ''; known: hard, soft"),
    ],
)
def test_a_spec_that_makes_no_sense_is_refused(spec: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        denoiser(spec, **options)
    assert said in str(refusal.value)


def test_without_weights_there_are_the_four_that_need_none(shipping: Path) -> None:
    assert denoiser_names() == ["gaussian", "identity", "median", "wavelet"]


def test_a_shipped_card_is_a_name(shipping: Path) -> None:
    save_untrained(shipping, name="dots")
    assert "dots" in denoiser_names()
    made = denoiser("dots,device=cpu", precision="float32", batch_size=2)
    assert (made.name, made.batch_size) == ("dots", 2)
    assert made.denoise(scene(8, 8), 0.25).shape == (1, 8, 8, 3)
    with pytest.raises(ConfigError, match="unknown option 'presision'; did you mean 'precision'"):
        denoiser("dots", presision="float32")
    with pytest.raises(ConfigError, match="denoiser 'dots': too many positional arguments"):
        denoiser("dots:8")


@pytest.mark.parametrize("suffix", [".json", ".safetensors"])
def test_a_path_is_a_denoiser_with_the_same_output_as_its_name(shipping: Path, suffix: str) -> None:
    path = save_untrained(shipping, name="dots").with_suffix(suffix)
    named, found = denoiser("dots,device=cpu"), denoiser(f"{path},device=cpu")
    assert found.name == str(path)
    assert found.fingerprint == named.fingerprint
    assert np.array_equal(found.denoise(scene(8, 8), 0.25), named.denoise(scene(8, 8), 0.25))


def test_a_path_may_hold_commas_and_start_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_untrained(tmp_path / "a, b=c", name="dots")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert denoiser("~/a, b=c/dots.json,device=cpu").name == "~/a, b=c/dots.json"


def test_a_path_that_leads_to_no_usable_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DenoiserError, match="no such denoiser card"):
        denoiser("nowhere.json")
    with pytest.raises(DenoiserError, match="no such denoiser card"):
        denoiser("./digits")
    with pytest.raises(DenoiserError, match="pickled weights are refused"):
        denoiser(str(tmp_path / "model.pth"))
    card = save_untrained(tmp_path)
    rewrite(card, sha256="0" * 64)
    with pytest.raises(WeightsMismatchError, match="sha256"):
        denoiser(str(card))


def install(folder: Path, package: str, entry_points: str, code: str = "") -> None:
    """A distribution, as an installer would leave it: a module and its dist-info."""
    (folder / f"{package}.py").write_text(code)
    info = folder / f"{package}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[smoothing_proxy.denoisers]\n{entry_points}\n")


PLUGIN = """
from smoothing_proxy.denoisers.classical import Gaussian

def twice(pixels=1.0, *, times=2):
    return Gaussian(pixels * times)

def nothing():
    return None

fixed = 3
"""


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(tmp_path)
    offered = {
        "twice-blurred": "denoiser_plugin:twice",
        "nothing": "denoiser_plugin:nothing",
        "fixed": "denoiser_plugin:fixed",
        "absent": "denoiser_plugin:absent",
        "gone": "no_such_module_here:f",
        "identity": "denoiser_plugin:twice",
    }
    install(tmp_path, "denoiser_plugin", "\n".join(f"{k} = {v}" for k, v in offered.items()), PLUGIN)
    return tmp_path


def test_another_packages_denoiser_is_found_by_its_entry_point(plugin: Path) -> None:
    assert "twice-blurred" in denoiser_names()
    assert denoiser("twice-blurred").name == "gaussian:2"
    assert denoiser("twice-blurred:1.5,times=3").name == "gaussian:4.5"


def test_an_entry_point_never_replaces_a_built_in_name(plugin: Path) -> None:
    assert denoiser("identity").name == "identity"


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("twice-blured", "did you mean 'twice-blurred'?"),
        ("twice-blurred,tims=3", "unknown option 'tims'; did you mean 'times'?"),
        ("nothing", "its factory made a NoneType, not a Denoiser"),
        ("fixed", "its entry point 'denoiser_plugin:fixed' is not callable"),
        ("absent", "its entry point 'denoiser_plugin:absent' fails"),
        ("gone", "its entry point 'no_such_module_here:f' fails: No module named"),
    ],
)
def test_an_entry_point_that_does_not_work_is_named(plugin: Path, spec: str, said: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        denoiser(spec)
    assert said in str(refusal.value)


def test_a_name_that_two_packages_offer_is_refused(plugin: Path) -> None:
    install(plugin, "second_plugin", "twice-blurred = second_plugin:other")
    with pytest.raises(ConfigError, match="several packages offer it: denoiser_plugin:twice, second_plugin:other"):
        denoiser("twice-blurred")


def test_looking_up_names_and_classical_denoisers_loads_no_torch() -> None:
    code = (
        "import sys; from smoothing_proxy.denoisers.registry import denoiser, denoiser_names; "
        "denoiser_names(); denoiser('wavelet:haar'); denoiser('median:3'); denoiser('gaussian:1'); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
