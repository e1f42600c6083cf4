from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from smoothing_proxy.denoisers import shipped
from smoothing_proxy.denoisers.architectures import build
from smoothing_proxy.denoisers.base import Denoiser
from smoothing_proxy.denoisers.batches import Pictures
from smoothing_proxy.denoisers.torch_denoiser import Precision, TorchDenoiser, load_denoiser
from smoothing_proxy.errors import ConfigError, DenoiserError
from tests.denoisers.noisy_pictures import one_thread, psnr_db, save_untrained, scene, with_noise

NETWORKS = [("unet", {"widths": [16, 32]}), ("unet", {}), ("dncnn", {"width": 16, "depth": 5})]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


def runner(module: nn.Module, **options: Any) -> TorchDenoiser:
    fields: dict[str, Any] = {"name": "mine", "fingerprint": "v1", "sigma_min": 0.1, "sigma_max": 0.5}
    return TorchDenoiser(module, **fields | {"device": "cpu", "precision": "float32"} | options)


def network(architecture: str, options: dict[str, Any]) -> nn.Module:
    """In eval mode, its batch statistics (if any) moved off their start."""
    torch.manual_seed(0)
    made = build(architecture, options)
    made(torch.rand(4, 3, 8, 8), 0.25)
    return made.eval()


class Blur(nn.Module):
    """A user's own network: the mean over 3x3 pixels."""

    def forward(self, noisy: Tensor, sigma: float) -> Tensor:
        return nn.functional.avg_pool2d(noisy, 3, stride=1, padding=1, count_include_pad=False)


class Answering(nn.Module):
    """A network that answers whatever `answer` makes of its input."""

    def __init__(self, answer: Any) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, noisy: Tensor, sigma: float) -> Any:
        return self.answer(noisy)


@pytest.mark.parametrize(("architecture", "options"), NETWORKS)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(("size", "batch_size"), [((8, 8), None), ((8, 8), 1), ((32, 32), 4), ((37, 50), 3)])
def test_a_picture_has_the_same_bits_alone_permuted_and_in_any_company(
    architecture: str, options: dict[str, Any], precision: Precision, size: tuple[int, int], batch_size: int | None
) -> None:
    denoiser = runner(network(architecture, options), precision=precision, batch_size=batch_size)
    noisy = with_noise(scene(*size), 0.25, copies=7)
    together = denoiser.denoise(noisy, 0.25)

    alone = np.concatenate([denoiser.denoise(noisy[i : i + 1], 0.25) for i in range(7)])
    order = np.random.default_rng(1).permutation(7)
    permuted = denoiser.denoise(noisy[order], 0.25)
    strangers = with_noise(1 - scene(*size), 0.5, copies=5, seed=2)
    mixed = denoiser.denoise(np.concatenate([strangers, noisy]), 0.25)[5:]

    assert together.tobytes() == alone.tobytes() == mixed.tobytes()
    assert together[order].tobytes() == permuted.tobytes()


@pytest.mark.parametrize(("architecture", "options"), NETWORKS)
def test_the_runner_computes_what_the_module_computes(architecture: str, options: dict[str, Any]) -> None:
    module = network(architecture, options)
    noisy = with_noise(scene(9, 14), 0.25, copies=3)
    with torch.inference_mode():
        expected = module(torch.from_numpy(noisy).permute(0, 3, 1, 2).contiguous(), 0.25)
    denoised = runner(module, batch_size=2).denoise(noisy, 0.25)
    assert denoised.dtype == np.float32
    assert np.allclose(denoised, expected.permute(0, 2, 3, 1).numpy(), atol=1e-5)


