"""The published per-picture certificates of Cohen et al., made again.

They were made with n = 100,000. Their printed radii are those of whole numbers of votes at one alpha only: 0.001,
which the paper states, for the log of sigma 0.12, and 0.01 for the others.
"""

from __future__ import annotations

import bisect
import csv
import functools
from pathlib import Path
from typing import NamedTuple

import pytest

from smoothing_proxy.stats.binomial import lower_bound
from smoothing_proxy.stats.certificates import certified_radius
from smoothing_proxy.stats.curves import Judged, abstention_rate, certified_accuracy
from smoothing_proxy.stats.planning import largest_radius

N = 100_000


class Log(NamedTuple):
    sigma: float
    alpha: float
    outcomes: list[Judged]


def read(shared_data: Path, name: str) -> Log:
    path = shared_data / "cohen-logs" / f"{name}.tsv"
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    outcomes = [Judged(row["correct"] == "1", float(row["radius"]), row["predict"] == "-1") for row in rows]
    sigma = float(name.rsplit("_", 1)[1])
    return Log(sigma, 0.001 if sigma == 0.12 else 0.01, outcomes)


def printed(radius: float) -> float:
    """With three significant digits, as in the logs."""
    return float(f"{radius:.3g}")


LOGS = [
    "cifar10_resnet110_sigma_0.12",
    "cifar10_resnet110_sigma_0.25",
    "cifar10_resnet110_sigma_0.50",
    "cifar10_resnet110_sigma_1.00",
    "imagenet_resnet50_sigma_0.25",
    "imagenet_resnet50_sigma_0.50",
    "imagenet_resnet50_sigma_1.00",
]


@pytest.mark.parametrize("name", LOGS)
def test_the_largest_published_radius_is_that_of_unanimous_votes(shared_data: Path, name: str) -> None:
    sigma, alpha, outcomes = read(shared_data, name)
    saturated = printed(largest_radius(N, alpha, sigma))
    radii = [outcome.radius for outcome in outcomes]
    # No picture of that log was answered unanimously.
    assert max(radii) == (3.56 if name == "cifar10_resnet110_sigma_1.00" else saturated)
    assert max(radii) <= saturated


@pytest.mark.parametrize("name", LOGS)
def test_every_published_radius_is_that_of_a_whole_number_of_votes(shared_data: Path, name: str) -> None:
    sigma, alpha, outcomes = read(shared_data, name)
    assert unreachable(outcomes, sigma, alpha) == []
    assert unreachable(outcomes, sigma, 2 * alpha) != []


def unreachable(outcomes: list[Judged], sigma: float, alpha: float) -> list[float]:
    """The radii that no number of votes of N gives, as printed."""

    @functools.cache
    def radius(votes: int) -> float:
        return certified_radius(lower_bound(votes, N, alpha), sigma)

    def reachable(published: float) -> bool:
        above = bisect.bisect_left(range(N), published, lo=N // 2, key=radius)
        return published in {printed(radius(above - 1)), printed(radius(above))}

    return [r for r in sorted({o.radius for o in outcomes if not o.abstained}) if not reachable(r)]


TABLES = [
    ("cifar10_resnet110_sigma_0.12", (0.25, 0.5, 0.75, 1.0, 1.25, 1.5), (0.59, 0, 0, 0, 0, 0)),
    ("cifar10_resnet110_sigma_0.25", (0.25, 0.5, 0.75, 1.0, 1.25, 1.5), (0.60, 0.43, 0.27, 0, 0, 0)),
    ("cifar10_resnet110_sigma_0.50", (0.25, 0.5, 0.75, 1.0, 1.25, 1.5), (0.55, 0.41, 0.32, 0.23, 0.15, 0.09)),
    ("cifar10_resnet110_sigma_1.00", (0.25, 0.5, 0.75, 1.0, 1.25, 1.5), (0.39, 0.34, 0.28, 0.22, 0.17, 0.14)),
    ("imagenet_resnet50_sigma_0.25", (0.5, 1.0, 1.5, 2.0, 2.5, 3.0), (0.49, 0, 0, 0, 0, 0)),
    ("imagenet_resnet50_sigma_0.50", (0.5, 1.0, 1.5, 2.0, 2.5, 3.0), (0.46, 0.37, 0.29, 0, 0, 0)),
    ("imagenet_resnet50_sigma_1.00", (0.5, 1.0, 1.5, 2.0, 2.5, 3.0), (0.38, 0.33, 0.26, 0.19, 0.15, 0.12)),
]
"""The authors' tables of certified accuracy: locuslab/smoothing, analysis/markdown/vary_noise_*."""


@pytest.mark.parametrize(("name", "radii", "published"), TABLES)
def test_certified_accuracy_is_the_published_table(
    shared_data: Path, name: str, radii: tuple[float, ...], published: tuple[float, ...]
) -> None:
    curve = certified_accuracy(read(shared_data, name).outcomes, radii)
    assert [point.accuracy.value for point in curve] == pytest.approx(published, abs=0.005 + 1e-9)


def test_abstentions_are_the_rows_without_a_prediction(shared_data: Path) -> None:
    share = abstention_rate(read(shared_data, "cifar10_resnet110_sigma_0.25").outcomes)
    assert (share.count, share.total) == (43, 500)
