from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from smoothing_proxy.errors import ConfigError, ImageError
from smoothing_proxy.images.geometry import ResizeMap, WorkingSize, input_radius, resize_map
from smoothing_proxy.images.noise import GRID_SCALE, pixels_to_grid, to_grid

CASES = [
    (8, 8, "shorter=32"),
    (100, 150, "224x224"),
    (375, 500, "224x224"),
    (375, 500, "shorter=256,crop=224"),
    (500, 333, "shorter=256"),
    (301, 200, "longer=100"),
    (64, 64, "31x65"),
    (97, 3, "10x10"),
]


def resize(height: int, width: int, text: str) -> ResizeMap:
    return resize_map(height, width, WorkingSize.parse(text))


def top_direction(matrix: np.ndarray) -> np.ndarray:
    return np.asarray(np.linalg.svd(matrix, full_matrices=False)[2][0])


def picture(height: int, width: int) -> np.ndarray:
    random = np.random.default_rng(height * 10_000 + width)
    return random.integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    "text", ["original", "224x224", "1x8192", "shorter=256", "shorter=256,crop=224", "longer=640"]
)
def test_a_working_size_reads_back_as_it_was_written(text: str) -> None:
    assert str(WorkingSize.parse(text)) == text


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "expected 'original'"),
        ("orignal", "expected 'original'"),
        ("224", "224x224"),
        ("224 x 224", "height x width"),
        ("shorter=256,crop=", "shorter=256,crop=224"),
        ("crop=224", "shorter=256,crop=224"),
        ("longer=640,crop=224", "longer=640"),
        ("0x224", r"height is not in 1\.\.8192"),
        ("224x8193", r"width is not in 1\.\.8192"),
        ("shorter=999999999", "shorter is not in"),
        ("shorter=224,crop=256", "larger than the shorter side"),
        ("longer=٣", "expected"),
        (f"longer={'9' * 9999}", "expected"),
    ],
)
def test_a_working_size_that_is_none_is_refused_with_what_is_allowed(text: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        WorkingSize.parse(text)


@pytest.mark.parametrize("sides", [{"height": 224}, {"crop": 224}, {"shorter": 256, "longer": 256}, {"longer": 0}])
def test_sides_that_do_not_belong_together_are_refused(sides: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="working size"):
        WorkingSize(**sides)


@pytest.mark.parametrize(
    ("text", "size", "becomes"),
    [
        ("original", (480, 640), (480, 640)),
        ("224x200", (480, 640), (224, 200)),
        ("shorter=256", (480, 640), (256, 341)),
        ("shorter=256", (64, 32), (512, 256)),
        ("shorter=256,crop=224", (480, 640), (224, 224)),
        ("longer=640", (480, 640), (480, 640)),
        ("longer=640", (20, 30), (20, 30)),
        ("longer=320", (480, 640), (240, 320)),
        ("longer=10", (1, 1000), (1, 10)),
    ],
)
def test_what_size_a_picture_becomes(text: str, size: tuple[int, int], becomes: tuple[int, int]) -> None:
    resized = resize(*size, text)
    assert resized.working_size == becomes
    assert resized.input_size == size
    assert resized.apply(picture(*size)).shape == (*becomes, 3)


@pytest.mark.parametrize(("height", "width", "text"), CASES)
def test_it_resizes_as_pillow_does_to_within_pillows_rounding(height: int, width: int, text: str) -> None:
    pixels = picture(height, width)
    size = WorkingSize.parse(text)
    tall, wide = size.before_crop(height, width)
    reference = np.asarray(Image.fromarray(pixels).resize((wide, tall), Image.Resampling.BILINEAR)) / 255
    if size.crop is not None:
        top, left = round((tall - size.crop) / 2), round((wide - size.crop) / 2)
        reference = reference[top : top + size.crop, left : left + size.crop]
    difference = np.abs(resize(height, width, text).apply(pixels) - reference)
    assert difference.max() <= 1.01 / 255
    assert difference.mean() <= 0.4 / 255


@pytest.mark.parametrize(("height", "width", "text"), CASES)
def test_each_output_value_is_a_weighted_mean(height: int, width: int, text: str) -> None:
    resized = resize(height, width, text)
    for operator in (resized.rows.toarray(), resized.cols.toarray()):
        assert operator.min() >= 0
        np.testing.assert_allclose(operator.sum(axis=1), 1, atol=1e-14)
    image = resized.apply(picture(height, width))
    colours = (picture(height, width) / 255).transpose(2, 0, 1)
    expected = (resized.rows.toarray() @ colours @ resized.cols.toarray().T).transpose(1, 2, 0)
    np.testing.assert_allclose(image, expected, atol=1e-13)
    assert image.dtype == np.float64
    assert image.min() >= 0
    assert image.max() <= 1


@pytest.mark.parametrize(("height", "width", "text"), CASES)
def test_the_norm_is_the_product_of_the_largest_singular_values(height: int, width: int, text: str) -> None:
    resized = resize(height, width, text)
    exact = np.linalg.norm(resized.rows.toarray(), 2) * np.linalg.norm(resized.cols.toarray(), 2)
    assert exact <= resized.norm <= exact * (1 + 1e-8)


@pytest.mark.parametrize(("height", "width", "text"), CASES)
def test_no_perturbation_exceeds_the_norm_and_one_reaches_it(height: int, width: int, text: str) -> None:
    resized = resize(height, width, text)
    rows, cols = resized.rows.toarray(), resized.cols.toarray()
    change = np.random.default_rng(1).standard_normal((height, width))
    for _ in range(30):
        grown = rows @ change @ cols.T
        assert np.linalg.norm(grown) <= resized.norm * np.linalg.norm(change)
        change = rows.T @ grown @ cols
        change /= np.linalg.norm(change)
    worst = np.outer(top_direction(rows), top_direction(cols))
    reached = np.linalg.norm(rows @ worst @ cols.T) / np.linalg.norm(worst)
    assert reached == pytest.approx(resized.norm, rel=1e-8)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 90), st.integers(1, 90), st.booleans())