@pytest.mark.parametrize(("precision", "tolerance"), [("bfloat16", 2e-2), ("float16", 3e-3)])
def test_half_precision_stays_near_float32(precision: Precision, tolerance: float) -> None:
    module = network("unet", {"widths": [16, 32]})
    noisy = with_noise(scene(16, 16), 0.25, copies=2)
    exact = runner(module).denoise(noisy, 0.25)
    rounded = runner(module, precision=precision).denoise(noisy, 0.25)
    assert rounded.dtype == np.float32
    assert 0 < np.abs(rounded - exact).max() < tolerance


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize(("architecture", "options"), NETWORKS)
@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-4), ("bfloat16", 3e-2)])
def test_cpu_and_cuda_agree(
    architecture: str, options: dict[str, Any], precision: Precision, tolerance: float
) -> None:
    noisy = with_noise(scene(), 0.25, copies=4)
    outputs = [
        runner(network(architecture, options), precision=precision, device=device).denoise(noisy, 0.25)
        for device in ("cpu", "cuda")
    ]
    assert np.abs(outputs[0] - outputs[1]).max() < tolerance


def test_a_users_own_module_is_a_denoiser_that_denoises() -> None:
    denoiser = runner(Blur().eval())
    assert isinstance(denoiser, Denoiser)
    noisy = with_noise(scene(), 0.25)
    assert psnr_db(denoiser.denoise(noisy, 0.25), scene()) > psnr_db(noisy, scene()) + 5


def test_no_picture_in_none_out_and_the_input_is_left_alone() -> None:
    denoiser = runner(Blur().eval())
    noisy = with_noise(scene(), 0.25)
    noisy.flags.writeable = False
    assert denoiser.denoise(noisy[:0], 0.25).shape == (0, 64, 80, 3)
    assert denoiser.denoise(noisy[:, ::2, ::2], 0.25).shape == (1, 32, 40, 3)
    assert np.array_equal(noisy, with_noise(scene(), 0.25))


@pytest.mark.parametrize(
    ("size", "batch_size", "rows"),
    [((8, 8), None, 32), ((32, 32), None, 32), ((64, 64), None, 8), ((224, 224), None, 1), ((224, 224), 5, 5)],
)
def test_the_batch_fits_the_picture_unless_it_was_set(
    size: tuple[int, int], batch_size: int | None, rows: int
) -> None:
    seen: list[int] = []

    def watched(noisy: Tensor) -> Tensor:
        seen.append(len(noisy))
        return noisy

    denoiser = runner(Answering(watched).eval(), batch_size=batch_size)
    denoiser.denoise(np.zeros((6, *size, 3), np.float32), 0.25)
    assert set(seen) == {rows} == {denoiser.rows(*size)}
    assert denoiser.batch_size >= rows


def test_the_fingerprint_tells_weights_and_precision_apart() -> None:
    prints = {
        runner(Blur().eval(), fingerprint=weights, precision=precision).fingerprint
        for weights in ("v1", "v2")
        for precision in ("float32", "bfloat16")
    }
    assert prints == {f"{v},precision={p}" for v in ("v1", "v2") for p in ("float32", "bfloat16")}


def test_the_fingerprint_tells_another_kind_of_device_from_the_cpu_and_not_one_of_a_kind_from_another() -> None:
    """Only what it says of itself: no such device is needed for that."""
    made = runner(Blur().eval(), fingerprint="v1")
    prints = []
    for name in ("cpu", "cuda:0", "cuda:1", "mps"):
        made.device = torch.device(name)
        prints.append(made.fingerprint)
    assert prints == ["v1,precision=float32" + end for end in ("", ",device=cuda", ",device=cuda", ",device=mps")]


def test_auto_takes_what_this_machine_has() -> None:
    denoiser = runner(Blur().eval(), device="auto", precision="auto")
    assert denoiser.device.type == ("cuda" if torch.cuda.is_available() else denoiser.device.type)
    assert denoiser.dtype in {torch.bfloat16, torch.float32}


@pytest.mark.parametrize("part", ["whole", "inner", "later"])
def test_a_module_in_train_mode_is_refused(part: str) -> None:
    module = network("dncnn", {"width": 4, "depth": 4})
    if part == "whole":
        module.train()
    if part == "inner":
        next(inner for inner in module.modules() if isinstance(inner, nn.BatchNorm2d)).train()
    if part == "later":
        denoiser = runner(module)
        module.train()
        with pytest.raises(DenoiserError, match=r"train mode .* call \.eval\(\) first"):
            denoiser.denoise(with_noise(scene(), 0.25), 0.25)
        return
    with pytest.raises(DenoiserError, match=r"train mode .* call \.eval\(\) first"):
        runner(module)


