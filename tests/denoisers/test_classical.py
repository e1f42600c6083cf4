from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pywt
from PIL import Image
from scipy import ndimage

from smoothing_proxy.denoisers.base import Denoiser
from smoothing_proxy.denoisers.batches import Pictures
from smoothing_proxy.denoisers.classical import Gaussian, Median, Wavelet
from smoothing_proxy.denoisers.identity import Identity
from smoothing_proxy.errors import ConfigError, DenoiserError
from tests.denoisers.noisy_pictures import psnr_db, scene, with_noise

EVERY: list[Denoiser] = [
    Identity(),
    Wavelet(),
    Wavelet("db2", level=2, mode="hard", rule="visu"),
    Wavelet("sym4", threshold=0.3, color="rgb"),
    Gaussian(1.5),
    Median(3),
    Median(5),
    Median(7),
]


def photograph(shared_data: Path) -> Pictures:
    """[1, 160, 160, 3], one real picture."""
    file = sorted((shared_data / "imagenet-sample").glob("*.JPEG"))[0]
    pixels = np.asarray(Image.open(file).convert("RGB").resize((160, 160)), np.float32)
    return pixels[None] / np.float32(255)


@pytest.mark.parametrize("denoiser", EVERY, ids=lambda d: d.fingerprint)
@pytest.mark.parametrize("size", [(16, 16), (33, 47)])
def test_a_picture_has_the_same_bits_alone_permuted_and_in_a_batch(
    denoiser: Denoiser, size: tuple[int, int]
) -> None:
    noisy = with_noise(scene(*size), 0.25, copies=37)
    together = denoiser.denoise(noisy, 0.25)
    alone = np.concatenate([denoiser.denoise(noisy[i : i + 1], 0.25) for i in range(37)])
    order = np.random.default_rng(1).permutation(37)

    assert together.shape == noisy.shape
    assert together.dtype == np.float32
    assert together.tobytes() == alone.tobytes()
    assert together[order].tobytes() == denoiser.denoise(noisy[order], 0.25).tobytes()


@pytest.mark.parametrize(
    ("denoiser", "sigma", "gain_db"),
    [
        (Wavelet(), 0.12, 6),
        (Wavelet(), 0.25, 8),
        (Wavelet("db4"), 0.25, 8),
        (Wavelet(rule="visu"), 0.25, 6),
        (Wavelet(mode="hard", rule="visu"), 0.25, 6),
        (Gaussian(1.5), 0.25, 7),
        (Median(3), 0.25, 5),
        (Median(5), 0.25, 7),
        (Median(7), 0.25, 7),
    ],
    ids=str,
)
@pytest.mark.parametrize("picture", ["drawn", "real"])
def test_denoising_brings_the_picture_nearer(
    denoiser: Denoiser, sigma: float, gain_db: float, picture: str, request: pytest.FixtureRequest
) -> None:
    clean = scene(160, 160) if picture == "drawn" else photograph(request.getfixturevalue("shared_data"))
    noisy = with_noise(clean, sigma)
    assert psnr_db(denoiser.denoise(noisy, sigma), clean) > psnr_db(noisy, clean) + gain_db


def test_the_opponent_colours_beat_rgb_on_a_photograph(shared_data: Path) -> None:
    clean = photograph(shared_data)
    noisy = with_noise(clean, 0.25)
    figures = [psnr_db(Wavelet(color=color).denoise(noisy, 0.25), clean) for color in ("opponent", "rgb")]
    assert figures[0] > figures[1] + 0.5


def shrunk_plane(
    plane: Any, wavelet: str, level: int, sigma: float, mode: str, rule: str, threshold: float
) -> Any:
    """One channel by PyWavelets' own threshold function, a subband at a time, in float64."""
    coarse, *details = pywt.wavedec2(plane, wavelet, level=level)
    kept: list[Any] = [coarse]
    for bands in details:
        shrunk = []
        for band in bands:
            variance = float(np.var(band) + np.mean(band) ** 2) - sigma**2
            bound = {
                "bayes": sigma**2 / math.sqrt(variance) if variance > 0 else 2 * float(np.abs(band).max()),
                "visu": sigma * math.sqrt(2 * math.log(plane.size)),
                "fixed": threshold,
            }[rule]
            shrunk.append(pywt.threshold(band, bound, mode))
        kept.append(tuple(shrunk))
    height, width = plane.shape
    return pywt.waverec2(kept, wavelet)[:height, :width]


