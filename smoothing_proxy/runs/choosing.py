"""Which settings prove most for a budget: a forecast of each candidate, before anything is spent."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from smoothing_proxy.errors import ConfigError, RunMismatchError
from smoothing_proxy.ledger.reader import LedgerReader
from smoothing_proxy.runs.manifest import check_same_question, describe_question, described_entropy
from smoothing_proxy.smoothing.base_classifier import BaseClassifier
from smoothing_proxy.smoothing.plan import ladder_of, most_draws
from smoothing_proxy.smoothing.settings import Smoothing
from smoothing_proxy.stats.forecast import Forecast, forecast_fixed, forecast_largest, forecast_target
from smoothing_proxy.stats.planning import draws_for_radius
from smoothing_proxy.stats.priors import PUBLISHED, Prior, after_pilot
from smoothing_proxy.types import Votes

__all__ = [
    "CHOSEN",
    "Choice",
    "begun_with",
    "choice_lines",
    "choose",
    "forecast_of",
    "pictures_within",
    "pilot_of",
    "prior_of_run",
]

CHOSEN = ("method", "n0", "n", "max_queries")
"""The settings that a choice makes, besides a ladder of radii where none is given; all others stay the user's."""

MOST_QUERIES = (20, 30, 50, 75, 100, 150, 200, 300, 500, 700, 1000, 1500, 2000, 3000, 5000)
RATIOS = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0)
"""Of a ladder's radii to sigma."""

PILOT = 32

SELECTION = 100
"""The most draws that choose the label of a fixed proof, which else gets a fifth of its draws for that."""

GIVE_UP = 0.8
"""Of the best value so far: below it, no larger candidate is looked at."""

SURE = 1.645
"""Standard deviations: the budget is enough in about 95 of 100 runs."""


@dataclass(frozen=True, slots=True)
class Choice:
    """smoothing: what is best. forecast: of one picture. pictures: how many the budget is enough for.

    value: what is expected to be proven per picture of the folder: the share proven at the target radius, or the
    mean certified radius where there is no single target. candidates: how many were compared.
    """

    smoothing: Smoothing
    forecast: Forecast
    pictures: int
    value: float
    candidates: int


def forecast_of(
    smoothing: Smoothing, prior: Prior, radii: Collection[float] = (0.0,), *, proof_alpha: float | None = None
) -> Forecast:
    """The forecast of CERTIFY with these settings. radii: of which the certified share is wanted; a target
    procedure proves its own radii alone. What two_sided proves beyond the one-sided bound is left out.
    proof_alpha: the level at which the votes are judged in the end, where it is another one; of no target.
    """
    method, alpha, sigma = smoothing.certify_method, smoothing.alpha, smoothing.sigma
    if method == "target":
        return forecast_target(prior, ladder_of(smoothing))
    if method == "fixed":
        level = proof_alpha or alpha
        return forecast_fixed(prior, n0=smoothing.n0, n=smoothing.n, alpha=level, sigma=sigma, radii=[*radii])
    return forecast_largest(
        prior,
        n0=smoothing.n0,
        n_max=smoothing.max_queries,
        alpha=alpha,
        sigma=sigma,
        tolerance=smoothing.tolerance,
        radii=[*radii],
        proof_alpha=proof_alpha,
    )


def pictures_within(forecast: Forecast, pictures: int, limit_queries: float, *, extra: int = 0) -> int:
    """How many of the pictures a budget brings to a verdict, in about 95 of 100 runs.

    extra: further queries of each picture. A picture is begun only if its worst case can be promised, so that the
    last one needs that much to be left.
    """

    def needed(count: int) -> float:
        spread = SURE * forecast.deviation * math.sqrt(count - 1)
        before = (count - 1) * (forecast.mean + extra) + spread
        return min(before, (count - 1) * float(forecast.most + extra)) + forecast.most + extra

    low, high = 0, pictures
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if needed(middle) <= limit_queries else (low, middle - 1)
    return low


def choose(smoothing: Smoothing, prior: Prior, *, pictures: int, limit_queries: int, extra: int = 0) -> Choice:
    """The candidate that proves most within `limit_queries` for all pictures.

    smoothing: sigma, alpha, policy and target radii are kept; with target radii only max_queries is chosen.
    extra: further queries of each picture. Of candidates that prove equally much the cheapest one is chosen.
    Raises ConfigError when the budget is not enough for one picture with any of them.
    """
    choices = []
    for kind in _kinds(smoothing):
        best_of_kind = 0.0
        for candidate in _candidates(smoothing, kind, limit_queries - extra):
            forecast = forecast_of(candidate, prior)
            reached = pictures_within(forecast, pictures, limit_queries, extra=extra)
            value = _value(smoothing, forecast) * reached / max(1, pictures)
            choices.append((candidate, forecast, reached, value))
            best_of_kind = max(best_of_kind, value)
            if value < GIVE_UP * best_of_kind:  # more draws for each picture leave ever fewer pictures
                break
    best = max(choices, key=lambda found: (found[3], found[2], -found[1].mean), default=None)
    if best is None or best[2] == 0:
        raise ConfigError(
            f"a budget of {limit_queries:,} queries is not enough to prove anything about one picture "
            f"at alpha {smoothing.alpha:g}: raise the budget, or ask for a smaller radius"
        )
    return Choice(*best, candidates=len(choices))