@pytest.mark.parametrize("sigma", [0.0, 0.099, 0.51, -0.25, float("nan")])
def test_a_sigma_outside_of_the_range_is_refused_with_what_covers_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sigma: float
) -> None:
    save_untrained(tmp_path, name="wide", sigma_min=0.01, sigma_max=1.0)
    save_untrained(tmp_path, name="narrow", sigma_min=0.2, sigma_max=0.3)
    monkeypatch.setattr(shipped, "FOLDER", tmp_path)
    covered = "'wide', " if 0.01 <= sigma <= 1 else ""
    with pytest.raises(DenoiserError) as refusal:
        runner(Blur().eval()).check(sigma, 32, 32)
    assert f"mine: trained for sigma 0.1 to 0.5, not for {sigma:g}" in str(refusal.value)
    assert str(refusal.value).endswith(f"for that: {covered}'wavelet:haar'")


def test_the_ends_of_the_range_are_inside_and_small_pictures_are_not() -> None:
    denoiser = runner(Blur().eval(), min_side_px=16)
    denoiser.check(0.1, 16, 16)
    denoiser.check(0.5, 16, 99)
    with pytest.raises(DenoiserError, match="15x99 is too small; sides from 16 pixels"):
        denoiser.check(0.25, 15, 99)
    with pytest.raises(DenoiserError, match="too small"):
        denoiser.denoise(np.zeros((1, 8, 8, 3), np.float32), 0.25)


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((8, 8, 3), "f4"), ((1, 3, 8, 8), "f4"), ((1, 8, 8, 1), "f4"), ((1, 8, 8, 3), "f8"), ((1, 0, 8, 3), "f4")],
)
def test_another_shape_or_dtype_is_refused(shape: tuple[int, ...], dtype: str) -> None:
    noisy: Pictures = np.zeros(shape, dtype)
    with pytest.raises(DenoiserError, match=r"expected float32 \[n, height, width, 3\], got float"):
        runner(Blur().eval()).denoise(noisy, 0.25)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda x: x * float("nan"), r"NaN or infinity in its output at sigma 0\.25"),
        (lambda x: x / 0, "NaN or infinity"),
        (lambda x: x[:, :, 1:], r"\[2, 3, 8, 8\] in, \[2, 3, 7, 8\] out"),
        (lambda x: x @ torch.zeros(5, 5), "the network failed for 2 pictures of 8x8 on cpu"),
        (lambda x: torch.empty(2**50), "out of memory for 2 pictures of 8x8 on cpu; set a batch_size below"),
    ],
)
def test_a_network_that_fails_says_how(answer: Any, said: str) -> None:
    denoiser = runner(Answering(answer).eval(), batch_size=2)
    with pytest.raises(DenoiserError, match=said):
        denoiser.denoise(np.ones((1, 8, 8, 3), np.float32), 0.25)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"device": "gpu"}, "device is 'gpu'; expected auto, cpu, cuda, cuda:N or mps"),
        ({"device": "cuda:99"}, "device is 'cuda:99'"),
        ({"device": "meta"}, "device is 'meta'"),
        ({"precision": "float31"}, "precision is 'float31'; did you mean 'float32'?"),
        ({"batch_size": 0}, "batch_size is 0; expected a whole number >= 1"),
        ({"batch_size": 2.5}, "batch_size is 2.5"),
    ],
)
def test_a_setting_that_this_machine_cannot_follow_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        runner(Blur().eval(), **options)


def test_a_card_becomes_a_denoiser_that_knows_its_limits(tmp_path: Path) -> None:
    path = save_untrained(tmp_path, min_side_px=8)
    denoiser = load_denoiser(path, device="cpu", precision="float32", batch_size=3)
    assert (denoiser.name, denoiser.batch_size) == (str(path), 3)
    assert denoiser.fingerprint.startswith("sha256:")
    denoiser.check(0.5, 8, 8)
    with pytest.raises(DenoiserError, match=r"0\.1 to 0\.5, not for 0\.6"):
        denoiser.check(0.6, 8, 8)
    with pytest.raises(DenoiserError, match="sides from 8 pixels"):
        denoiser.check(0.5, 7, 8)