def test_two_pictures_within_the_input_radius_are_within_the_radius_on_the_grid(
    height: int, width: int, out_h: int, out_w: int, flat: bool
) -> None:
    resized = resize(height, width, f"{out_h}x{out_w}")
    one = np.zeros((height, width, 3), np.uint8) if flat else picture(height, width)
    two = 255 - one
    grids = [to_grid(resized.apply(pixels)).astype(np.float64) for pixels in (one, two)]
    apart = float(np.linalg.norm(grids[0] - grids[1])) / GRID_SCALE
    assert input_radius(apart, resized) <= float(np.linalg.norm(one / 255 - two / 255)) * (1 + 1e-12)


@pytest.mark.parametrize("radius", [0.0, 0.123456789, 0.5, 3.0])
def test_without_a_resize_the_radius_is_kept_to_the_last_bit(radius: float) -> None:
    for text in ("original", "40x30", "longer=640", "shorter=30,crop=20"):
        resized = resize(40, 30, text)
        assert input_radius(radius, resized) == radius
        assert resized.norm == 1.0
    assert resize(40, 30, "longer=640").is_identity
    assert not resize(40, 30, "shorter=30,crop=20").is_identity


def test_a_picture_that_is_not_resized_lands_on_the_grid_exactly() -> None:
    pixels = picture(40, 30)
    np.testing.assert_array_equal(to_grid(resize(40, 30, "original").apply(pixels)), pixels_to_grid(pixels))
    cropped = resize(40, 30, "shorter=30,crop=20").apply(pixels)
    np.testing.assert_array_equal(to_grid(cropped), pixels_to_grid(pixels[10:30, 5:25]))


def test_the_input_radius_pays_for_rounding_and_for_the_norm() -> None:
    resized = resize(375, 500, "224x224")
    rounding = math.sqrt(224 * 224 * 3) / GRID_SCALE
    expected = (0.5 - rounding) / resized.norm
    assert expected * (1 - 1e-6) < input_radius(0.5, resized) < expected
    assert input_radius(rounding, resized) == 0.0
    assert input_radius(0.0, resized) == 0.0


def test_enlarging_shrinks_the_radius_and_shrinking_enlarges_it() -> None:
    assert input_radius(0.5, resize(8, 8, "shorter=32")) < 0.5 < input_radius(0.5, resize(500, 500, "224x224"))


def test_a_long_thin_picture_is_refused_rather_than_blown_up() -> None:
    with pytest.raises(ImageError, match="5x30000 px at working size shorter=4096 would become"):
        resize(5, 30_000, "shorter=4096")


def test_a_picture_of_another_size_is_refused() -> None:
    with pytest.raises(ImageError, match=r"\[30, 40, 3\] where \[40, 30, 3\]"):
        resize(40, 30, "original").apply(picture(30, 40))