@pytest.mark.parametrize("wavelet", ["haar", "db2", "db3", "sym4"])
@pytest.mark.parametrize("mode", ["soft", "hard"])
@pytest.mark.parametrize(("rule", "threshold"), [("bayes", 0.0), ("visu", 0.0), ("fixed", 0.2)])
@pytest.mark.parametrize("size", [(40, 40), (37, 51)])
def test_the_wavelet_agrees_with_a_plain_calculation_channel_by_channel(
    wavelet: str, mode: str, rule: str, threshold: float, size: tuple[int, int]
) -> None:
    noisy = with_noise(scene(*size), 0.2, copies=2)
    chosen: dict[str, Any] = {"threshold": threshold} if rule == "fixed" else {"rule": rule}
    denoised = Wavelet(wavelet, level=2, mode=mode, color="rgb", **chosen).denoise(noisy, 0.2)
    for n, channel in np.ndindex(2, 3):
        plane = noisy[n, :, :, channel].astype(np.float64)
        expected = shrunk_plane(plane, wavelet, 2, 0.2, mode, rule, threshold)
        assert np.allclose(denoised[n, :, :, channel], expected, atol=1e-5)


def test_the_opponent_planes_are_grey_and_two_colour_differences() -> None:
    grey = np.repeat(with_noise(scene(16, 16), 0.2)[..., :1], 3, axis=3)
    opponent, rgb = (Wavelet(threshold=t, color=c) for t, c in ((0.3 * math.sqrt(3), "opponent"), (0.3, "rgb")))
    assert np.allclose(opponent.denoise(grey, 0.2), rgb.denoise(grey, 0.2), atol=1e-5)


@pytest.mark.parametrize("color", ["opponent", "rgb"])
@pytest.mark.parametrize("size", [(8, 8), (37, 51)])
def test_without_noise_the_wavelet_changes_nothing(color: str, size: tuple[int, int]) -> None:
    for clean in (scene(*size), np.zeros((1, *size, 3), np.float32)):
        assert np.allclose(Wavelet("db2", color=color).denoise(clean, 0.0), clean, atol=1e-6)


@pytest.mark.parametrize("window", [3, 5, 7])
def test_the_median_is_scipys_at_every_window(window: int) -> None:
    noisy = with_noise(scene(20, 23), 0.25)
    expected = ndimage.median_filter(noisy, size=(1, window, window, 1), mode="nearest")
    assert np.array_equal(Median(window).denoise(noisy, 0.25), expected)


@pytest.mark.parametrize("pixels", [0.5, 1.5, 3])
def test_the_gaussian_is_scipys_up_to_where_the_kernel_is_cut(pixels: float) -> None:
    noisy = with_noise(scene(40, 43), 0.25)
    expected = ndimage.gaussian_filter(noisy, sigma=(0, pixels, pixels, 0), mode="mirror", truncate=4.0)
    assert np.allclose(Gaussian(pixels).denoise(noisy, 0.25), expected, atol=2e-3)


@pytest.mark.parametrize("denoiser", EVERY, ids=lambda d: d.fingerprint)
@pytest.mark.parametrize("sigma", [-0.1, math.nan, math.inf])
def test_a_sigma_that_is_no_noise_level_is_refused(denoiser: Denoiser, sigma: float) -> None:
    denoiser.check(0.0, 32, 32)
    denoiser.check(3.0, 32, 32)
    with pytest.raises(DenoiserError, match="expected a standard deviation >= 0"):
        denoiser.check(sigma, 32, 32)


