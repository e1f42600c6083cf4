"""What goes wrong in the middle of an attack costs no more than it must, and is said."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

from smoothing_proxy.assembly import LEDGER_NAME
from smoothing_proxy.backends.registry import backend
from smoothing_proxy.backends.scripted import ScriptedBackend
from smoothing_proxy.cli.app import app
from smoothing_proxy.config import NamedOptions, ProxyConfig
from smoothing_proxy.denoisers.registry import denoiser
from smoothing_proxy.errors import BackendUnavailableError
from smoothing_proxy.images.codec import Encoding
from smoothing_proxy.ledger.reader import LedgerReader
from smoothing_proxy.redteam.asked import AskedTarget
from smoothing_proxy.redteam.compare import compare
from smoothing_proxy.redteam.comparison import Album, Question
from smoothing_proxy.redteam.grid import to_pictures, to_pixels
from smoothing_proxy.redteam.judge import Judge
from smoothing_proxy.redteam.networks import Network
from smoothing_proxy.redteam.queries import Queries
from smoothing_proxy.redteam.sides import ConfiguredSides
from smoothing_proxy.redteam.targets import GradientTarget, Target
from smoothing_proxy.smoothing.base_classifier import BaseClassifier
from smoothing_proxy.smoothing.settings import Smoothing
from tests.redteam import moody_classifier
from tests.redteam.digit_net import CLASSES, digit_module, save_digit_program, test_digits

AWAY = BackendUnavailableError("away", backend="scripted")
FIXED = ("--method", "fixed", "--n0", "5", "--n", "20", "--sigma", "0.25", "--denoiser", "identity")
MOODY = ("--classifier", "local:tests.redteam.moody_classifier:shade", *FIXED, "--in-flight", "1")
JUDGED = 1 + 25 + 1 + 20
"""Queries before the first attack on one picture: its label, its certificate, and both clean answers."""


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    (tmp_path / "pictures").mkdir()
    Image.fromarray(np.full((12, 12, 3), 200, np.uint8)).save(tmp_path / "pictures" / "0.png")
    return tmp_path / "pictures"


def _invoke(*arguments: str | Path) -> Result:
    result = CliRunner().invoke(app, [str(one) for one in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def _no_bars(stage: str, total: int) -> Callable[[int], None]:
    return lambda done: None


class _Digits:
    """Sides whose attacks ask nothing of the classifier that is judged."""

    def target(self, needs: str, hardened: bool) -> Target:
        return GradientTarget(Network(digit_module(), name="digits", classes=("a", *CLASSES[1:])))

    def surrogate(self, hardened: bool) -> None:
        return None


def test_a_query_that_failed_tells_an_attack_that_the_label_stood() -> None:
    classifier = BaseClassifier(ScriptedBackend("b", failures={1: AWAY}), denoiser("identity"), sigma=0.25)
    pixels = to_pixels(test_digits(3)[0])
    with Queries() as queries, AskedTarget(classifier, "ab", queries=queries, in_flight=1) as target:
        heard = target.ask(pixels, np.zeros(3, np.int64))
    assert sorted(heard.answers.tolist()) == [0, 1, 1], "of the three, whichever failed"
    assert ((heard.own > heard.other) == (heard.answers == 0)).all()


@pytest.mark.parametrize(
    ("failing", "clean", "attacked", "failed"),
    [(60, 0.0, 0.0, 0), (60 + 1 + 50, 1.0, 1.0, 1), (10**6, 1.0, 1.0, 0)],
)
def test_a_look_that_failed_is_no_right_answer_and_no_success_of_an_attack(
    failing: int, clean: float, attacked: float, failed: int
) -> None:
    smoothing = Smoothing(sigma=0.25, n0=10, n=50, method="fixed")
    vendor = ScriptedBackend("a", failures={failing: AWAY})
    classifier = BaseClassifier(vendor, denoiser("identity"), sigma=0.25)
    album = Album(["0.png"], list(to_pixels(test_digits(1)[0])), ["a"])
    with (
        Queries() as queries,
        Judge(classifier, predicting=smoothing, certifying=smoothing, queries=queries) as judge,
    ):
        found = compare(Question(attacks=("fgsm",), eps=(0.1,)), album, _Digits(), judge, _no_bars)
    assert (found.raw, found.rows[0].raw, found.rows[0].raw_failed) == (clean, attacked, failed)


def test_an_attack_that_is_interrupted_keeps_its_rows_and_says_what_it_spent(
    picture: Path, tmp_path: Path
) -> None:
    first = 2 * (6 + 1) + 2 * 6 * 2 + 20
    moody_classifier.reset(interrupts=JUDGED + first + 3)
    out = tmp_path / "out"
    asked = ("attack", picture, *MOODY, "--attack", "square", "--eps", "0.01,0.02", "--attack-queries", "6")
    stopped = _invoke(*asked, "--attack-draws", "2", "--budget-queries", "9000", "--out", out)
    assert stopped.exit_code == 130
    assert "it cannot be resumed" in stopped.stderr
    assert "1 rows" in stopped.stderr
    found = json.loads((out / "attack.json").read_text())
    assert found["unfinished"] == "interrupted"
    assert [row["eps"] for row in found["rows"]] == [0.01]
    assert found["certificates"][0]["label"] == "light"
    with LedgerReader.open(out / LEDGER_NAME) as ledger:
        cost = ledger.totals.cost()
    assert JUDGED < cost.queries <= moody_classifier.asked()
    assert f"stopped after {cost.queries:,} queries" in stopped.stderr


def test_one_query_that_fails_loses_nothing_of_a_paid_attack(picture: Path, tmp_path: Path) -> None:
    moody_classifier.reset(fails=JUDGED + 2)
    out = tmp_path / "out"
    asked = ("attack", picture, *MOODY, "--attack", "square", "--eps", "0.01", "--attack-queries", "6")
    done = _invoke(*asked, "--attack-draws", "2", "--budget-queries", "9000", "--out", out)
    assert done.exit_code == 0, done.stderr
    assert len(json.loads((out / "attack.json").read_text())["rows"]) == 1


def test_a_broken_proof_is_told_after_the_table_that_it_stands_in(picture: Path, tmp_path: Path) -> None:
    moody_classifier.reset(turns=1 + 25 + 1)
    done = _invoke(
        "attack", picture, *MOODY, "--attack", "square", "--eps", "0.01", "--attack-queries", "2",
        "--attack-draws", "1", "--out", tmp_path / "out",
    )  # fmt: skip
    assert done.exit_code == 1
    assert "accuracy: whose label stands" in done.stdout
    assert "broken proof: 0.png: proven 'light' within l2 radius" in done.stderr
    found = json.loads((tmp_path / "out" / "attack.json").read_text())
    assert len(found["broken_proofs"]) >= 1
    assert found["clean"]["hardened"] == 0.0


def test_a_folder_that_cannot_be_made_is_refused_before_anything_is_asked(picture: Path, tmp_path: Path) -> None:
    moody_classifier.reset()
    (tmp_path / "file").touch()
    done = _invoke("attack", picture, *MOODY, "--attack", "square", "--eps", "0.1", "--out", tmp_path / "file")
    assert done.exit_code == 2
    assert "file: cannot be the attack's folder" in done.stderr
    assert moody_classifier.asked() == 0


@pytest.mark.parametrize("seed", ["-1", str(2**63), "a"])
def test_a_seed_that_generators_do_not_take_is_refused(picture: Path, seed: str) -> None:
    moody_classifier.reset()
    done = _invoke("attack", picture, *MOODY, "--attack", "square", "--eps", "0.1", "--seed", seed)
    assert done.exit_code == 2
    assert "--seed" in done.stderr
    assert moody_classifier.asked() == 0


def test_the_largest_seed_is_taken_by_every_kind_of_attack(tmp_path: Path) -> None:
    name = save_digit_program(tmp_path / "digits.pt2")
    (tmp_path / "pictures").mkdir()
    for number, pixels in enumerate(to_pixels(test_digits(2)[0])):
        Image.fromarray(pixels).save(tmp_path / "pictures" / f"{number}.png")
    done = _invoke(
        "attack", tmp_path / "pictures", "--classifier", name, *FIXED, "--attack", "hopskipjump,eot-pgd,pgd",
        "--eps", "0.1", "--norm", "l2", "--seed", str(2**63 - 1), "--attack-queries", "20", "--attack-draws", "1",
        "--eot", "1", "-a", "eot-pgd.steps=2", "-a", "pgd.steps=2",
    )  # fmt: skip
    assert done.exit_code == 0, done.stderr


def test_the_ledger_of_an_attack_is_no_run_and_nothing_takes_it_for_one(picture: Path, tmp_path: Path) -> None:
    moody_classifier.reset()
    out = tmp_path / "out"
    asked = ("--attack", "square", "--eps", "0.01", "--attack-queries", "2", "--attack-draws", "1")
    assert _invoke("attack", picture, *MOODY, *asked, "--budget-queries", "900", "--out", out).exit_code == 0
    run = tuple("--backend" if word == "--classifier" else word for word in MOODY)
    commands: list[tuple[str | Path, ...]] = [
        ("replay", out),
        ("plan", picture, *run, "--from-run", out),
        ("run", picture, *run, "--out", out),
        ("run", picture, *run, "--out", out, "--family", "bonferroni"),
    ]
    for command in commands:
        refused = _invoke(*command)
        assert refused.exit_code == 2, command
        assert "holds the queries of an attack" in refused.stderr


@pytest.mark.parametrize("encoding", [Encoding("jpeg", 15), Encoding("png", min_side_px=20), Encoding("raw")])
def test_a_gradient_attack_sees_the_classifier_behind_the_encoding_that_copies_travel_in(
    encoding: Encoding, tmp_path: Path
) -> None:
    name = save_digit_program(tmp_path / "digits.pt2")
    smoothing = Smoothing(sigma=0.25, n0=10, n=100, method="fixed")
    named = NamedOptions.model_validate({"name": name, "size": 8})
    config = ProxyConfig(smoothing=smoothing, backend=named, denoiser=NamedOptions(name="identity"))
    classifier = BaseClassifier(backend(name, size=8), denoiser("identity"), sigma=0.25, encoding=encoding)
    pictures, labels = test_digits(6)
    with (
        Queries() as queries,
        ConfiguredSides(config, classifier, CLASSES, draws=1, copies=1, seed=0, queries=queries) as sides,
    ):
        asked = sides.target("scores", hardened=False).ask(to_pixels(pictures), labels)
        known = sides.target("gradients", hardened=False)
        assert isinstance(known, GradientTarget)
        heard = known.ask(to_pixels(pictures), labels)
        hardened = sides.target("gradients", hardened=True)
        queries.run(classifier.backend.aclose)
    np.testing.assert_allclose(heard.own, asked.own, rtol=0.1 if encoding.min_side_px else 0, atol=1e-4)
    if encoding.format == "jpeg":
        plain = GradientTarget(Network(digit_module(), name="digits", classes=CLASSES))
        assert np.abs(plain.ask(to_pixels(pictures), labels).own - asked.own).max() > 0.01, "else it shows nothing"
    for target in (known, hardened):
        assert isinstance(target, GradientTarget)
        leaf = torch.from_numpy(to_pictures(to_pixels(pictures))).requires_grad_()
        (gradient,) = torch.autograd.grad(target.network(leaf)[:, 0].sum(), leaf)
        assert bool((gradient.abs().amax(dim=(1, 2, 3)) > 0).all())
