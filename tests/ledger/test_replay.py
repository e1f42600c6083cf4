"""Other questions asked of recorded draws: answered where the draws decide them, refused where they do not."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import anyio
import numpy as np
import pytest
from PIL import Image

from smoothing_proxy.backends.scripted import ScriptedBackend
from smoothing_proxy.denoisers.registry import denoiser
from smoothing_proxy.errors import ConfigError, LedgerError
from smoothing_proxy.ledger.reader import LedgerReader
from smoothing_proxy.ledger.replay import Question, replay_certificates
from smoothing_proxy.ledger.store import Ledger
from smoothing_proxy.runs.runner import FolderRun
from smoothing_proxy.smoothing.base_classifier import BaseClassifier
from smoothing_proxy.smoothing.halt import Halt
from smoothing_proxy.smoothing.plan import ladder_of
from smoothing_proxy.smoothing.settings import Smoothing
from smoothing_proxy.types import Certificate, Label
from tests.runs.silent import Silent

TARGET = Smoothing(sigma=0.25, alpha=0.001, target_radius=0.25, max_queries=300)
LADDER = Smoothing(sigma=0.25, alpha=0.001, target_radii=(0.1, 0.25), max_queries=300)
FIXED = Smoothing(sigma=0.25, alpha=0.001, n0=20, n=180)
LARGEST = Smoothing(sigma=0.25, alpha=0.001, method="largest", n0=24, max_queries=300)

SURE = ["cat"]
DOUBTFUL = ["cat", "cat", "dog"]
HOPELESS = ["cat", "dog"]
NEARLY = ["cat"] * 9 + ["dog"]


def recorded(folder: Path, smoothing: Smoothing, votes: Sequence[str]) -> Path:
    """The ledger of a run over one picture whose draws vote like this, over and over."""
    Image.fromarray(np.full((8, 8, 3), 100, np.uint8)).save(folder / "one.png")
    classifier = BaseClassifier(ScriptedBackend(list(votes)), denoiser("identity"), sigma=smoothing.sigma)
    with Ledger(folder / "ledger.db") as ledger:
        run = FolderRun(ledger, classifier, smoothing, folder, ["one.png"], {"one.png": "cat"}, in_flight=1)
        run.begin("here")
        anyio.run(run.run, Silent(), Halt())
    return folder / "ledger.db"


def asked(path: Path, question: Question | None = None) -> Certificate:
    with LedgerReader.open(path) as ledger:
        [(_, certificate)] = replay_certificates(ledger, question)
        assert certificate is not None
        return certificate


def verdict(path: Path) -> Certificate:
    with LedgerReader.open(path) as ledger:
        [certificate] = ledger.verdicts().values()
        return certificate


@pytest.mark.parametrize(
    "smoothing", [TARGET, LADDER, FIXED, LARGEST], ids=["target", "ladder", "fixed", "largest"]
)
@pytest.mark.parametrize(
    "votes", [SURE, DOUBTFUL, HOPELESS, NEARLY], ids=["sure", "doubtful", "hopeless", "nearly"]
)
def test_the_runs_own_question_has_its_own_answer(tmp_path: Path, smoothing: Smoothing, votes: list[str]) -> None:
    path = recorded(tmp_path, smoothing, votes)
    assert asked(path) == asked(path, Question(alpha=smoothing.alpha)) == verdict(path)


ANSWERED: list[tuple[Smoothing, list[str], Question, Label | None, float]] = [
    (TARGET, SURE, Question(alpha=0.01), "cat", 0.25),
    (TARGET, SURE, Question(target_radii=(0.1,)), "cat", 0.1),
    (TARGET, SURE, Question(target_radii=(0.1, 0.25)), "cat", 0.25),
    (TARGET, SURE, Question(max_queries=100), "cat", 0.25),
    (TARGET, SURE, Question(alpha=0.05, target_radii=(0.0,), max_queries=50), "cat", 0.0),
    (LADDER, NEARLY, Question(target_radii=(0.25,)), None, 0.0),
    (LADDER, NEARLY, Question(target_radii=(0.1,)), "cat", 0.1),
    (LADDER, NEARLY, Question(alpha=0.01), "cat", 0.1),
    (TARGET, HOPELESS, Question(alpha=0.01), None, 0.0),
    (TARGET, HOPELESS, Question(target_radii=(0.4,)), None, 0.0),
    (FIXED, SURE, Question(target_radii=(0.25,)), "cat", 0.25),
    (FIXED, SURE, Question(target_radii=(0.1, 0.25), alpha=1e-6), "cat", 0.25),
    (FIXED, NEARLY, Question(target_radii=(0.1, 0.4)), "cat", 0.1),
    (FIXED, HOPELESS, Question(target_radii=(0.25,)), None, 0.0),
    (LARGEST, SURE, Question(target_radii=(0.25,), max_queries=100), "cat", 0.25),
]


@pytest.mark.parametrize(("smoothing", "votes", "question", "label", "radius"), ANSWERED)
def test_what_the_draws_decide_is_answered(
    tmp_path: Path, smoothing: Smoothing, votes: list[str], question: Question, label: Label | None, radius: float
) -> None:
    certificate = asked(recorded(tmp_path, smoothing, votes), question)
    assert (certificate.label, certificate.radius) == (label, radius)
    assert certificate.alpha == (question.alpha or smoothing.alpha)
    assert certificate.working_size == (8, 8)


REFUSED = [
    (TARGET, SURE, Question(target_radii=(0.4,))),
    (TARGET, SURE, Question(alpha=1e-6)),
    (LADDER, SURE, Question(target_radii=(0.1, 0.4))),
    (TARGET, HOPELESS, Question(target_radii=(0.1,), alpha=0.3)),
    (TARGET, HOPELESS, Question(max_queries=3000)),
    (LARGEST, SURE, Question(target_radii=(0.5,), max_queries=1000)),
    (FIXED, DOUBTFUL, Question(target_radii=(0.1,), max_queries=5000)),
]


@pytest.mark.parametrize(("smoothing", "votes", "question"), REFUSED)
def test_what_needs_draws_that_were_never_made_is_refused(
    tmp_path: Path, smoothing: Smoothing, votes: list[str], question: Question
) -> None:
    path = recorded(tmp_path, replace(smoothing, lookahead=1), votes)  # draws sent ahead may suffice by chance
    with pytest.raises(
        LedgerError, match=r"one\.png: its recorded stream ends after \d+ draws.* This run can answer"
    ):
        asked(path, question)


@pytest.mark.parametrize(
    ("smoothing", "question", "message"),
    [
        (FIXED, Question(max_queries=50), "say a target radius as well"),
        (TARGET, Question(alpha=2.0), "alpha"),
        (TARGET, Question(target_radii=(0.25,), max_queries=5), "takes at least"),
        (TARGET, Question(target_radii=(-1.0,)), "target_radius"),
    ],
)
def test_a_question_that_proves_nothing_is_refused(
    tmp_path: Path, smoothing: Smoothing, question: Question, message: str
) -> None:
    path = recorded(tmp_path, smoothing, SURE)
    with pytest.raises(ConfigError, match=message):
        asked(path, question)


def shuffled(p: float, seed: int) -> Iterator[list[str]]:
    rng = np.random.default_rng(seed)
    while True:
        yield np.where(rng.random(300) < p, "cat", "dog").tolist()


@pytest.mark.parametrize("p", [0.7, 0.85, 0.97])
def test_the_runs_radii_at_any_larger_alpha_are_always_answered(tmp_path: Path, p: float) -> None:
    streams = shuffled(p, 1)
    for number in range(4):
        folder = tmp_path / str(number)
        folder.mkdir()
        path = recorded(folder, LADDER, next(streams))
        own = verdict(path).radius
        radii = [asked(path, Question(alpha=alpha)).radius for alpha in (0.001, 0.01, 0.1)]
        assert radii == sorted(radii)
        assert radii[0] == own


def test_another_ladder_is_judged_by_its_own_boundaries_alone(tmp_path: Path) -> None:
    """13 votes of 15 prove 0.05 where it is asked alone, and not in a ladder with 0.1, whose rungs share alpha."""
    run = Smoothing(sigma=1.0, alpha=0.1, target_radius=0.1, max_queries=500, lookahead=1)
    ladder = Question(target_radii=(0.05, 0.1))
    alone, together = (ladder_of(replace(ladder.of(run), target_radii=radii)) for radii in ((0.05,), (0.05, 0.1)))
    assert alone[0][1].certifies(15, 13)
    assert not together[0][1].certifies(15, 13)
    path = recorded(
        tmp_path, run, ["cat", "cat", "dog", *["cat"] * 6, "dog", *["cat"] * 5, *["dog", "emu", "fox"] * 200]
    )
    assert verdict(path).label is None
    assert asked(path, Question(target_radii=(0.05,))).label == "cat"
    with pytest.raises(LedgerError, match="before this question is decided"):
        asked(path, ladder)


def alter(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


def test_a_verdict_that_other_software_reached_names_both_versions(tmp_path: Path) -> None:
    path = recorded(tmp_path, TARGET, SURE)
    alter(path, "DELETE FROM draws WHERE number >= 10")  # as if today's boundary were one vote farther
    with pytest.raises(LedgerError) as same:
        asked(path)
    assert "other versions" not in str(same.value)
    alter(path, "UPDATE runs SET software = json_set(software, '$.scipy', '1.0')")
    with pytest.raises(LedgerError, match=f"scipy 1.0 there, {version('scipy')} here"):
        asked(path)
    with pytest.raises(LedgerError) as another:
        asked(path, Question(alpha=1e-9))
    assert "other versions" not in str(another.value), "another question is simply not decided"


def test_a_picture_that_is_half_done_is_left_out_and_never_judged(tmp_path: Path) -> None:
    path = recorded(tmp_path, TARGET, SURE)
    alter(path, "DELETE FROM verdicts", "DELETE FROM draws WHERE number >= 10")
    with LedgerReader.open(path) as ledger:
        assert [certificate for _, certificate in replay_certificates(ledger)] == [None]
        answered = [c for _, c in replay_certificates(ledger, Question(alpha=0.3, target_radii=(0.0,)))]
    assert answered[0] is not None
    assert answered[0].queries < 10
