"""Richer proofs from the draws of a run that was paid for already: about its labels, and about its k best ones."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import replace
from itertools import count, takewhile
from typing import TypeVar

from sqlalchemy import select

from smoothing_proxy.backends.labels import LabelMap
from smoothing_proxy.errors import ConfigError, LedgerError
from smoothing_proxy.images.geometry import ResizeMap, WorkingSize, resize_map
from smoothing_proxy.ledger.reader import RUN, LedgerReader
from smoothing_proxy.ledger.records import PictureRecord, reply_from_json
from smoothing_proxy.ledger.replay import recorded_smoothing
from smoothing_proxy.ledger.schema import draws
from smoothing_proxy.smoothing.drive import Recording, Tape, replay
from smoothing_proxy.smoothing.label_plans import check_watched, labels_plan, top_k_plan
from smoothing_proxy.smoothing.observe import CLEAN
from smoothing_proxy.smoothing.placing import place_labels, place_top_k
from smoothing_proxy.smoothing.reply_stream import RecalledReplies, scores_of
from smoothing_proxy.smoothing.settings import PerLabel, Smoothing
from smoothing_proxy.stats.per_label import Scores
from smoothing_proxy.types import Cost, Draws, Label, LabelsCertificate, TopKCertificate

__all__ = ["recall_replies", "replay_labels", "replay_top_k"]

Verdict = TypeVar("Verdict")
Told = TypeVar("Told")
Item = TypeVar("Item")


def replay_labels(
    ledger: LedgerReader, asked: PerLabel, labels: LabelMap
) -> Iterator[tuple[PictureRecord, LabelsCertificate | None]]:
    """Each picture's per-label proofs from its recorded replies, without a call; None where draws are missing.

    The run's n0 first draws choose the claims and the next n test them: proofs at the run's alpha, beside those of
    the run itself. None also where the model changed between a picture's draws. labels: the run's own label map,
    for it has to be fixed before the draws; `asked` must not be chosen by looking at them either.

    Raises ConfigError for a map that asks a question of its own or is closed to a watched label; LedgerError for
    another map than the run's.
    """
    smoothing = recorded_smoothing(ledger)
    _check_map(ledger, labels)
    check_watched(asked, labels.classes)
    for record in ledger.pictures():
        recalled = recall_replies(ledger, record.id, labels)
        tape = Tape(_prefix(recalled.scores))
        certificate = _told(labels_plan(smoothing, asked), tape.take)
        if certificate is None or (resize := _resize(ledger, record, smoothing, certificate.queries)) is None:
            yield record, None
        else:
            yield record, replace(place_labels(certificate, resize), cost=recalled.cost.at(_price_usd(ledger)))


def replay_top_k(
    ledger: LedgerReader, k: int, label: Label | None = None
) -> Iterator[tuple[PictureRecord, TopKCertificate | None]]:
    """Each picture's top-k proof from its recorded votes, without a call; None as in `replay_labels`.

    Raises ConfigError for k out of range.
    """
    smoothing = recorded_smoothing(ledger)
    for record in ledger.pictures():
        recalled = ledger.recall(record.id)
        certificate = _told(top_k_plan(smoothing, k, label), Recording(_prefix(recalled.votes)))
        if certificate is None or (resize := _resize(ledger, record, smoothing, certificate.queries)) is None:
            yield record, None
        else:
            yield record, replace(place_top_k(certificate, resize), cost=recalled.cost.at(_price_usd(ledger)))


def recall_replies(ledger: LedgerReader, picture: int, labels: LabelMap) -> RecalledReplies:
    """What is settled of a picture's draws, as scores, and what all of its draws have cost so far, in queries.

    model_versions: of its proofs' draws alone. Canaries are nobody's.
    """
    columns = (draws.c.number, draws.c.status, draws.c.reply, draws.c.unknown, draws.c.model_version)
    query = select(*columns).where(draws.c.run_id == RUN, draws.c.picture_id == picture, draws.c.number >= CLEAN)
    scores: dict[int, Scores | None] = {}
    versions: set[str] = set()
    cost = Cost()
    for row in ledger._rows(query):  # noqa: SLF001 (the same ledger, on the same floor)
        cost += Cost(queries=int(row.status == "settled"), unknown=row.unknown)
        if row.status in ("settled", "failed"):
            reply = reply_from_json(row.reply) if row.status == "settled" else None
            scores[row.number] = scores_of(reply, labels)
            versions |= {row.model_version or ""} if row.number > CLEAN else set()
    return RecalledReplies(scores, cost, frozenset(versions - {""}))


def _prefix(settled: Mapping[int, Item]) -> list[Item]:
    """Of the draws 0, 1, ... as far as they are settled."""
    return [settled[number] for number in takewhile(settled.__contains__, count())]


def _told(plan: Generator[Draws, Told, Verdict], draw: Callable[[Draws], Told]) -> Verdict | None:
    try:
        return replay(plan, draw)
    except LedgerError:
        return None


def _resize(ledger: LedgerReader, record: PictureRecord, smoothing: Smoothing, queries: int) -> ResizeMap | None:
    """None where there is no one picture, or no one model answered the draws that the proof rests on."""
    if record.size is None or len(ledger.versions_told(record.id, queries)) > 1:
        return None
    return resize_map(*record.size, WorkingSize.parse(smoothing.working_size))


def _check_map(ledger: LedgerReader, labels: LabelMap) -> None:
    if labels.present is not None:
        raise ConfigError("the label map's `present` asks about one label: the run has no per-label proofs")
    if labels.fingerprint() != (ledger.manifest() or {})["labels"]:
        raise LedgerError("another label map than the run's: it has to be the one that was fixed before the draws")


def _price_usd(ledger: LedgerReader) -> float:
    return float((ledger.manifest() or {})["price_usd"])
