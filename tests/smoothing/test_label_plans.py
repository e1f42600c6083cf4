"""Plans over whole replies: driven by hand, by a real client, and from a ledger that was paid for already."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from smoothing_proxy import AsyncSmoothedClassifier, ScriptedBackend, SmoothedClassifier, Smoothing
from smoothing_proxy.backends.labels import LabelMap, Presence
from smoothing_proxy.backends.local.callable import callable_backend
from smoothing_proxy.denoisers.identity import Identity
from smoothing_proxy.errors import (
    BackendTimeoutError,
    ConfigError,
    LedgerError,
    MalformedReplyError,
    RequestRejectedError,
)
from smoothing_proxy.ledger.reader import LedgerReader
from smoothing_proxy.ledger.records import PictureRecord
from smoothing_proxy.ledger.reply_replay import recall_replies, replay_labels, replay_top_k
from smoothing_proxy.ledger.store import Ledger
from smoothing_proxy.runs.runner import FolderRun
from smoothing_proxy.smoothing.base_classifier import BaseClassifier
from smoothing_proxy.smoothing.drive import Tape, replay
from smoothing_proxy.smoothing.halt import Halt
from smoothing_proxy.smoothing.label_plans import TOLD_AT_ONCE, Replies, labels_plan, top_k_plan
from smoothing_proxy.smoothing.observe import CLEAN, Outcome, Recalled
from smoothing_proxy.smoothing.picture import prepare
from smoothing_proxy.smoothing.reply_stream import RecalledReplies, ReplyStream, run_replies, scores_of
from smoothing_proxy.smoothing.sampler import Sampler, task_group
from smoothing_proxy.smoothing.settings import PerLabel
from smoothing_proxy.stats.per_label import Scores
from smoothing_proxy.stats.percentile import median_bounds
from smoothing_proxy.stats.planning import largest_radius
from smoothing_proxy.types import Cost, Draws, LabelsCertificate, Reply, ScoredLabel, Votes
from tests.runs.silent import Silent

SETTINGS = Smoothing(sigma=0.25, n0=20, n=200)
GREY = np.full((8, 8, 3), 128, np.uint8)


def scores(**shares: float) -> Iterator[Scores]:
    """Each label at 0.9 in its share of every hundred replies, and at 0.1 in the others."""
    while True:
        for i in range(100):
            yield {label: 0.9 if (i * 37) % 100 < 100 * share else 0.1 for label, share in shares.items()}


class Answering:
    """Answers a plan, and remembers what it was asked."""

    def __init__(self, answers: Iterator[Scores | None]) -> None:
        self.answers = answers
        self.requests: list[Draws] = []

    def __call__(self, request: Draws) -> Replies:
        self.requests.append(request)
        return [next(self.answers) for _ in range(request.answered)]


def test_the_selection_chooses_and_fresh_draws_prove_with_alpha_shared_out() -> None:
    answering = Answering(scores(tree=1.0, dog=0.95, cat=0.5, car=0.04))
    certificate = replay(labels_plan(SETTINGS, PerLabel()), answering)
    assert certificate.present == ("tree", "dog")
    assert certificate.absent == ("car",)
    assert certificate.of("cat") is None
    assert (certificate.alpha, certificate.alpha_each) == (0.001, 0.001 / 3)
    assert (certificate.selection, certificate.estimation, certificate.queries) == (20, 200, 220)
    tree = certificate.of("tree")
    assert tree is not None
    assert tree.radius == largest_radius(200, 0.001 / 3, 0.25)
    assert tree.votes == Votes({"present": 200})


def test_all_draws_are_asked_for_at_once_and_told_a_part_at_a_time() -> None:
    answering = Answering(scores(tree=1.0))
    replay(labels_plan(SETTINGS, PerLabel()), answering)
    assert [request.count for request in answering.requests] == [20, 200, 136, 72, 8]
    assert [request.answered for request in answering.requests[1:]] == [TOLD_AT_ONCE] * 3 + [8]


def test_nothing_worth_testing_costs_the_selection_alone() -> None:
    certificate = replay(labels_plan(SETTINGS, PerLabel()), Answering(scores(cat=0.5)))
    assert (certificate.labels, certificate.queries) == ((), 20)


def test_a_sequential_method_spends_no_more_than_its_limit() -> None:
    sequential = Smoothing(sigma=0.25, n0=20, target_radius=0.1, max_queries=150)
    assert replay(labels_plan(sequential, PerLabel()), Answering(scores(a=1.0))).queries == 170


def test_confidences_are_bounded_for_half_of_alpha() -> None:
    answering = Answering(scores(tree=1.0, dog=0.95))
    certificate = replay(labels_plan(SETTINGS, PerLabel(confidence_radius=0.1)), answering)
    assert certificate.alpha_each == 0.001 / 4
    dog = certificate.of("dog")
    assert dog is not None
    sample = [0.9] * dog.votes.of("present") + [0.1] * dog.votes.of("absent")
    assert dog.confidence == median_bounds(sample, 0, radius=0.1, sigma=0.25, alpha=0.001 / 4)
    assert dog.confidence is not None
    assert (dog.confidence.low, dog.confidence.median) == (0.9, 0.9)
    few = replay(labels_plan(replace(SETTINGS, n=16), PerLabel(confidence_radius=0.3)), Answering(scores(a=1.0)))
    assert few.labels[0].confidence is None, "16 draws are too few for that percentile"


def test_a_label_missing_from_a_reply_has_no_confidence_and_a_failed_draw_no_reply() -> None:
    def answers() -> Iterator[Scores | None]:
        yield from [{"dog": 0.9}] * 20
        while True:
            yield from [{"dog": 0.9}] * 18 + [{"cat": 0.4}, None]

    certificate = replay(labels_plan(SETTINGS, PerLabel(confidence_radius=0.05)), Answering(answers()))
    dog = certificate.labels[0]
    assert dog.votes == Votes({"present": 180, "absent": 10}, failed=10)
    assert certificate.failed == 10
    assert dog.confidence == median_bounds([0.9] * 180 + [0.0] * 10, 10, radius=0.05, sigma=0.25, alpha=0.0005)


def test_a_confidence_at_the_threshold_counts_as_present() -> None:
    certificate = replay(
        labels_plan(SETTINGS, PerLabel(threshold=0.75)), lambda request: [{"a": 0.75}] * request.answered
    )
    assert certificate.labels[0].votes == Votes({"present": 200})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"threshold": 0.0}, "threshold = 0.0"),
        ({"threshold": float("nan")}, "threshold = nan"),
        ({"most": 0}, "most = 0"),
        ({"watched": ("a", "b"), "most": 1}, "most = 1 has no room"),
        ({"watched": "dog"}, "expected several labels"),
        ({"watched": ("",)}, "expected names"),
        ({"confidence_radius": 0.0}, "confidence_radius = 0.0"),
    ],
)
def test_a_question_out_of_range_is_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PerLabel(**values)  # type: ignore[arg-type]  # wrong on purpose


def test_claims_are_false_no_more_often_than_alpha_together() -> None:
    """Five labels at one half, so that any claim about them is false, and depending on each other."""
    rng, runs = np.random.default_rng(2), 1500
    settings = Smoothing(sigma=0.25, n0=5, n=40, alpha=0.2)
    watching = PerLabel(watched=tuple("abcde"))
    wrong = 0
    for _ in range(runs):
        bits = rng.random((45, 5)) < 0.5
        bits[:, 4] = ~bits[:, 3]
        told: list[Scores | None] = [
            {label: 0.9 * bit for label, bit in zip("abcde", row, strict=True)} for row in bits.tolist()
        ]
        certificate = replay(labels_plan(settings, watching), Tape(told).take)
        wrong += bool(certificate.present or certificate.absent)
    assert 0 < wrong / runs <= 0.2


def test_the_top_k_plan_asks_nothing_more_where_the_selection_failed() -> None:
    def answer(request: Draws) -> Votes:
        asked.append(request.phase)
        return Votes(failed=request.count)

    asked: list[str] = []
    certificate = replay(top_k_plan(SETTINGS, 2), answer)
    assert (certificate.label, certificate.queries, asked) == (None, 20, ["selection"])
    assert replay(top_k_plan(SETTINGS, 2, "cat"), answer).queries == 220


# A real classifier with several labels: what it says depends on the brightness of three parts of the picture.


def parts(pixels: npt.NDArray[np.uint8]) -> list[dict[str, float]]:
    """uint8 [n, h, w, 3] -> for each the brightness of its left half, its right half, and of nothing."""
    level = pixels.astype(np.float64).mean(axis=(1, 3)) / 255  # [n, w]
    half = level.shape[1] // 2
    return [
        {"left": float(row[:half].mean()), "right": float(row[half:].mean()), "terrier": 0.8, "ghost": 0.01}
        for row in level
    ]


HALVES = np.concatenate([np.full((8, 8, 3), 230, np.uint8), np.full((8, 8, 3), 20, np.uint8)], axis=1)


def test_a_multi_label_picture_end_to_end(tmp_path: Path) -> None:
    Image.fromarray(HALVES).save(tmp_path / "halves.png")
    asked = PerLabel(watched=("right", "ghost"), confidence_radius=0.1)
    settings = replace(SETTINGS, working_size="4x8")
    with SmoothedClassifier(callable_backend(parts), smoothing=settings) as g:
        certificate = g.certify_labels(tmp_path / "halves.png", asked)
    assert set(certificate.present) == {"left", "terrier"}
    assert set(certificate.absent) == {"right", "ghost"}
    assert (certificate.working_size, certificate.input_size) == ((4, 8), (8, 16))
    assert certificate.cost.queries == certificate.queries == 220
    for proof in certificate.labels:
        assert proof.input_radius is not None
        assert 0 < proof.radius < proof.input_radius, "shrinking averages a change away"
        assert proof.confidence is not None
        assert proof.confidence.low <= proof.confidence.median <= proof.confidence.high
        assert proof.confidence.input_radius is not None


def test_groups_of_the_label_map_are_labels_here_and_their_class_is_what_stays() -> None:
    """pug and terrier take turns, so neither stays present, but some dog does."""
    replies = [
        Reply((ScoredLabel("pug" if i % 2 else "terrier", 0.9), ScoredLabel("lawn", 0.2))) for i in range(100)
    ]
    groups = LabelMap(groups={"dog": ("pug", "terrier")})
    with SmoothedClassifier(ScriptedBackend(replies), smoothing=SETTINGS) as g:
        plain, alone = g.certify_labels(GREY), g.certify(GREY)
    with SmoothedClassifier(ScriptedBackend(replies), smoothing=SETTINGS, labels=groups) as g:
        grouped, together = g.certify_labels(GREY), g.certify(GREY)
    assert (plain.present, alone.label) == ((), None)
    assert (grouped.present, together.label) == (("dog",), "dog")
    assert 0 < together.radius == grouped.labels[0].radius


@pytest.mark.anyio
async def test_failures_empty_and_malformed_replies_are_no_evidence() -> None:
    failures = {30: RequestRejectedError("too large"), 31: BackendTimeoutError("60 s")}
    answers: Sequence[str | Reply | None] = ["dog"] * 8 + [None, Reply((ScoredLabel("dog", 1.5),))]
    backend = ScriptedBackend(answers, failures=dict(failures))
    async with AsyncSmoothedClassifier(backend, smoothing=SETTINGS, in_flight=1) as g:
        certificate = await g.certify_labels(GREY)
    assert certificate.labels[0].votes == Votes({"present": 158}, failed=42)
    assert certificate.failed == 42 + 4


@pytest.mark.anyio
async def test_replies_are_told_in_issue_order_whatever_settles_first() -> None:
    async def jitter(_: float) -> None:
        await asyncio.sleep(order.random() / 200)

    order = np.random.default_rng(1)
    verdicts: list[LabelsCertificate] = []
    for sleep in (jitter, asyncio.sleep):
        backend = ScriptedBackend(lambda pixels: Reply(_noisy(pixels)), concurrency=16, sleep=sleep)
        async with AsyncSmoothedClassifier(backend, smoothing=SETTINGS) as g:
            picture = prepare(GREY, "original", entropy=bytes(16))
            plan = labels_plan(SETTINGS, PerLabel(watched=("a", "b")))
            certificate, _ = await run_replies(g._sampler, picture, plan, RecalledReplies())
            verdicts.append(certificate)
    assert verdicts[0] == verdicts[1]


def _noisy(pixels: npt.NDArray[np.uint8]) -> tuple[ScoredLabel, ...]:
    level = float(pixels.mean()) / 255
    return ScoredLabel("a", level), ScoredLabel("b", 1 - level)


@pytest.mark.anyio
async def test_no_reply_that_was_told_stays_in_memory() -> None:
    sampler = Sampler(BaseClassifier(ScriptedBackend("dog"), Identity(), sigma=0.25))
    async with task_group() as tasks:
        stream = ReplyStream(sampler, prepare(GREY, "original"), RecalledReplies(), tasks, Halt())
        told = await stream.replies(Draws("estimation", 50, at_least=10))
        assert told == [{"dog": 1.0}] * 10
        assert await stream.replies(Draws("estimation", 40)) == [{"dog": 1.0}] * 40
        stream.end()
    assert stream._scores == {}


@pytest.mark.anyio
async def test_draws_that_are_known_are_told_again_and_not_sent() -> None:
    backend = ScriptedBackend("dog")
    sampler = Sampler(BaseClassifier(backend, Identity(), sigma=0.25))
    recalled = RecalledReplies({number: {"dog": 1.0} if number % 3 else None for number in range(100)})
    plan = labels_plan(SETTINGS, PerLabel())
    certificate, _ = await run_replies(sampler, prepare(GREY, "original"), plan, recalled)
    assert backend.asked == 120
    assert certificate.failed == 34


def test_top_k_of_a_real_client() -> None:
    answers = ["cat"] * 9 + ["dog"] * 7 + ["emu"] * 2 + ["fox"]
    with SmoothedClassifier(ScriptedBackend(answers, price_usd=0.5), smoothing=SETTINGS, in_flight=1) as g:
        certificate = g.certify_top_k(GREY, 2)
        other = g.certify_top_k(GREY, 3, label="dog")
        with pytest.raises(ConfigError, match="k = 0"):
            g.certify_top_k(GREY, 0)
    assert certificate.label == "cat"
    assert 0 < certificate.radius == certificate.input_radius
    assert certificate.cost.usd == 110
    assert other.label == "dog"


@pytest.mark.parametrize(
    ("labels", "asked", "message"),
    [
        (LabelMap(present=Presence(label="dog", confidence=0.5)), PerLabel(), "asks about one label"),
        (LabelMap(groups={"dog": ("pug",)}, closed=True), PerLabel(watched=("dig",)), "did you mean 'dog'"),
    ],
)
def test_a_question_that_the_label_map_cannot_answer_costs_nothing(
    labels: LabelMap, asked: PerLabel, message: str
) -> None:
    backend = ScriptedBackend("dog")
    with (
        SmoothedClassifier(backend, smoothing=SETTINGS, labels=labels) as g,
        pytest.raises(ConfigError, match=message),
    ):
        g.certify_labels(GREY, asked)
    assert backend.asked == 0


@pytest.mark.parametrize(
    "reply", [None, Reply(()), Reply((ScoredLabel("dog", 1.5),)), Reply((ScoredLabel("", 0.5),))]
)
def test_what_is_no_reply_has_no_scores(reply: Reply | None) -> None:
    assert scores_of(reply, LabelMap()) is None
    assert scores_of(Reply((ScoredLabel("dog", 0.5),)), LabelMap(closed=True, groups={"cat": ()})) == {}


# Replay: a run that was certified for one label has paid for the proofs about all of them.


def run_folder(tmp_path: Path, labels: LabelMap) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    Image.fromarray(HALVES).save(folder / "halves.png")
    Image.fromarray(255 - HALVES).save(folder / "swapped.png")
    classifier = BaseClassifier(callable_backend(parts), Identity(), sigma=0.25, labels=labels)
    with Ledger(tmp_path / "ledger.db") as ledger:
        run = FolderRun(
            ledger, classifier, SETTINGS, folder, ["halves.png", "swapped.png"], reference={}, insecure_seed=3
        )
        run.begin("here")
        asyncio.run(run.run(Silent(), Halt()))
    return tmp_path / "ledger.db"


def test_a_run_for_one_label_replays_as_proofs_about_all_of_them_without_a_call(tmp_path: Path) -> None:
    labels = LabelMap(groups={"animal": ("terrier",)})
    path = run_folder(tmp_path, labels)
    asked = PerLabel(watched=("ghost",), confidence_radius=0.1)
    with LedgerReader.open(path) as ledger:
        [(halves, first), (_, second)] = replay_labels(ledger, asked, labels)
        entropies = [record.entropy for record in ledger.pictures()]
        kept = [top for _, top in replay_top_k(ledger, 2)]
    assert halves.name == "halves.png"
    assert first is not None
    assert second is not None
    assert (set(first.present), set(second.present)) == ({"left", "animal"}, {"right", "animal"})
    assert first.cost.queries == 220
    assert all(top is not None and top.label and top.radius > 0 for top in kept)
    live = asyncio.run(certified_live(labels, entropies[0] or b"", asked))
    assert [replace(proof, input_radius=None, confidence=None) for proof in first.labels] == [
        replace(proof, confidence=None) for proof in live.labels
    ]
    assert asdict(first)["failed"] == live.failed


async def certified_live(labels: LabelMap, entropy: bytes, asked: PerLabel) -> LabelsCertificate:
    sampler = Sampler(BaseClassifier(callable_backend(parts), Identity(), sigma=0.25, labels=labels))
    picture = prepare(HALVES, "original", entropy=entropy)
    certificate, _ = await run_replies(sampler, picture, labels_plan(SETTINGS, asked), RecalledReplies())
    return certificate


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        (LabelMap(groups={"animal": ("ghost",)}), LedgerError, "another label map than the run's"),
        (LabelMap(present=Presence(label="ghost", confidence=0.5)), ConfigError, "asks about one label"),
    ],
)
def test_another_label_map_than_the_runs_is_refused(
    tmp_path: Path, labels: LabelMap, error: type[Exception], message: str
) -> None:
    path = run_folder(tmp_path, LabelMap())
    with LedgerReader.open(path) as ledger, pytest.raises(error, match=message):
        list(replay_labels(ledger, PerLabel(), labels))


def test_recalled_replies_resume_where_the_ledger_ends(tmp_path: Path) -> None:
    path = run_folder(tmp_path, LabelMap())
    with LedgerReader.open(path) as ledger:
        recalled = recall_replies(ledger, 0, LabelMap())
        votes = ledger.recall(0)
    assert recalled.scores.keys() == votes.votes.keys()
    assert recalled.cost == votes.cost
    assert all(found and set(found) == {"left", "right", "terrier", "ghost"} for found in recalled.scores.values())
    assert Recalled(dict.fromkeys(recalled.scores), recalled.cost).votes.keys() == set(range(220))


async def written(path: Path, outcomes: Sequence[Outcome]) -> None:
    """A ledger of one picture with these draws."""
    smoothing = asdict(Smoothing(sigma=0.25, n0=5, n=20))
    with Ledger(path) as ledger:
        ledger.begin({"smoothing": smoothing, "labels": LabelMap().fingerprint(), "price_usd": 0.5}, {})
        ledger.add_pictures(["a.png"])
        ledger.describe(PictureRecord(0, "a.png", sha256="0", size=(8, 8), entropy=bytes(16)))
        await ledger.draws.sent(0, [outcome.draw for outcome in outcomes])
        await ledger.draws.settled(0, outcomes)


@pytest.mark.anyio
async def test_recorded_failures_are_no_evidence_and_a_changed_model_has_no_proof(tmp_path: Path) -> None:
    def answered(draw: int, version: str = "1") -> Outcome:
        return Outcome(draw, "dog", reply=Reply((ScoredLabel("dog", 0.9),), version))

    malformed = Outcome(6, None, error=MalformedReplyError("no JSON", reply=b"<html>"))
    whole = [malformed if draw == 6 else answered(draw) for draw in range(25)]
    cases = {
        "whole": [
            *whole,
            answered(CLEAN, "0"),
            answered(CLEAN - 1, "2"),
            answered(25, "2"),
        ],  # none told to a proof
        "short": whole[:-1],
        "changed": [*whole[:-1], answered(24, "2")],
    }
    found = {}
    for name, outcomes in cases.items():
        await written(tmp_path / name, outcomes)
        with LedgerReader.open(tmp_path / name) as ledger:
            [(_, found[name])] = replay_labels(ledger, PerLabel(), LabelMap())
            [(_, top)] = replay_top_k(ledger, 2)
        assert (top is None) == (found[name] is None) == (name != "whole")
    proofs = found["whole"]
    assert proofs is not None
    assert proofs.labels[0].votes == Votes({"present": 19}, failed=1)
    assert proofs.cost == Cost(26, 1, 13.5), "with the clean picture and a draw too many, without the canary"