@pytest.mark.parametrize("denoiser", EVERY, ids=lambda d: d.fingerprint)
def test_another_shape_or_dtype_is_refused(denoiser: Denoiser) -> None:
    for noisy in (np.zeros((1, 32, 32, 3)), np.zeros((32, 32, 3), np.float32), np.zeros((1, 3, 32, 32), "f4")):
        with pytest.raises(DenoiserError, match=r"expected float32 \[n, height, width, 3\]"):
            denoiser.denoise(noisy, 0.25)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("denoiser", "size", "said"),
    [
        (Wavelet(level=4), (8, 99), r"wavelet:haar,level=4: a picture of 8x99 allows at most level=3"),
        (Wavelet(), (1, 9), "too small for this wavelet"),
        (Wavelet("db4"), (13, 13), "too small for this wavelet; 'wavelet:haar' takes less"),
    ],
)
def test_a_picture_too_small_for_the_wavelet_is_refused(
    denoiser: Wavelet, size: tuple[int, int], said: str
) -> None:
    with pytest.raises(DenoiserError, match=said):
        denoiser.check(0.25, *size)
    with pytest.raises(DenoiserError, match=said):
        denoiser.denoise(np.zeros((1, *size, 3), np.float32), 0.25)


@pytest.mark.parametrize("size", [(1, 1), (2, 5)])
def test_the_filters_take_pictures_smaller_than_themselves(size: tuple[int, int]) -> None:
    flat = np.full((1, *size, 3), 0.5, np.float32)
    for denoiser in (Gaussian(5), Median(5), Median(9)):
        assert np.allclose(denoiser.denoise(flat, 0.25), flat, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "value", "said"),
    [
        (Wavelet, {"wavelet": "har"}, "'har' is unknown; did you mean 'haar'?"),
        (Wavelet, {"wavelet": "bior2.2"}, "'bior2.2' is not orthogonal"),
        (Wavelet, {"wavelet": ["haar"]}, "is no wavelet"),
        (Wavelet, {"level": 0}, "level is 0; expected a whole number >= 1"),
        (Wavelet, {"level": True}, "level is True"),
        (Wavelet, {"mode": "sof"}, "mode is 'sof'; did you mean 'soft'?"),
        (Wavelet, {"rule": "base"}, "rule is 'base'; did you mean 'bayes'?"),
        (Wavelet, {"color": "rgbb"}, "color is 'rgbb'; did you mean 'rgb'?"),
        (Wavelet, {"threshold": -1}, "threshold is -1; expected a number >= 0"),
        (Wavelet, {"threshold": math.nan}, "threshold is nan"),
        (Wavelet, {"threshold": 0.1, "rule": "visu"}, "a rule or a threshold, not both"),
        (Gaussian, {"pixels": 0}, "0 is no standard deviation in pixels; expected 'gaussian:1.5'"),
        (Gaussian, {"pixels": math.inf}, "inf is no standard deviation"),
        (Gaussian, {"pixels": "wide"}, "'wide' is no standard deviation"),
        (Median, {"window": 4}, "4 is no window; expected 'median:3'"),
        (Median, {"window": 1}, "1 is no window"),
        (Median, {"window": 3.0}, "3.0 is no window"),
        (Median, {"window": 101}, "101 is no window"),
    ],
)
def test_a_value_out_of_range_is_refused(make: Any, value: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        make(**value)
    assert said in str(refusal.value)


def test_names_are_short_and_fingerprints_complete() -> None:
    plain, changed = Wavelet(), Wavelet("db2", level=2, threshold=0.1)
    assert (plain.name, changed.name) == ("wavelet:haar", "wavelet:db2,level=2,threshold=0.1")
    assert plain.fingerprint == "wavelet:haar,mode=soft,rule=bayes,color=opponent"
    assert changed.fingerprint == "wavelet:db2,level=2,mode=soft,threshold=0.1,color=opponent"
    assert Gaussian(1.50000001).name == Gaussian(1.5).name
    assert Gaussian(1.50000001).fingerprint != Gaussian(1.5).fingerprint
    assert len({denoiser.fingerprint for denoiser in EVERY}) == len(EVERY)
