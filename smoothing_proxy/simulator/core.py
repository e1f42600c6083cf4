"""A vendor without its sockets: keys, limits, faults, the classifier and the till."""

from __future__ import annotations

import asyncio
import hmac
import random
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TypeAlias

from smoothing_proxy.backends.base import Backend
from smoothing_proxy.errors import RequestRejectedError, SmoothingProxyError
from smoothing_proxy.images.codec import EncodedImage
from smoothing_proxy.simulator.batcher import Batcher
from smoothing_proxy.simulator.chance import Chance, Turn
from smoothing_proxy.simulator.faults import Fate, Faults
from smoothing_proxy.simulator.pictures import checked, unchecked
from smoothing_proxy.simulator.settings import SimulatorSettings
from smoothing_proxy.simulator.till import Till
from smoothing_proxy.transport.clock import Clock, SystemClock
from smoothing_proxy.types import Reply
from smoothing_proxy.wire.base import Fault, HttpReply, HttpRequest, Question, RequestFault, Wire

__all__ = ["Answer", "Delivery", "Simulator"]

Answer: TypeAlias = Reply | RequestFault

_DECODERS = 2


@dataclass(frozen=True, slots=True)
class Delivery:
    """A reply and what becomes of it: ANSWERED (written as it is), CUT_OFF, RESET_AFTER or HANG.

    answered: digests of the pictures that it answers, for the till. outcome: how the till calls it.
    """

    fate: Fate
    reply: HttpReply
    outcome: str
    answered: tuple[str, ...] = ()


