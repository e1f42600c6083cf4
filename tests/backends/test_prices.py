import pytest

from smoothing_proxy.backends.prices import price_of
from smoothing_proxy.errors import ConfigError


def test_the_users_price_goes_before_the_list_price() -> None:
    assert price_of("aws-rekognition", 0.8, "2026-01-01").usd == pytest.approx(0.0008)
    listed = price_of("aws-rekognition", None)
    assert listed.usd == pytest.approx(0.001)
    assert listed.as_of


@pytest.mark.parametrize(
    ("backend", "usd"), [("openai-vision", None), ("clarifai", -1.0), ("clarifai", float("nan"))]
)
def test_a_price_that_nobody_knows_is_refused(backend: str, usd: float | None) -> None:
    with pytest.raises(ConfigError, match="price_usd_per_1000"):
        price_of(backend, usd)
