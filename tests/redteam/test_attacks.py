"""Every attack breaks a network that nothing defends, and says so of pictures that are whole bytes."""

from __future__ import annotations

import io
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from denoiser_training.networks import from_weights
from smoothing_proxy.denoisers.registry import denoiser
from smoothing_proxy.errors import ConfigError
from smoothing_proxy.redteam.attacks import art_library
from smoothing_proxy.redteam.attacks.registry import ATTACKS
from smoothing_proxy.redteam.attacks.run import ScaleWarning, run_attack
from smoothing_proxy.redteam.defended import defended
from smoothing_proxy.redteam.grid import Norm, distances, rounded, to_pictures
from smoothing_proxy.redteam.networks import Network
from smoothing_proxy.redteam.targets import GradientTarget, Int64, UInt8, heard_scores
from tests.redteam.digit_net import CLASSES, digit_module, digit_target, test_digits

EPS: dict[str, float] = {"linf": 0.15, "l2": 1.0}
QUICKER = {"cw": {"steps": 10, "searches": 3, "learning_rate": 0.05}}

DISTANT = ("boundary", "hopskipjump")
"""Attacks that come near in many queries; here they have few."""


@pytest.mark.parametrize(
    ("name", "norm"),
    [(name, norm) for name, entry in ATTACKS.items() for norm in entry.norms if (name, norm) != ("square", "l2")],
)
def test_every_attack_breaks_an_undefended_network_within_eps_and_in_whole_bytes(name: str, norm: Norm) -> None:
    target, (pictures, labels) = digit_target(), test_digits(8)
    eps = EPS[norm] * (2.5 if name in DISTANT else 1.0)
    result = run_attack(
        name,
        target,
        pictures,
        labels,
        eps=eps,
        norm=norm,
        options=QUICKER.get(name, {}),
        max_queries=250,
        surrogate=target.network,
        seed=3,
    )
    assert result.accuracy <= 0.4, "clean accuracy is 1"
    assert (result.answers[result.success] != labels[result.success]).all()
    levels = result.pictures * 255
    np.testing.assert_allclose(levels, np.rint(levels), atol=1e-4)
    away = result.l2 if norm == "l2" else result.linf
    assert (away[result.success] <= eps * (1 + 1e-5)).all()
    np.testing.assert_allclose(result.l2, distances(result.pictures, pictures, "l2"))
    again = target.ask(np.rint(levels).astype(np.uint8).transpose(0, 2, 3, 1), labels)
    assert (again.answers == result.answers).all()


def test_square_breaks_larger_pictures_in_l2() -> None:
    enlarged = nn.Sequential(nn.AvgPool2d(2), digit_module())
    pictures, labels = test_digits(3)
    target = GradientTarget(Network(enlarged, name="larger", classes=CLASSES))
    large = pictures.repeat(2, axis=2).repeat(2, axis=3)
    result = run_attack("square", target, large, labels, eps=4.0, norm="l2", max_queries=300)
    assert result.accuracy < 0.5
    assert result.l2.max() <= 4.0 * (1 + 1e-5)
    with pytest.raises(ConfigError, match="at least 10 px, not 8"):
        run_attack("square", digit_target(), pictures, labels, eps=1.0, norm="l2")


@pytest.mark.parametrize("name", ["pgd", "square", "hopskipjump"])
def test_the_same_seed_gives_the_same_pictures_and_leaves_global_chance_alone(name: str) -> None:
    pictures, labels = test_digits(2)
    before = np.random.get_state()[1].tolist()  # type: ignore[index]  # noqa: NPY002
    runs = [run_attack(name, digit_target(), pictures, labels, eps=0.5, max_queries=60, seed=5) for _ in range(2)]
    assert (runs[0].pictures == runs[1].pictures).all()
    assert np.random.get_state()[1].tolist() == before  # type: ignore[index]  # noqa: NPY002