class Simulator:
    """One vendor's service. backend: the classifier behind it; whoever made it closes it.

    rng: decides every fault. clock: for latency and request rates. now: the date, for signatures.
    """

    def __init__(
        self,
        wire: Wire,
        backend: Backend,
        settings: SimulatorSettings,
        *,
        faults: Faults,
        rng: random.Random,
        clock: Clock | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.wire = wire
        self.limits = wire.limits  # of some it loads a library, which must not wait for the first request
        self.till = Till()
        self.chance = Chance(faults, rng, clock or SystemClock())
        self._backend = backend
        self._settings = settings
        self._secret = settings.secret.get_secret_value()
        self._clock = clock or SystemClock()
        self._now = now
        self._batcher = Batcher(backend)
        self._asking: set[asyncio.Task[Sequence[Answer]]] = set()
        self._decoders = ThreadPoolExecutor(_DECODERS, thread_name_prefix="simulator-decoder")

    def close(self) -> None:
        """End what hangs, and the threads that decode pictures."""
        for task in self._asking:
            task.cancel()
        self._decoders.shutdown(wait=False)

    def arrive(self) -> Turn:
        """A request begins to arrive; its lot."""
        self.till.requests += 1
        return self.chance.turn()

    def refuse(self, request: HttpRequest, fault: RequestFault) -> Delivery:
        """The vendor's own words for a request that gets no answer."""
        reply = self.wire.refuse(request, fault, str(uuid.uuid4()))
        return Delivery(Fate.ANSWERED, reply, fault.fault.value)

    async def handle(self, request: HttpRequest, turn: Turn) -> Delivery:
        """What the vendor makes of a request. Its pictures are billed by the time this returns."""
        try:
            self._authenticate(request)
            question = self.wire.read(request)
            digests = self.till.sent(question.images)
            answers = await self.answer(question, turn, digests)
        except RequestFault as fault:
            return self.refuse(request, fault)
        reply = self.wire.write(request, question, answers, str(uuid.uuid4()))
        return self._delivery(turn, reply, answers, digests)

    async def ask(self, question: Question) -> Sequence[Answer]:
        """A question that came by gRPC, key and all checked. A hang never returns: cancel it.

        Raises RequestFault, and ConnectionResetError where the client is to see no more than a lost connection. A
        reply that cannot be read is INTERNAL, as gRPC's clients call it.
        """
        turn = self.arrive()
        task = asyncio.create_task(self._asked(question, turn))
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)
        answers = await asyncio.shield(task)  # work that began is billed, though its client leaves
        if turn.fate is Fate.HANG:
            await asyncio.get_running_loop().create_future()
        return answers

    def check_key(self, key: str) -> None:
        """A key that came by gRPC. Raises RequestFault (UNAUTHENTICATED)."""
        try:
            self._check_secret(key)
        except RequestFault as fault:
            self.arrive()
            self.till.end(fault.fault.value)
            raise

    async def answer(self, question: Question, turn: Turn, digests: Sequence[str]) -> list[Answer]:
        """A reply or its own fault for each picture, billed, and the vendor's time spent.

        Raises RequestFault where the request as a whole gets none.
        """
        limits = self.limits
        if len(question.images) > limits.batch:
            raise RequestFault(
                Fault.BAD_REQUEST,
                f"{len(question.images)} pictures in a request; at most {limits.batch} are taken",
            )
        self.chance.admit(turn, len(question.images))
        if turn.fate in _ERRORS:
            await self._fail(turn, digests)
        answers = self._finished(turn, await self._classified(question.images))
        for answer, digest in zip(answers, digests, strict=True):
            if isinstance(answer, Reply) or (answer.fault is Fault.INTERNAL and self.chance.error_is_billed(turn)):
                self.till.bill((digest,))
        replies = [answer for answer in answers if isinstance(answer, Reply)]
        await self._wait(self.chance.latency_s(turn, replies))
        return answers if turn.fate is not Fate.EMPTY else [_without_labels(answer) for answer in answers]

    def _authenticate(self, request: HttpRequest) -> None:
        if not self.wire.serves(request):
            raise RequestFault(Fault.UNKNOWN_OPERATION, f"{request.method} {request.path} is not served here")
        key = self.wire.key(request)
        if key != self._settings.key_id:
            self._check_secret(key)
        self.wire.verify(request, self._secret, self._now())

    def _check_secret(self, key: str) -> None:
        """A key that has no id is its own secret."""
        if not hmac.compare_digest(key.encode(errors="replace"), self._secret.encode()):
            raise RequestFault(Fault.UNAUTHENTICATED, "the key is not known here")

    async def _asked(self, question: Question, turn: Turn) -> Sequence[Answer]:
        try:
            if turn.fate is Fate.RESET_BEFORE:
                self.till.end(turn.fate.value)
                raise ConnectionResetError
            digests = self.till.sent(question.images)
            answers = await self.answer(question, turn, digests)
        except RequestFault as fault:
            self.till.end(fault.fault.value)
            raise
        self.till.end(turn.fate.value)
        if turn.fate in (Fate.RESET_AFTER, Fate.CUT_OFF):
            raise ConnectionResetError
        if turn.fate in (Fate.MALFORMED, Fate.BLANK):
            raise RequestFault(Fault.INTERNAL, "the reply cannot be read")
        if turn.fate is not Fate.HANG:
            self.till.answer(_replied(answers, digests))
        return answers

    async def _fail(self, turn: Turn, digests: Sequence[str]) -> None:
        if self.chance.error_is_billed(turn):
            self.till.bill(digests)
        await self._wait(self.chance.latency_s(turn, []))
        raise RequestFault(_ERRORS[turn.fate], "something went wrong on our side")

    async def _wait(self, seconds: float) -> None:
        if seconds > 0.0:
            await self._clock.sleep(seconds)

    async def _classified(self, images: Sequence[bytes]) -> list[Answer]:
        if self._settings.check_pictures:
            copies = await asyncio.get_running_loop().run_in_executor(self._decoders, self._copies, images)
        else:  # a thread costs more than a look at a header
            copies = self._copies(images)
        good = [copy for copy in copies if isinstance(copy, EncodedImage)]
        outcomes = iter(await self._batcher.ask(good))
        return [copy if isinstance(copy, RequestFault) else _answer(next(outcomes)) for copy in copies]

    def _copies(self, images: Sequence[bytes]) -> list[EncodedImage | RequestFault]:
        return [self._copy(image) for image in images]

    def _copy(self, image: bytes) -> EncodedImage | RequestFault:
        try:
            if self._settings.check_pictures:
                return checked(image, self.limits, self._backend.encoding)
            return unchecked(image, self.limits)
        except RequestFault as fault:
            return fault

    def _finished(self, turn: Turn, answers: Sequence[Answer]) -> list[Answer]:
        return [self._finish(turn, answer) if isinstance(answer, Reply) else answer for answer in answers]

    def _finish(self, turn: Turn, reply: Reply) -> Answer:
        if self.chance.picture_fails(turn):
            return RequestFault(Fault.INTERNAL, "this picture met an error on our side")
        return replace(reply, model_version=turn.model_version) if turn.model_version else reply

    def _delivery(
        self, turn: Turn, reply: HttpReply, answers: Sequence[Answer], digests: Sequence[str]
    ) -> Delivery:
        faults = [answer for answer in answers if isinstance(answer, RequestFault)]
        if reply.status >= 400 and faults:
            return Delivery(Fate.ANSWERED, reply, faults[0].fault.value)
        reply = self.chance.spoiled(turn, reply)
        fate = turn.fate if turn.fate in _LOST else Fate.ANSWERED
        whole = turn.fate in (Fate.ANSWERED, Fate.EMPTY)
        return Delivery(fate, reply, turn.fate.value, _replied(answers, digests) if whole else ())


_ERRORS = {Fate.INTERNAL: Fault.INTERNAL, Fate.TIMEOUT: Fault.TIMEOUT}

_LOST = (Fate.HANG, Fate.RESET_AFTER, Fate.CUT_OFF)


def _answer(outcome: Reply | SmoothingProxyError) -> Answer:
    if isinstance(outcome, Reply):
        return outcome
    fault = Fault.BAD_IMAGE if isinstance(outcome, RequestRejectedError) else Fault.INTERNAL
    return RequestFault(fault, str(outcome))


def _without_labels(answer: Answer) -> Answer:
    return replace(answer, labels=()) if isinstance(answer, Reply) else answer


def _replied(answers: Sequence[Answer], digests: Sequence[str]) -> tuple[str, ...]:
    pairs = zip(answers, digests, strict=True)
    return tuple(digest for answer, digest in pairs if isinstance(answer, Reply))