def choice_lines(choice: Choice, *, pictures: int, limit_queries: int) -> str:
    """What was chosen and why, for a person."""
    smoothing, forecast = choice.smoothing, choice.forecast
    draws = f"n0 {smoothing.n0}, n {smoothing.n:,}"
    if smoothing.certify_method == "target":
        draws = f"max_queries {smoothing.max_queries:,}, radii {', '.join(f'{r:g}' for r in smoothing.ladder)}"
    elif smoothing.certify_method == "largest":
        draws = f"n0 {smoothing.n0}, max_queries {smoothing.max_queries:,}"
    return (
        f"chosen of {choice.candidates} candidates: method {smoothing.certify_method}, {draws}: "
        f"{forecast.mean:,.0f} draws expected for a picture, so that {limit_queries:,} queries are enough for "
        f"{choice.pictures} of {pictures} pictures in 95 of 100 runs; "
        f"{forecast.proven[0]:.0%} expected to be certified, mean radius {forecast.mean_radius:.4g}"
    )


def begun_with(asked: Smoothing, recorded: Smoothing) -> Smoothing:
    """`asked` with what was chosen when the run began; as it is where it asks for other radii, to be refused."""
    if asked.ladder and asked.ladder != recorded.ladder:
        return asked
    chosen = {key: getattr(recorded, key) for key in (*CHOSEN, "target_radius", "target_radii")}
    return replace(asked, **chosen)


def prior_of_run(
    ledger: LedgerReader,
    smoothing: Smoothing,
    classifier: BaseClassifier,
    *,
    where: str,
    insecure_seed: int | None = None,
) -> Prior:
    """The published prior, with an earlier run's recorded votes as a pilot.

    where: the run's folder, for messages. insecure_seed: of the run whose settings are chosen by it, whose noise
    must be another. Raises ConfigError when the run's draws are of another base classifier or noise level, or of
    the same insecure seed, or when it has none.
    """
    recorded = ledger.manifest()
    pilot = pilot_of(ledger)
    if recorded is None or not pilot:
        raise ConfigError(f"{where}: no draws in it that could be a pilot")
    if insecure_seed is not None and recorded["entropy"] == described_entropy(insecure_seed):
        raise ConfigError(
            f"{where}: its noise was made from --insecure-seed {insecure_seed}, too: settings chosen by draws "
            "that the proof counts again prove nothing; take another seed"
        )
    asked = _about_draws(describe_question(smoothing, classifier, reference=""))
    try:
        check_same_question(_about_draws(recorded), asked, where=where)
    except RunMismatchError as error:
        differences = "\n".join(str(error).splitlines()[1:])
        raise ConfigError(
            f"{where}: its draws say nothing about these settings, under which votes are others:\n{differences}"
        ) from None
    return after_pilot(pilot, PUBLISHED)


def pilot_of(ledger: LedgerReader) -> list[tuple[int, int]]:
    """(votes for the leading label, draws) of every picture that has settled draws."""
    pilot = []
    for record in ledger.pictures():
        votes = Votes.tally(label for number, label in ledger.recall(record.id).votes.items() if number >= 0)
        if votes.n:
            pilot.append((votes.of(votes.top()), votes.n))
    return pilot


def _about_draws(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a question that decides how votes are distributed."""
    smoothing = {key: manifest["smoothing"][key] for key in ("sigma", "working_size")}
    parts = {key: manifest[key] for key in ("denoiser", "backend", "labels", "encoding")}
    return {"smoothing": smoothing, **parts, "price_usd": 0.0}


def _value(asked: Smoothing, forecast: Forecast) -> float:
    if len(asked.ladder) == 1:
        return forecast.proven_at(asked.ladder[0])
    return forecast.mean_radius


def _kinds(asked: Smoothing) -> tuple[str, ...]:
    return ("target",) if asked.ladder else ("target", "largest", "fixed")


def _candidates(asked: Smoothing, kind: str, most: int) -> Iterator[Smoothing]:
    """Of one method, by rising max_queries, as far as `most` queries for a picture reach."""
    for max_queries in MOST_QUERIES:
        candidate = _candidate(asked, kind, max_queries)
        if candidate is not None and most_draws(candidate) <= most:
            yield candidate


def _candidate(asked: Smoothing, kind: str, max_queries: int) -> Smoothing | None:
    """None where so few draws can prove nothing, or not all radii that were asked for."""
    proposal: dict[str, Any] = {"method": kind, "max_queries": max_queries}
    if kind == "fixed":
        proposal.update(n0=min(SELECTION, max(10, max_queries // 5)), n=max_queries)
    elif kind == "largest":
        proposal.update(n0=PILOT)
    else:
        radii = asked.ladder or tuple(ratio * asked.sigma for ratio in RATIOS)
        reached = tuple(
            radius for radius in radii if draws_for_radius(radius, asked.sigma, asked.alpha) <= max_queries
        )
        if not reached or (asked.ladder and reached != radii):
            return None
        proposal.update(target_radius=None, target_radii=reached)
    try:
        return replace(asked, **proposal)
    except ConfigError:  # nothing can be proven with so few draws at this alpha
        return None
