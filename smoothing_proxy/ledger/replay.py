"""Every verdict again from the ledger, without a call; and verdicts on other questions that its draws can answer.

A recorded stream is the beginning of one that could have gone on for ever. What another procedure says of that
beginning is as valid as if it had been asked at once, provided that it ends before the recording does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from itertools import count, takewhile
from typing import Any

from smoothing_proxy.errors import ConfigError, LedgerError, RunMismatchError
from smoothing_proxy.images.geometry import WorkingSize, resize_map
from smoothing_proxy.ledger.reader import LedgerReader
from smoothing_proxy.ledger.records import PictureRecord
from smoothing_proxy.smoothing.drive import Recording, replay
from smoothing_proxy.smoothing.observe import Recalled
from smoothing_proxy.smoothing.picture import place
from smoothing_proxy.smoothing.plan import Climb, certify_plan, most_draws
from smoothing_proxy.smoothing.settings import Smoothing
from smoothing_proxy.types import Certificate, Label, Votes

__all__ = ["Question", "recorded_smoothing", "refuse_attack", "replay_certificates"]


@dataclass(frozen=True, slots=True)
class Question:
    """What to ask of the recorded draws instead of the run's own question; None and () leave it as it was.

    alpha: another level. target_radii: of a target procedure. max_queries: its most draws; for a run that had no
    target, all draws that its pictures were given, unless it is said.
    Each question's certificates hold on their own; to choose the question after seeing the answers to several is
    covered by none of them.
    """

    alpha: float | None = None
    target_radii: tuple[float, ...] = ()
    max_queries: int | None = None

    def of(self, recorded: Smoothing) -> Smoothing:
        """The settings that are asked about. Raises ConfigError where they can prove nothing."""
        changed: dict[str, Any] = {}
        if self.target_radii:
            most = recorded.max_queries if recorded.certify_method == "target" else most_draws(recorded)
            radii = tuple(self.target_radii)
            changed.update(
                method="target", target_radius=None, target_radii=radii, max_queries=most, two_sided=False
            )
        elif self.max_queries is not None and recorded.certify_method == "fixed":
            raise ConfigError("max_queries: the run took a fixed number of draws; say a target radius as well")
        if self.alpha is not None:
            changed["alpha"] = self.alpha
        if self.max_queries is not None:
            changed["max_queries"] = self.max_queries
        return replace(recorded, **changed)


def recorded_smoothing(ledger: LedgerReader) -> Smoothing:
    """The settings that the ledger's draws answer.

    Raises LedgerError in a ledger where no run was begun, RunMismatchError in that of an attack.
    """
    manifest = ledger.manifest()
    if manifest is None:
        raise LedgerError("the ledger holds no run")
    refuse_attack(ledger)
    return Smoothing(**manifest["smoothing"])


def refuse_attack(ledger: LedgerReader, where: str = "the ledger") -> None:
    """Raises RunMismatchError where the ledger is an attack's, whose queries are no draws of a run."""
    if "attack" in (ledger.manifest() or {}):
        raise RunMismatchError(f"{where}: holds the queries of an attack, and no run; name the folder of a run")


def replay_certificates(
    ledger: LedgerReader, question: Question | None = None
) -> Iterator[tuple[PictureRecord, Certificate | None]]:
    """Each picture's certificate, computed again from its recorded draws; None where draws are still missing,
    or the model changed between those that the certificate would rest on.

    A picture that the run gave up on at some radius is not proven there, or beyond, at other levels either.
    Raises LedgerError that names the picture when its verdict was reached before this question's could be, and
    ConfigError when the question can prove nothing. The run's own question, too, rests on boundaries that are
    computed again: where another version of what computes them moves one, the error names both versions.
    """
    recorded = recorded_smoothing(ledger)
    asked = (question or Question()).of(recorded)
    price_usd = (ledger.manifest() or {})["price_usd"]
    working_size = WorkingSize.parse(recorded.working_size)
    decided = ledger.verdicts().keys()
    for record in ledger.pictures():
        recalled = ledger.recall(record.id)
        votes = _prefix(recalled)
        certificate = _answer(asked, recorded, votes)
        if certificate is None and record.id in decided:
            changed = _changed_software(ledger) if asked == recorded else ""
            raise LedgerError(_too_short(record, len(votes), recorded) + changed)
        if certificate is not None and len(ledger.versions_told(record.id, certificate.queries)) > 1:
            certificate = None  # void, as it was in the run
        if record.size is None or certificate is None:
            yield record, None
        else:
            placed = place(certificate, resize_map(*record.size, working_size))
            yield record, replace(placed, cost=recalled.cost.at(price_usd))


def _prefix(recalled: Recalled) -> list[Label | None]:
    """The draws 0, 1, ... as far as they are settled."""
    return [recalled.votes[number] for number in takewhile(recalled.votes.__contains__, count())]


def _answer(asked: Smoothing, recorded: Smoothing, votes: Sequence[Label | None]) -> Certificate | None:
    """None where the recording ends too early to answer."""
    certificate = _certificate(asked, votes)
    if certificate is not None or asked == recorded or asked.certify_method != "target":
        return certificate
    given_up = _given_up(recorded, votes)
    if given_up is None or asked.max_queries > recorded.max_queries:
        return None
    return _as_far_as_proven(asked, votes, given_up)


def _certificate(smoothing: Smoothing, votes: Sequence[Label | None]) -> Certificate | None:
    try:
        return replay(certify_plan(smoothing), Recording(votes))
    except LedgerError:
        return None


def _given_up(recorded: Smoothing, votes: Sequence[Label | None]) -> float | None:
    """The smallest radius that the run did not find worth going on for; None where it did not give up."""
    own = _certificate(recorded, votes) if recorded.certify_method == "target" else None
    if own is None:
        return None
    return next((radius for radius in recorded.ladder if own.label is None or radius > own.radius), None)


def _as_far_as_proven(asked: Smoothing, votes: Sequence[Label | None], given_up: float) -> Certificate | None:
    """What the asked ladder had proven when the recording ended, if what it was about to prove was given up.

    Giving up is no part of the proof, so that the run's own giving up may stand in for that of the question.
    """
    climb = Climb(asked)
    for vote in votes:
        climb.told(Votes.tally([vote]))
    ahead = climb.next_radius
    return climb.certificate if ahead is not None and ahead >= given_up else None


def _changed_software(ledger: LedgerReader) -> str:
    recorded = ledger.software()
    present = {package: version(package) for package in ("numpy", "scipy", "smoothing-proxy")}
    differences = [
        f"{package} {recorded[package]} there, {here} here"
        for package, here in present.items()
        if recorded.get(package, here) != here
    ]
    if not differences:
        return ""
    return (
        ". It was decided with other versions, which may put a boundary one vote elsewhere: "
        f"{'; '.join(differences)}; with those installed again it is the run's own verdict"
    )


def _too_short(record: PictureRecord, draws: int, recorded: Smoothing) -> str:
    can = f"its own question, and target radii with max_queries up to {draws:,} as far as this picture goes"
    if recorded.certify_method == "target":
        radii = ", ".join(f"{radius:g}" for radius in recorded.ladder)
        can = (
            f"radii {radii} at alpha {recorded.alpha:g} with max_queries {recorded.max_queries:,}, these radii at "
            "any larger alpha, and smaller radii where it did not give up on a picture before they were decided"
        )
    return (
        f"{record.name}: its recorded stream ends after {draws:,} draws, before this question is decided; "
        f"so that nothing is said about any. This run can answer: {can}"
    )