@pytest.mark.parametrize(
    ("norm", "eps"), [("linf", 0.007), ("linf", 4 / 255), ("l2", 0.25), ("l2", 1.0), ("l2", 0.01)]
)
def test_a_rounded_picture_is_no_further_than_eps(norm: Norm, eps: float) -> None:
    chance = np.random.default_rng(0)
    clean = to_pictures(chance.integers(0, 256, (4, 16, 16, 3), np.uint8))
    change = chance.normal(size=clean.shape)
    change *= eps / (np.abs(change).max() if norm == "linf" else np.sqrt(np.square(change[0]).sum()))
    made = rounded((clean + change).astype(np.float32), clean, norm, eps)
    assert (distances(made, clean, norm) <= eps * (1 + 1e-5)).all()
    assert made.min() >= 0.0
    assert made.max() <= 1.0
    if norm == "l2" and eps >= 1:
        assert distances(made, clean, norm).min() > 0.9 * eps, "little of eps is given away"


def test_a_whole_number_of_levels_is_kept_in_linf() -> None:
    clean = np.full((1, 3, 2, 2), 100 / 255, np.float32)
    made = rounded(clean + np.float32(4 / 255), clean, "linf", 4 / 255)
    np.testing.assert_allclose(made * 255, 104, atol=1e-4)


def test_descending_ends_at_the_exact_distance_of_a_linear_classifier() -> None:
    """argmax(W x + b) changes from 0 to 1 where (w0 - w1) x + b0 - b1 = 0."""
    chance = torch.Generator().manual_seed(1)
    linear = nn.Linear(3 * 16 * 16, 2)
    linear.weight.data = torch.randn(2, 768, generator=chance) / 20
    linear.bias.data = torch.zeros(2)
    middle = torch.full((1, 768), 128 / 255)
    linear.bias.data[0] = (linear.weight[1] - linear.weight[0]).detach() @ middle[0] + 1.0
    network = Network(nn.Sequential(nn.Flatten(), linear).eval().requires_grad_(False), name="line", classes="ab")
    exact = 1.0 / float((linear.weight[0] - linear.weight[1]).norm())
    pictures = middle.reshape(1, 3, 16, 16).numpy()
    found = run_attack("descend", GradientTarget(network), pictures, np.array([0]), options={"step": 0.002})
    unrounded = distances(found.unrounded, pictures, "l2")[0]
    assert exact <= unrounded <= exact + 0.002 + 1e-5
    assert found.success.all()
    assert exact * 0.999 <= found.l2[0] <= exact * 1.1


def test_descending_goes_to_the_class_that_it_is_told() -> None:
    pictures, labels = test_digits(6)
    result = run_attack("descend", digit_target(), pictures, labels, options={"aim": 4})
    assert (result.answers[labels != 4] == 4).all()
    assert (result.answers[labels == 4] == 5).all()
    with pytest.raises(ConfigError, match="aim = 10, and digits has 10 classes"):
        run_attack("descend", digit_target(), pictures, labels, options={"aim": 10})


