"""Raw and hardened side by side: budgets, the ledger, and proofs that no attack may break."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from smoothing_proxy.backends.registry import backend
from smoothing_proxy.backends.scripted import ScriptedBackend
from smoothing_proxy.config import Budget, NamedOptions, ProxyConfig
from smoothing_proxy.denoisers.registry import denoiser
from smoothing_proxy.errors import BudgetExceededError, ConfigError
from smoothing_proxy.redteam.asked import AskedTarget, HardenedTarget
from smoothing_proxy.redteam.attacks.run import run_attack
from smoothing_proxy.redteam.compare import compare, most_queries
from smoothing_proxy.redteam.comparison import Album, Question
from smoothing_proxy.redteam.grid import to_pixels
from smoothing_proxy.redteam.judge import Judge
from smoothing_proxy.redteam.oracle import Oracle, Spent
from smoothing_proxy.redteam.paying import check_affordable, open_ledger
from smoothing_proxy.redteam.proof import covers, standing
from smoothing_proxy.redteam.queries import Queries
from smoothing_proxy.redteam.sides import ConfiguredSides
from smoothing_proxy.redteam.targets import OTHER, Target
from smoothing_proxy.smoothing.base_classifier import BaseClassifier
from smoothing_proxy.smoothing.settings import Smoothing
from smoothing_proxy.types import Certificate, Votes
from tests.redteam.digit_net import CLASSES, digit_module, digit_target, save_digit_program, test_digits

SIGMA = 0.25
SMOOTHING = Smoothing(sigma=SIGMA, n0=10, n=200, max_queries=300, target_radii=(0.1, 0.25))
FILTER = "gaussian:0.6"


@pytest.fixture
def classifier() -> BaseClassifier:
    opened = backend(digit_module(), size=8)
    return BaseClassifier(opened, denoiser(FILTER), sigma=SIGMA)


@pytest.fixture
def queries(classifier: BaseClassifier) -> Iterator[Queries]:
    with Queries() as asking:
        yield asking
        asking.run(classifier.backend.aclose)


def _album(count: int) -> Album:
    pictures, labels = test_digits(count)
    names = [f"{number}.png" for number in range(count)]
    return Album(names, list(to_pixels(pictures)), [CLASSES[label] for label in labels])


def _no_bars(stage: str, total: int) -> Callable[[int], None]:
    return lambda done: None


def test_an_asked_classifier_gives_its_labels_and_scores(classifier: BaseClassifier, queries: Queries) -> None:
    pictures, labels = test_digits(5)
    target = AskedTarget(classifier, CLASSES, queries=queries)
    heard = target.ask(to_pixels(pictures), labels)
    known = digit_target().ask(to_pixels(pictures), labels)
    assert (heard.answers == known.answers).all()
    np.testing.assert_allclose(heard.own, known.own, atol=1e-4)
    np.testing.assert_allclose(heard.other, known.other, atol=1e-4)
    assert target.cost.queries == 5
    few = AskedTarget(classifier, ("no", "digit"), queries=queries)
    assert few.ask(to_pixels(pictures), np.zeros(5, np.int64)).answers.tolist() == [OTHER] * 5


def test_the_hardened_classifier_answers_what_most_copies_vote_for(
    classifier: BaseClassifier, queries: Queries
) -> None:
    pictures, labels = test_digits(4)
    target = HardenedTarget(classifier, CLASSES, draws=40, queries=queries)
    heard = target.ask(to_pixels(pictures), labels)
    assert (heard.answers == labels).sum() >= 3
    assert (np.exp(heard.own) + np.exp(heard.other) <= 1 + 1e-9).all()
    assert target.cost.queries == 4 * 40


@pytest.mark.parametrize("name", ["square", "hopskipjump", "boundary"])
def test_black_box_attacks_break_a_classifier_that_can_only_be_asked(
    name: str, classifier: BaseClassifier, queries: Queries
) -> None:
    pictures, labels = test_digits(4)
    target = AskedTarget(classifier, CLASSES, queries=queries)
    eps = {"square": 0.15, "hopskipjump": 2.5, "boundary": 2.5}[name]
    result = run_attack(name, target, pictures, labels, eps=eps, max_queries=150)
    assert result.accuracy <= 0.5
    assert result.queries.max() <= 150
    assert target.cost.queries == result.queries.sum(), "nothing is asked beside the books"


def test_a_gradient_attack_on_what_has_none_names_those_that_work(
    classifier: BaseClassifier, queries: Queries
) -> None:
    pictures, labels = test_digits(1)
    target = AskedTarget(classifier, CLASSES, queries=queries)
    with pytest.raises(ConfigError, match="square, hopskipjump, boundary, and transfer from a surrogate"):
        run_attack("pgd", target, pictures, labels, eps=0.1)


def test_a_budget_of_queries_ends_an_attack_with_the_best_so_far_and_asks_nothing_twice() -> None:
    pictures, labels = test_digits(2)
    target = digit_target()
    oracle = Oracle(target, pictures[0], int(labels[0]), norm="linf", eps=0.2, max_queries=3, subject=0)
    steps = [np.clip(pictures[:1] + shift, 0, 1).astype(np.float32) for shift in (0.0, 0.1, 0.2, -0.2)]
    for picture in (*steps[:3], *steps[:3]):
        oracle.scores(picture)
    assert oracle.queries == 3
    before = target.network.seen
    oracle.decisions(steps[0])
    assert target.network.seen == before
    with pytest.raises(Spent):
        oracle.scores(steps[3])
    assert oracle.queries == 3
    assert any((oracle.best == step[0]).all() or np.allclose(oracle.best, step[0], atol=1 / 255) for step in steps)


def test_a_vendor_is_charged_through_the_ledger_and_no_further_than_the_budget(tmp_path: Path) -> None:
    vendor = ScriptedBackend("cat", price_usd=0.01)
    classifier = BaseClassifier(vendor, denoiser("identity"), sigma=SIGMA)
    config = _config("scripted:cat", Budget(usd=0.25))
    pictures, _ = test_digits(2)
    with (
        open_ledger(config, classifier, tmp_path / "out", ["a.png", "b.png"], {}) as ledger,
        Queries(ledger.draws) as queries,
        AskedTarget(classifier, ("cat", "dog"), queries=queries) as target,
    ):
        result = run_attack("square", target, pictures[:1], np.array([0]), eps=0.1, max_queries=20)
        assert not result.success.any()
        spent = int(result.queries.sum())
        assert 10 <= spent <= 20
        assert ledger.account.spent == ledger.totals.cost().queries == spent
        with pytest.raises(BudgetExceededError):
            run_attack("square", target, pictures[1:], np.array([0]), eps=0.1, subjects=np.array([1]))
        assert ledger.account.spent == 25
    with pytest.raises(ConfigError, match="holds the ledger of an earlier run"):
        open_ledger(config, classifier, tmp_path / "out", [], {})


def test_an_attack_above_the_money_budget_is_refused_before_anything_is_sent() -> None:
    classifier = BaseClassifier(ScriptedBackend("cat", price_usd=0.01), denoiser("identity"), sigma=SIGMA)
    question = Question(attacks=("square", "transfer", "pgd"), eps=(0.1, 0.2), max_queries=50)
    most = most_queries(question, SMOOTHING, SMOOTHING, pictures=2, draws=8)
    assert most == 2 * (2 + 900 + 300 + 2 * (50 * 9 + 901) + 2 * (9 + 901) + 2 * 901)
    with pytest.raises(ConfigError, match=r"up to 15,052 queries \(\$150.52\), and the budget allows 100"):
        check_affordable(_config("scripted:cat", Budget(usd=1.0)), classifier, most)
    check_affordable(_config("scripted:cat", Budget(usd=151.0)), classifier, most)


def test_the_largest_number_of_queries_holds_where_a_doubtful_proof_is_asked_about_again() -> None:
    """A vendor that changes its mind right after it was certified: the worst case for the number of queries."""
    smoothing = Smoothing(sigma=SIGMA, n0=10, n=50, method="fixed")
    vendor = ScriptedBackend(["a"] * 60 + ["b"] * 1000)
    classifier = BaseClassifier(vendor, denoiser("identity"), sigma=SIGMA)
    album = Album(["0.png"], _album(1).pixels, ["a"])
    question = Question(attacks=(), eps=())
    with (
        Queries() as queries,
        Judge(classifier, predicting=smoothing, certifying=smoothing, queries=queries) as judge,
    ):
        found = compare(question, album, _Unasked(), judge, _no_bars)
    assert len(found.broken) == 1
    most = most_queries(question, smoothing, smoothing, pictures=1, draws=1)
    assert vendor.asked == most - 1, "all but the one that finds out the labels"


class _Unasked:
    """Sides that no attack looks at."""

    def target(self, needs: str, hardened: bool) -> Target:
        raise AssertionError(needs)

    def surrogate(self, hardened: bool) -> None:
        raise AssertionError(hardened)


def test_no_l2_attack_makes_the_hardened_classifier_worse_than_what_is_certified(tmp_path: Path) -> None:
    name = save_digit_program(tmp_path / "digits.pt2")
    config = _config(name, Budget())
    classifier = BaseClassifier(backend(name), denoiser(FILTER), sigma=SIGMA)
    question = Question(
        attacks=("eot-pgd", "deepfool", "transfer"),
        eps=(0.1, 0.25),
        norm="l2",
        options={"eot-pgd": {"steps": 8}, "deepfool": {"steps": 5}, "transfer": {"options": {"steps": 8}}},
    )
    with (
        Queries() as queries,
        ConfiguredSides(
            config,
            classifier,
            CLASSES,
            draws=16,
            copies=8,
            seed=0,
            queries=queries,
            surrogate=NamedOptions(name=name),
        ) as sides,
    ):
        judge = sides.judge(queries, predicting=SMOOTHING, certifying=SMOOTHING)
        found = compare(question, _album(8), sides, judge, _no_bars)
        queries.run(classifier.backend.aclose)
    assert found.raw == 1.0
    assert len(found.rows) == 6
    for row in found.rows:
        assert row.certified is not None
        assert row.certified <= row.hardened <= found.hardened
        assert row.raw <= found.raw
    assert max(row.certified or 0.0 for row in found.rows) > 0.0, "else nothing was compared"
    assert len(found.shown) == 6 * 2 * 8


def test_a_label_that_changes_within_its_radius_is_a_broken_proof_that_names_the_picture(
    classifier: BaseClassifier, queries: Queries
) -> None:
    album = _album(2)
    other = next(i for i in range(1, 20) if _album(20).labels[i] != album.labels[0])
    false = [
        Certificate(label, radius, 0.9, SIGMA, 0.001, Votes())
        for label, radius in ((album.labels[0], 100.0), (album.labels[1], 100.0))
    ]
    judge = Judge(classifier, predicting=SMOOTHING, certifying=SMOOTHING, queries=queries)
    assert standing(album, judge, album.pixels, np.arange(2), false).stands.all()
    swapped = [_album(20).pixels[other], album.pixels[1]]
    found = standing(album, judge, swapped, np.arange(2), false)
    assert found.stands.tolist() == [False, True]
    (complaint,) = found.broken
    assert re.search(r"0\.png: proven '.' within l2 radius 100.*alpha = 0\.001", complaint)


def test_a_certificate_covers_what_is_within_its_radius_of_the_picture_that_was_sent() -> None:
    proof = Certificate("cat", 0.5, 0.9, 0.25, 0.001, Votes(), input_radius=0.4)
    assert [covers(proof, l2) for l2 in (0.0, 0.4, 0.41)] == [True, True, False]
    assert not covers(Certificate(None, 0.0, 0.5, 0.25, 0.001, Votes()), 0.0)


def _config(name: str, budget: Budget) -> ProxyConfig:
    return ProxyConfig(
        smoothing=SMOOTHING, backend=NamedOptions(name=name), denoiser=NamedOptions(name=FILTER), budget=budget
    )
