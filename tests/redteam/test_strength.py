"""Nothing between an attack and its verdict makes it weaker than it is: rounding, chance, bookkeeping."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from smoothing_proxy.backends.scripted import ScriptedBackend
from smoothing_proxy.config import NamedOptions, ProxyConfig
from smoothing_proxy.denoisers.registry import denoiser
from smoothing_proxy.errors import BackendUnavailableError, ConfigError
from smoothing_proxy.redteam.attacks.run import ScaleWarning, check_eps, run_attack
from smoothing_proxy.redteam.compare import _Judged, _Side, _State
from smoothing_proxy.redteam.comparison import Question
from smoothing_proxy.redteam.grid import Norm, distances, rounded, to_pixels
from smoothing_proxy.redteam.judge import Judge
from smoothing_proxy.redteam.networks import Network
from smoothing_proxy.redteam.oracle import Oracle
from smoothing_proxy.redteam.queries import Queries
from smoothing_proxy.redteam.sides import ConfiguredSides
from smoothing_proxy.redteam.targets import GradientTarget
from smoothing_proxy.smoothing.base_classifier import BaseClassifier
from smoothing_proxy.smoothing.settings import Smoothing
from tests.redteam.digit_net import CLASSES, digit_module, digit_target, save_digit_program, test_digits

SMOOTHING = Smoothing(sigma=0.25, n0=10, n=100, method="fixed")


@pytest.mark.parametrize("eps", [0.25, None])
def test_a_change_of_a_photograph_by_parts_of_a_level_keeps_length_and_direction(
    eps: float | None,
) -> None:
    chance = np.random.default_rng(0)
    clean = chance.integers(0, 256, (1, 3, 224, 224)).astype(np.float32) / np.float32(255)
    change = chance.normal(size=clean.shape)
    wanted = np.clip(clean + 0.25 * change / np.linalg.norm(change), 0, 1).astype(np.float32)
    made = rounded(wanted, clean, "l2", eps)
    length = float(np.linalg.norm(wanted.astype(np.float64) - clean))
    assert 0.99 * length <= distances(made, clean, "l2")[0] <= length * (1 + 1e-4)
    assert made.min() >= 0
    assert made.max() <= 1
    along = float(((made - clean).astype(np.float64) * (wanted - clean)).sum()) / length**2
    assert along > 0.35, "each pixel rounded by itself leaves less than 0.05"


def test_moves_that_are_whole_stay_as_they_are() -> None:
    clean = np.full((1, 3, 4, 4), 100 / 255, np.float32)
    moved = clean.copy()
    moved[0, :, 1, 2] += np.float32(7 / 255)
    np.testing.assert_allclose(rounded(moved, clean, "l2", None), moved, atol=1e-6)
    assert (rounded(clean, clean, "l2", 0.25) == clean).all()


class _Fickle(nn.Module):
    """Two classes; the first one wins but for one look in ten, whatever the picture is."""

    def __init__(self) -> None:
        super().__init__()
        self.stream = torch.Generator().manual_seed(0)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        lost = torch.rand(len(pictures), generator=self.stream) < 0.1
        shares = torch.where(lost, 0.4, 0.9) + 0 * pictures.sum(dim=(1, 2, 3))
        return torch.stack([shares, 1 - shares], dim=1).log()


@pytest.mark.parametrize("name", ["square", "hopskipjump"])
def test_an_answer_that_changed_by_chance_does_not_end_a_black_box_attack(name: str) -> None:
    pictures = test_digits(2)[0]
    target = GradientTarget(Network(_Fickle().eval(), name="fickle", classes="ab", noisy=True))
    found = run_attack(name, target, pictures, np.zeros(2, np.int64), eps=0.1, norm="linf", max_queries=150)
    assert not found.success.any(), "no picture changes this answer"
    assert found.queries.max() <= 150
    if name == "square":
        assert found.queries.min() > 60
        assert found.linf.min() > 0.05, "what came nearest is kept"


def test_pixels_that_are_no_numbers_are_left_as_they_were_and_within_eps() -> None:
    pictures, labels = test_digits(1)
    oracle = Oracle(digit_target(), pictures[0], int(labels[0]), norm="l2", eps=0.3, max_queries=4, subject=0)
    broken = np.clip(pictures + np.float32(0.1), 0, 1)
    broken[0, 1] = np.nan
    oracle.scores(broken)
    assert distances(oracle.best[None], pictures, "l2")[0] <= 0.3 * (1 + 1e-5)
    assert (oracle.best[1] == pictures[0, 1]).all()


def _sturdy() -> GradientTarget:
    linear = nn.Linear(192, 3)
    linear.weight.data = torch.randn(3, 192, generator=torch.Generator().manual_seed(0)) / 10
    linear.bias.data = torch.tensor([50.0, 0.0, 0.0])
    return GradientTarget(Network(nn.Sequential(nn.Flatten(), linear).eval(), name="sturdy", classes="abc"))


def test_of_a_picture_that_stands_up_to_all_of_autoattack_the_best_attempt_is_kept() -> None:
    pictures, target = test_digits(2)[0], _sturdy()
    labels = np.zeros(2, np.int64)
    found = run_attack("autoattack", target, pictures, labels, eps=0.5, norm="l2", options={"square_queries": 0})
    assert not found.success.any()
    before, after = (target.ask(to_pixels(one), labels) for one in (pictures, found.pictures))
    assert ((after.own - after.other) < (before.own - before.other) - 0.1).all()


def test_deepfool_does_not_put_right_what_was_wrong_before() -> None:
    pictures, labels = test_digits(6)
    wrong = (labels + 1) % 10
    found = run_attack("deepfool", digit_target(), pictures, wrong)
    assert found.success.all()
    assert (found.l2 == 0).all()


@pytest.mark.parametrize(("norm", "eps"), [("l2", 0.05), ("linf", 0.01)])
def test_what_is_kept_from_before_rounding_is_within_eps_too(norm: Norm, eps: float) -> None:
    pictures, labels = test_digits(4)
    found = run_attack("autoattack", digit_target(), pictures, labels, eps=eps, norm=norm)
    assert (distances(found.unrounded, pictures, norm) <= eps * (1 + 1e-5)).all()


def test_a_network_with_other_outputs_than_classes_is_refused() -> None:
    pictures, labels = test_digits(1)
    network = Network(digit_module(), name="digits", classes=CLASSES[:9])
    with pytest.raises(ConfigError, match=r"digits: 9 classes are named, and its outputs are \[10\]"):
        run_attack("fgsm", GradientTarget(network), pictures, np.minimum(labels, 8), eps=0.1)


def test_an_l2_eps_on_the_scale_of_bytes_is_doubted() -> None:
    with pytest.warns(ScaleWarning, match="64 looks like a 0..255 scale.*64 of 255 is 0.251 here"):
        check_eps("l2", 64)
    check_eps("l2", 2.0)


def test_a_surrogate_of_the_same_file_with_other_options_is_another_network(tmp_path: Path) -> None:
    name = save_digit_program(tmp_path / "digits.pt2")
    config = ProxyConfig(
        smoothing=SMOOTHING, backend=NamedOptions(name=name), denoiser=NamedOptions(name="identity")
    )
    classifier = BaseClassifier(ScriptedBackend("0"), denoiser("identity"), sigma=0.25)
    surrogate = NamedOptions.model_validate({"name": name, "scale": 0.5})
    with (
        Queries() as queries,
        ConfiguredSides(
            config, classifier, CLASSES, draws=1, copies=1, seed=0, queries=queries, surrogate=surrogate
        ) as sides,
    ):
        target, other = sides.target("gradients", hardened=False), sides.surrogate(hardened=False)
    assert isinstance(target, GradientTarget)
    assert other is not None
    pictures = torch.from_numpy(test_digits(2)[0])
    torch.testing.assert_close(other(pictures), target.network(pictures / 2))


def test_a_query_of_the_raw_classifier_that_failed_is_no_success_of_an_attack() -> None:
    failures = {1: BackendUnavailableError("away", backend="scripted")}
    classifier = BaseClassifier(ScriptedBackend("a", failures=failures), denoiser("identity"), sigma=0.25)
    pixels = list(to_pixels(test_digits(2)[0]))
    with (
        Queries() as queries,
        Judge(classifier, predicting=SMOOTHING, certifying=SMOOTHING, queries=queries) as judge,
    ):
        with pytest.raises(BackendUnavailableError):
            judge.raw(pixels, np.arange(2))
        assert judge.raw(pixels, np.arange(2)) == ["a", "a"]


def test_a_picture_that_was_wrong_before_an_attack_does_not_stand_under_it() -> None:
    yes, no = np.array([True]), np.array([False])
    side = _Side([], np.array([0.1]), _Judged(yes, [], no), 1.0, 1.0)
    state = _State(
        Question(attacks=("pgd",), eps=(0.5,), norm="linf"),
        album=_Nothing(),  # type: ignore[arg-type]
        sides=None,  # type: ignore[arg-type]
        judge=None,  # type: ignore[arg-type]
        progress=lambda stage, total: lambda done: None,
        certificates=[],
        raw=no,
        hardened=yes,
    )
    row, _, _ = state._row("pgd", 0.5, side, side)
    assert (row.raw, row.hardened) == (0.0, 1.0)


class _Nothing:
    names: tuple[str, ...] = ()
