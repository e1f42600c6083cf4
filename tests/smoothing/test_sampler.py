"""The sampler: draws are numbered, settle in any order, are told in issue order, and none is lost or doubled."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any

import anyio
import numpy as np
import numpy.typing as npt
import pytest

from smoothing_proxy.backends.scripted import ScriptedBackend
from smoothing_proxy.denoisers.identity import Identity
from smoothing_proxy.denoisers.registry import denoiser
from smoothing_proxy.errors import (
    AuthenticationError,
    BackendError,
    BackendTimeoutError,
    DenoiserError,
    ImageError,
    LedgerError,
    ModelChangedError,
    RequestRejectedError,
)
from smoothing_proxy.images.codec import EncodedImage
from smoothing_proxy.smoothing.base_classifier import BaseClassifier
from smoothing_proxy.smoothing.halt import Halt, Interrupted
from smoothing_proxy.smoothing.observe import ForgetfulJournal, Outcome, Recalled
from smoothing_proxy.smoothing.picture import Picture, prepare
from smoothing_proxy.smoothing.plan import Plan, certify_plan
from smoothing_proxy.smoothing.room import Room
from smoothing_proxy.smoothing.sampler import Sampler
from smoothing_proxy.smoothing.settings import Smoothing
from smoothing_proxy.types import Cost, Draws, Reply, ScoredLabel, Votes

pytestmark = pytest.mark.anyio

SETTINGS = Smoothing(sigma=0.25, n0=10, n=50, alpha=0.01)
GREY = np.full((8, 8, 3), 128, np.uint8)


def brightness(pixels: npt.NDArray[np.uint8]) -> str:
    return "light" if pixels.mean() > 127 else "dark"


def sampler_of(backend: ScriptedBackend, **options: object) -> Sampler:
    return Sampler(BaseClassifier(backend, Identity(), sigma=0.25), **options)  # type: ignore[arg-type]


def picture(entropy: int = 7) -> Picture:
    return prepare(GREY, "original", entropy=entropy.to_bytes(16, "little"))


def all_draws(count: int) -> Plan[Votes]:
    return (yield Draws("estimation", count))


class Recorder(ForgetfulJournal):
    """A journal that keeps what it is told, in order."""

    def __init__(self) -> None:
        self.events: list[tuple[str, tuple[int, ...]]] = []
        self.outcomes: dict[int, Outcome] = {}

    async def sent(self, picture: int, draws: Sequence[int]) -> None:
        self.events.append(("sent", tuple(draws)))

    async def settled(self, picture: int, outcomes: Sequence[Outcome]) -> None:
        self.events.append(("settled", tuple(outcome.draw for outcome in outcomes)))
        self.outcomes.update({outcome.draw: outcome for outcome in outcomes})

    async def withdrawn(self, picture: int, draws: Sequence[int], *, maybe_billed: bool = False) -> None:
        self.events.append(("withdrawn", tuple(draws)))

    def drawn(self, kind: str) -> list[int]:
        return [draw for event, draws in self.events if event == kind for draw in draws]


@pytest.mark.parametrize(("batch_size", "in_flight"), [(1, 1), (1, 32), (7, 4), (64, 2)])
async def test_every_draw_is_sent_once_and_journaled_before_and_after(batch_size: int, in_flight: int) -> None:
    backend, journal = ScriptedBackend(brightness, batch_size=batch_size), Recorder()
    sampler = sampler_of(backend, in_flight=in_flight, journal=journal)
    certificate, cost = await sampler.run(picture(), certify_plan(SETTINGS), Recalled())
    assert certificate.queries == backend.asked == 60
    assert cost == Cost(queries=60)
    assert sorted(journal.drawn("sent")) == sorted(journal.drawn("settled")) == list(range(60))
    for draw in range(60):
        order = [kind for kind, draws in journal.events if draw in draws]
        assert order == ["sent", "settled"]
    assert backend.most_in_flight <= in_flight


async def test_the_verdict_depends_on_the_entropy_and_not_on_batches_or_concurrency() -> None:
    verdicts = set()
    for batch_size, in_flight in [(1, 1), (5, 3), (64, 8)]:
        sampler = sampler_of(ScriptedBackend(brightness, batch_size=batch_size), in_flight=in_flight)
        certificate, _ = await sampler.run(picture(), certify_plan(SETTINGS), Recalled())
        verdicts.add(str(certificate))
    assert len(verdicts) == 1
    other, _ = await sampler.run(picture(entropy=8), certify_plan(SETTINGS), Recalled())
    assert str(other) not in verdicts


async def test_failed_draws_count_in_n_and_never_for_a_label() -> None:
    failures: dict[int, BackendError] = {
        3: RequestRejectedError("too large"),
        20: BackendTimeoutError("60 s"),
        21: BackendError("boom"),
    }
    journal = Recorder()
    sampler = sampler_of(ScriptedBackend("light", failures=failures), journal=journal, in_flight=1)
    certificate, cost = await sampler.run(picture(), certify_plan(SETTINGS), Recalled())
    assert certificate.selection == Votes({"light": 9}, failed=1)
    assert certificate.votes == Votes({"light": 48}, failed=2)
    assert cost == Cost(queries=57, unknown=1)
    assert sum(outcome.error is not None for outcome in journal.outcomes.values()) == 3


async def test_an_empty_reply_and_a_malformed_one_are_votes_for_nothing() -> None:
    answers = ["light", None, Reply((ScoredLabel("light", 1.5),))]
    sampler = sampler_of(ScriptedBackend(answers), in_flight=1)
    votes, cost = await sampler.run(picture(), all_draws(30), Recalled())
    assert votes == Votes({"light": 10}, failed=20)
    assert cost == Cost(queries=20, unknown=10)


async def test_recalled_draws_are_told_again_and_not_sent() -> None:
    backend = ScriptedBackend("light")
    recalled = Recalled(dict.fromkeys(range(0, 60, 2), "dark"), Cost(queries=30))
    sampler, journal = sampler_of(backend), Recorder()
    sampler.journal = journal
    certificate, cost = await sampler.run(picture(), certify_plan(SETTINGS), recalled)
    assert certificate.selection == Votes({"dark": 5, "light": 5})
    assert certificate.votes == Votes({"dark": 25, "light": 25})
    assert sorted(journal.drawn("sent")) == list(range(1, 60, 2))
    assert cost == Cost(queries=60)


async def test_a_plan_is_told_the_settled_prefix_in_issue_order_whatever_settles_first() -> None:
    told: list[Votes] = []

    def plan() -> Plan[None]:
        while (left := 40 - sum(votes.n for votes in told)) > 0:
            told.append((yield Draws("estimation", left, at_least=1)))

    order = random.Random(3)

    async def jitter(_: float) -> None:
        for _ in range(order.randrange(20)):
            await asyncio.sleep(0)

    # Each copy's answer is its own mean, so that the votes tell which draws they belong to.
    backend = ScriptedBackend(lambda pixels: str(pixels.mean()), sleep=jitter)
    journal = Recorder()
    sampler = sampler_of(backend, in_flight=16, journal=journal)
    await sampler.run(picture(), plan(), Recalled())
    assert journal.drawn("settled") != list(range(40)), "nothing overtook: the test is too weak"
    assert len(told) > 1

    labels = [journal.outcomes[draw].label for draw in range(40)]
    start = 0
    for votes in told:
        assert votes == Votes.tally(labels[start : start + votes.n])
        start += votes.n


async def test_stopping_by_completion_order_would_favour_the_fast_label() -> None:
    """The copies for "light" answer at once, the others late: the prefix is fair, completion order is not."""

    class SlowDark:
        """A backend whose answers for dark copies take longer."""

        def __init__(self) -> None:
            self.inner = ScriptedBackend(brightness)

        def __getattr__(self, name: str) -> object:
            return getattr(self.inner, name)

        async def classify(self, copies: Sequence[EncodedImage]) -> Sequence[Reply | BackendError]:
            replies = await self.inner.classify(copies)
            first = replies[0]
            assert isinstance(first, Reply)
            if first.labels[0].name == "dark":
                await asyncio.sleep(0.02)
            return replies

    first_told: list[Votes] = []

    def plan() -> Plan[None]:
        first_told.append((yield Draws("estimation", 32, at_least=16)))

    journal = Recorder()
    classifier = BaseClassifier(SlowDark(), Identity(), sigma=0.25)  # type: ignore[arg-type]
    await Sampler(classifier, in_flight=32, journal=journal).run(picture(), plan(), Recalled())
    by_number = [journal.outcomes[draw].label for draw in range(32)]
    by_completion = [journal.outcomes[draw].label for draw in journal.drawn("settled")]
    (told,) = first_told
    assert told == Votes.tally(by_number[: told.n])
    assert by_completion.index("dark") > by_number.index("dark"), "nothing was slow: the test is too weak"
    assert set(by_completion[: by_completion.index("dark")]) == {"light"}


async def test_refused_credentials_stop_everything_and_the_draws_can_be_asked_again() -> None:
    failures: dict[int, BackendError] = {12: AuthenticationError("key expired")}
    journal, halt = Recorder(), Halt()
    sampler = sampler_of(ScriptedBackend("light", failures=failures), journal=journal, in_flight=4)
    with pytest.raises(AuthenticationError, match="key expired"):
        await sampler.run(picture(), certify_plan(SETTINGS), Recalled(), halt)
    settled, withdrawn = journal.drawn("settled"), journal.drawn("withdrawn")
    assert len(withdrawn) == 1
    assert sorted(settled + withdrawn) == sorted(journal.drawn("sent"))
    with pytest.raises(AuthenticationError):
        await sampler.run(picture(), certify_plan(SETTINGS), Recalled(), halt)
    assert len(journal.drawn("sent")) == len(settled) + 1, "after the halt nothing more is sent"
    certificate, _ = await sampler.run(picture(), certify_plan(SETTINGS), Recalled())
    assert certificate.label == "light", "another call has a halt of its own"


async def test_an_interrupt_lets_what_is_in_flight_settle() -> None:
    journal, halt = Recorder(), Halt()
    backend = ScriptedBackend("light", latency_s=0.01)
    sampler = sampler_of(backend, journal=journal, in_flight=4)
    async with anyio.create_task_group() as tasks:

        async def stop() -> None:
            while backend.asked < 9:  # noqa: ASYNC110 (the backend has no event to wait for)
                await asyncio.sleep(0)
            halt.request(Interrupted())

        tasks.start_soon(stop)
        with pytest.raises(Interrupted):
            await sampler.run(picture(), certify_plan(SETTINGS), Recalled(), halt)
    assert sorted(journal.drawn("settled")) == sorted(journal.drawn("sent"))
    assert len(journal.drawn("sent")) < 20


@pytest.mark.parametrize("error", [ImageError("cannot be encoded"), ValueError("a bug"), MemoryError("too much")])
async def test_whatever_goes_wrong_is_raised_as_it_is_after_the_answers_in_flight_are_kept(
    error: Exception,
) -> None:
    class Faulty(ScriptedBackend):  # type: ignore[misc]  # final for users
        async def classify(self, copies: Sequence[EncodedImage]) -> Sequence[Reply | BackendError]:
            if self.asked == 5:
                self.asked += 1
                raise error
            return await super().classify(copies)

    journal = Recorder()
    sampler = sampler_of(Faulty("light", latency_s=0.01), journal=journal, in_flight=4)
    with pytest.raises(type(error), match=str(error)):
        await sampler.run(picture(), certify_plan(SETTINGS), Recalled())
    assert len(journal.drawn("settled")) == len(journal.drawn("sent")) - 1


async def test_a_model_that_changes_between_two_draws_voids_the_certificate() -> None:
    answers = [Reply((ScoredLabel("light", 1.0),), model_version=version) for version in ("3.0", "3.0", "3.1")]
    sampler = sampler_of(ScriptedBackend(answers), in_flight=1)
    with pytest.raises(ModelChangedError, match=r"3\.0, 3\.1"):
        await sampler.run(picture(), certify_plan(SETTINGS), Recalled())
    steady = sampler_of(ScriptedBackend(answers[0]))
    remembered = Recalled({0: "light"}, Cost(queries=1), frozenset({"2.9"}))
    with pytest.raises(ModelChangedError, match=r"2\.9, 3\.0"):
        await steady.run(picture(), certify_plan(SETTINGS), remembered)


async def test_a_malformed_answer_is_charged_and_kept() -> None:
    malformed = Reply((ScoredLabel("light", 1.5),), "3.0")
    journal = Recorder()
    _, cost = await sampler_of(ScriptedBackend(malformed), journal=journal).run(
        picture(), all_draws(5), Recalled()
    )
    assert cost == Cost(unknown=5)
    assert {outcome.reply for outcome in journal.outcomes.values()} == {malformed}


async def test_a_plan_that_ends_early_sends_nothing_more() -> None:
    ended, requests = asyncio.Event(), 0

    async def held_after_ten(_: float) -> None:
        nonlocal requests
        requests += 1
        if requests > 10:
            await ended.wait()

    def plan() -> Plan[Votes]:
        votes = yield Draws("estimation", 60, at_least=10)
        ended.set()
        return votes

    backend = ScriptedBackend("light", sleep=held_after_ten)
    votes, cost = await sampler_of(backend, in_flight=8).run(picture(), plan(), Recalled())
    assert votes == Votes({"light": 10})
    assert cost.queries == backend.asked <= 10 + 8, "only what was in flight is paid for"


async def test_nothing_is_sent_that_could_not_be_written_down() -> None:
    class FullDisk(Recorder):
        async def sent(self, picture: int, draws: Sequence[int]) -> None:
            raise LedgerError("database or disk is full")

    backend = ScriptedBackend("light")
    with pytest.raises(LedgerError, match="disk is full"):
        await sampler_of(backend, journal=FullDisk()).run(picture(), certify_plan(SETTINGS), Recalled())
    assert backend.asked == 0


async def test_a_denoiser_that_fails_stops_the_run_before_anything_is_asked() -> None:
    class Broken(Identity):
        def denoise(self, noisy: npt.NDArray[np.float32], sigma: float) -> npt.NDArray[np.float32]:
            return np.full_like(noisy, np.nan)

    backend = ScriptedBackend("light")
    sampler = Sampler(BaseClassifier(backend, Broken(), sigma=0.25))
    with pytest.raises(DenoiserError):
        await sampler.run(picture(), certify_plan(SETTINGS), Recalled())
    assert backend.asked == 0


async def test_the_clean_picture_is_asked_once_without_noise() -> None:
    seen: list[bytes] = []

    def look(pixels: npt.NDArray[np.uint8]) -> str:
        seen.append(pixels.tobytes())
        return brightness(pixels)

    sampler = Sampler(BaseClassifier(ScriptedBackend(look), denoiser("gaussian:3"), sigma=0.25))
    label, cost = await sampler.clean(picture(), Recalled())
    assert (label, cost) == ("light", Cost(queries=1))
    assert seen == [GREY.tobytes()]


async def test_many_pictures_share_the_limits() -> None:
    backend = ScriptedBackend(brightness, latency_s=0.001)
    sampler = sampler_of(backend, in_flight=8)
    async with anyio.create_task_group() as tasks:
        for number in range(6):
            tasks.start_soon(sampler.run, picture(number), certify_plan(SETTINGS), Recalled())
    assert backend.asked == 360
    assert backend.most_in_flight == 8


async def test_room_is_given_to_no_more_copies_than_there_is() -> None:
    room, inside, most = Room(10), 0, 0

    async def use(count: int) -> None:
        nonlocal inside, most
        async with room.taken(count):
            inside += min(count, 10)
            most = max(most, inside)
            await asyncio.sleep(0)
            inside -= min(count, 10)

    async with anyio.create_task_group() as tasks:
        for count in (4, 10, 3, 25, 3, 7, 1, 9):
            tasks.start_soon(use, count)
    assert most == 10
    assert inside == 0


async def test_room_is_kept_in_order_and_given_back_by_who_gives_up() -> None:
    room = Room(10)
    order: list[str] = []

    async def use(name: str, count: int) -> None:
        async with room.taken(count):
            order.append(name)
            await asyncio.sleep(0.001)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(use, "first", 9)
        await asyncio.sleep(0)
        with anyio.move_on_after(0):
            await use("gives up", 10)
        tasks.start_soon(use, "large", 10)
        await asyncio.sleep(0)
        tasks.start_soon(use, "small", 1)
    assert order == ["first", "large", "small"]


def test_large_pictures_are_made_in_small_chunks() -> None:
    sampler = sampler_of(ScriptedBackend("light"))
    small = sampler.chunk(picture(), 1000)
    large = sampler.chunk(prepare(np.zeros((1500, 2000, 3), np.uint8), "original"), 1000)
    assert (large, small) == (1, Identity().batch_size)


@pytest.mark.parametrize(("copies", "together"), [(1, 4), (12, 4), (32, 8), (200, 50), (256, 64), (5_000, 64)])
def test_a_few_copies_are_made_in_parts_so_that_some_travel_while_others_are_made(
    copies: int, together: int
) -> None:
    assert sampler_of(ScriptedBackend("light")).chunk(picture(), copies) == together


@pytest.mark.parametrize(
    ("rows", "together"), [(1, [4, 4, 8, 25, 32]), (5, [5, 5, 10, 25, 30]), (20, [20] * 5), (64, [32] * 5)]
)
def test_a_part_is_as_many_as_the_denoiser_computes_anyway(rows: int, together: list[int]) -> None:
    filled = rows

    class Filling:
        name = fingerprint = "filling"
        batch_size = 32

        def check(self, sigma: float, height: int, width: int) -> None: ...

        def denoise(self, noisy: Any, sigma: float) -> Any:
            return noisy

        def rows(self, height: int, width: int) -> int:
            return filled

    sampler = Sampler(BaseClassifier(ScriptedBackend("light"), Filling(), sigma=0.25))
    assert [sampler.chunk(picture(), count) for count in (1, 12, 32, 100, 1000)] == together