def test_expectation_over_the_noise_breaks_a_defence_that_unaware_gradients_break_less() -> None:
    """In steps through the bare network, through one noisy copy, and through the mean over sixteen."""
    pictures, labels = test_digits(48)
    bare, filtering = digit_target().network, denoiser("gaussian:0.6")
    one, many = (defended(bare, filtering, sigma=0.25, copies=copies, seed=1) for copies in (1, 16))
    made = [pictures]
    for name, network in (("pgd", bare), ("pgd", one), ("eot-pgd", many)):
        target = GradientTarget(network)
        result = run_attack(name, target, pictures, labels, eps=0.6, norm="l2", options={"steps": 10})
        made.append(result.pictures)
    judge = defended(bare, filtering, sigma=0.25, copies=200, seed=2)
    answers = [judge.logits(torch.from_numpy(one)).argmax(dim=1).numpy() for one in made]
    clean, unaware, single, mean = [float((one == labels).mean()) for one in answers]
    assert clean >= 0.95
    assert mean <= single < unaware - 0.1
    assert mean < unaware - 0.2


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("pdg", {"eps": 0.1}, "no attack is named 'pdg'; did you mean 'pgd'"),
        ("pgd", {}, "pgd: say how far"),
        ("pgd", {"eps": 0.0}, "expected a number above 0"),
        ("pgd", {"eps": float("nan")}, "expected a number above 0"),
        ("deepfool", {"norm": "linf"}, "deepfool works in l2, not in linf"),
        ("pgd", {"eps": 0.1, "norm": "l3"}, "norm 'l3'"),
        ("pgd", {"eps": 0.1, "options": {"step": 3}}, "attack pgd: step: unknown key; did you mean 'steps'"),
        ("transfer", {"eps": 0.1}, "needs a surrogate"),
        ("square", {"eps": 0.1, "max_queries": 0}, "at least one query"),
    ],
)
def test_what_cannot_be_attacked_so_is_said(name: str, arguments: dict[str, object], message: str) -> None:
    pictures, labels = test_digits(1)
    with pytest.raises(ConfigError, match=message):
        run_attack(name, digit_target(), pictures, labels, **arguments)  # type: ignore[arg-type]


def test_an_eps_on_the_scale_of_bytes_is_doubted() -> None:
    pictures, labels = test_digits(1)
    with pytest.warns(ScaleWarning, match="8 looks like a 0..255 scale.*8 of 255 is 0.03137"):
        run_attack("fgsm", digit_target(), pictures, labels, eps=8)


def test_a_surrogate_has_to_know_the_same_classes() -> None:
    pictures, labels = test_digits(1)
    fewer = Network(digit_module(), name="fewer", classes=CLASSES[:9])
    with pytest.raises(ConfigError, match="fewer: 9 classes, and digits has 10"):
        run_attack("transfer", digit_target(), pictures, labels, eps=0.1, surrogate=fewer)
    others = Network(digit_module(), name="words", classes=tuple("abcdefghij"))
    with pytest.raises(ConfigError, match="words: has no class"):
        run_attack("transfer", digit_target(), pictures, labels, eps=0.1, surrogate=others)


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    art_library._art.cache_clear()
    monkeypatch.setitem(sys.modules, "art.attacks.evasion", None)
    with pytest.raises(ConfigError, match=r"pip install 'smoothing-proxy\[attacks\]'"):
        art_library.evasion("DeepFool")


def test_scores_of_the_label_and_of_the_best_other() -> None:
    heard = heard_scores(np.log([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]]), np.array([0, 1]))
    assert heard.answers.tolist() == [0, 2]
    np.testing.assert_allclose(np.exp(heard.own), [0.7, 0.3])
    np.testing.assert_allclose(np.exp(heard.other), [0.2, 0.6])


def test_a_real_network_falls_to_changes_that_nobody_sees(shared_data: Path) -> None:
    weights = load_file(shared_data / "cifar10-classifiers" / "resnet20.safetensors")
    module = from_weights("cifar-resnet", weights, source="resnet20").eval().requires_grad_(False)
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    network = Network(module, name="resnet20", classes=names)
    pixels, labels = _cifar(shared_data / "cifar10-jpeg" / "test.zip", names)
    pictures = to_pictures(pixels)
    right = network.logits(torch.from_numpy(pictures)).argmax(dim=1).numpy() == labels
    assert right.sum() >= 5
    result = run_attack(
        "pgd", GradientTarget(network), pictures[right], labels[right], eps=2 / 255, options={"steps": 5}
    )
    assert result.accuracy <= 0.2


def _cifar(path: Path, names: list[str]) -> tuple[UInt8, Int64]:
    with zipfile.ZipFile(path) as files:
        chosen = [f"test/{name}/0000.jpg" for name in names]
        pixels = [np.asarray(Image.open(io.BytesIO(files.read(name))).convert("RGB")) for name in chosen]
    return np.stack(pixels), np.arange(len(names))
