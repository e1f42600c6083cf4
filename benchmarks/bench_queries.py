"""How many queries a proof costs, on the published logs of Cohen et al.: exact, or by simulation.

    python benchmarks/bench_queries.py [--logs shared/data/cohen-logs]

Writes benchmarks/results/queries.json, and from it the tables of docs/queries.md. Without the logs, nothing.
"""

from __future__ import annotations

import argparse
import bisect
import csv
import json
import os
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import stats
from scipy.special import ndtr

from smoothing_proxy.runs.manifest import software_versions
from smoothing_proxy.smoothing.boundaries import cached_boundary
from smoothing_proxy.smoothing.plan import certify_plan
from smoothing_proxy.smoothing.settings import Smoothing
from smoothing_proxy.stats.binomial import lower_bound
from smoothing_proxy.stats.certificates import required_probability
from smoothing_proxy.stats.forecast import forecast_fixed, forecast_largest, forecast_predict, forecast_target
from smoothing_proxy.stats.priors import Prior
from smoothing_proxy.stats.reaching import reach_probability
from smoothing_proxy.stats.sequential import Boundary, giving_up, mixture_boundary
from smoothing_proxy.types import Draws, Votes

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "queries.json"
DOCS = ROOT / "docs" / "queries.md"
LOGS = ROOT.parent / "shared" / "data" / "cohen-logs"

ALPHA, N0, N_PUBLISHED = 0.001, 100, 100_000
LOG = "cifar10_resnet110_sigma_0.25"
ALPHAS = (0.01, 0.001)
"""Of the log: what its radii were made with, and what the paper says."""

STUDY: dict[str, tuple[float, float, float]] = {
    "1000 .25": (0.819, 0.816, 90),
    "1000 .5": (0.742, 0.739, 95),
    "1000 1": (0.620, 0.617, 99),
    "1000 1.5": (0.510, 0.507, 133),
    "1000 2": (0.397, 0.389, 208),
    "10000 1, mixture": (0.641, 0.639, 250),
}
"""What it must reach: fixed certifies, ours certifies, mean queries."""

LARGEST_STUDY = {(1000, 0.1): (0.89, 463), (10_000, 0.2): (0.77, 935)}
PREDICT_STUDY = {"median": 12, "mean": 133, "abstains": 0.09}

Row = dict[str, Any]


def published_prior(folder: Path, log: str = LOG, log_alpha: float = ALPHAS[0]) -> Prior:
    """p_A of each picture of a log: the share of votes whose bound at log_alpha gives the logged radius.

    Abstained pictures, of which the log says nothing, are spread evenly over 1/4 to 1/2.
    """
    with (folder / f"{log}.tsv").open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    sigma = float(log.rsplit("_", 1)[1])

    @cache
    def share(radius: float) -> float:
        p_lower = float(ndtr(radius / sigma))
        votes = bisect.bisect_left(
            range(N_PUBLISHED), p_lower, lo=N_PUBLISHED // 2, key=lambda k: lower_bound(k, N_PUBLISHED, log_alpha)
        )
        return votes / N_PUBLISHED

    known = [share(float(row["radius"])) for row in rows if row["predict"] != "-1"]
    abstained = len(rows) - len(known)
    return Prior.of([*known, *(0.25 + 0.25 * (np.arange(abstained) + 0.5) / max(1, abstained))], log)


def target_row(prior: Prior, ratio: float, n_max: int, *, mixture: bool = False) -> Row:
    """One row of the table: exact. mixture: the boundary that is valid without an end, with no last look."""
    p0 = required_probability(ratio, 1.0)
    made = mixture_of(p0, n_max) if mixture else cached_boundary(p0, ALPHA, n_max)
    ours = forecast_target(prior, [(ratio, made)])
    fixed = forecast_fixed(prior, n0=N0, n=n_max, alpha=ALPHA, sigma=1.0, radii=[ratio])
    return {
        "n_max": n_max,
        "ratio": ratio,
        "boundary": "mixture" if mixture else "calibrated",
        "fixed_certifies": fixed.proven_at(ratio),
        "certifies": ours.proven_at(ratio),
        "queries": ours.mean,
        "median": ours.quantile(0.5),
        "nine_of_ten": ours.quantile(0.9),
        "saving": fixed.mean / ours.mean,
        "error": made.error,
    }


def mixture_of(p0: float, n_max: int) -> Boundary:
    """Without calibration and last look."""
    up = mixture_boundary(n_max, p0, ALPHA)
    return Boundary(p0, ALPHA, n_max, up, giving_up(up), error=ALPHA)


def target_rows(prior: Prior) -> list[Row]:
    """The table "what it must reach", each row beside what the study found."""
    rows = [target_row(prior, ratio, 1000) for ratio in (0.25, 0.5, 1.0, 1.5, 2.0)]
    rows += [target_row(prior, 1.0, 10_000, mixture=True), target_row(prior, 1.0, 10_000)]
    for row, (fixed, certifies, queries) in zip(rows, STUDY.values(), strict=False):
        row["study"] = {"fixed_certifies": fixed, "certifies": certifies, "queries": queries}
        row["deviation"] = _deviation(row)
    return rows


def largest_rows(prior: Prior) -> list[Row]:
    """Pilot and one proof, against one fixed proof by as many draws; and a plain fixed n = 300. Exact."""
    rows: list[Row] = []
    for (n_max, tolerance), (share, queries) in LARGEST_STUDY.items():
        full = forecast_fixed(prior, n0=N0, n=n_max, alpha=ALPHA, sigma=1.0)
        for n0 in (24, 32):
            found = forecast_largest(prior, n0=n0, n_max=n_max, alpha=ALPHA, sigma=1.0, tolerance=tolerance)
            rows.append({
                "n_max": n_max, "tolerance": tolerance, "n0": n0, "queries": found.mean,
                "fixed_queries": full.mean,
                "radius": found.mean_radius / full.mean_radius, "study": {"radius": share, "queries": queries},
            })  # fmt: skip
    full = forecast_fixed(prior, n0=N0, n=1000, alpha=ALPHA, sigma=1.0)
    plain = forecast_fixed(prior, n0=N0, n=300, alpha=ALPHA, sigma=1.0)
    rows.append({
        "n_max": 300, "tolerance": None, "n0": N0, "queries": plain.mean, "fixed_queries": full.mean,
        "radius": plain.mean_radius / full.mean_radius, "study": {"radius": 0.83, "queries": 400},
    })  # fmt: skip
    for row in rows:
        row["deviation"] = _deviation(row)
    return rows


def _deviation(row: Row) -> Row:
    """Relative to what the study found."""
    return {key: row[key] / wanted - 1.0 for key, wanted in row["study"].items()}


def predict_row(prior: Prior, trials: int) -> Row:
    """The sequential PREDICT at most 1000 draws, by simulation."""
    rng = np.random.default_rng(1)
    found = forecast_predict(prior, alpha=ALPHA, max_queries=1000, rng=rng, trials=trials)
    row: Row = {
        "median": found.quantile(0.5), "mean": found.mean, "abstains": 1.0 - float(found.proven[0]),
        "trials": trials * len(prior.p), "runner_up": 0.75, "study": PREDICT_STUDY,
    }  # fmt: skip
    return row | {"deviation": _deviation(row)}


class Clock:
    """Answers a plan as the sampler does: draws take a random time each, and are told in the order of issue.

    Votes that are not for the picture's most likely label are each for another one, as in the exact figures.
    """

    def __init__(self, p: float, rng: np.random.Generator) -> None:
        self._p, self._rng = p, rng
        self._finish: list[float] = []
        self.told = 0
        self.now = 0.0

    @property
    def issued(self) -> int:
        """All draws that were sent, needed or not."""
        return len(self._finish)

    def __call__(self, request: Draws) -> Votes:
        """The next votes, once they are there."""
        fresh = self.told + request.count - self.issued
        if fresh > 0:
            self._finish += (self.now + self._rng.exponential(1.0, fresh)).tolist()
        end = self.told + request.answered
        self.now = max(self.now, *self._finish[self.told : end])
        votes = (self._rng.random(end - self.told) < self._p).tolist()
        self.told = end
        return Votes.tally("label" if vote else f"other {end + i}" for i, vote in enumerate(votes))


def in_flight_rows(prior: Prior, trials: int) -> list[Row]:
    """What having 32 draws in flight costs, and how long a verdict takes, in mean latencies of one draw."""
    rows = []
    policies: tuple[Literal["cost", "latency"], ...] = ("cost", "latency")
    for policy in policies:
        for ratio in (0.25, 1.0):
            smoothing = Smoothing(sigma=1.0, alpha=ALPHA, target_radius=ratio, policy=policy, lookahead=32)
            told, issued, waited = _in_flight(prior, smoothing, trials)
            rows.append({
                "policy": policy, "ratio": ratio, "needed": told, "sent": issued, "overshoot": issued / told - 1.0,
                "latencies": waited, "trials": trials,
            })  # fmt: skip
    return rows


def _in_flight(prior: Prior, smoothing: Smoothing, trials: int) -> tuple[float, float, float]:
    rng = np.random.default_rng(2)
    clocks = []
    for p in rng.choice(prior.p, trials, p=prior.weight):
        clocks.append(clock := Clock(float(p), rng))
        plan = certify_plan(smoothing)
        request = next(plan)
        try:
            while True:
                request = plan.send(clock(request))
        except StopIteration:
            pass
    means = np.mean([(clock.told, clock.issued, clock.now) for clock in clocks], axis=0)
    return float(means[0]), float(means[1]), float(means[2])


def peeking_rows() -> list[Row]:
    """The exact error of stopping as soon as Clopper-Pearson, looked at after every draw, would certify."""
    rows = []
    for ratio in (0.0, 0.25, 1.0):
        p0 = required_probability(ratio, 1.0)
        n = np.arange(1001)
        up: npt.NDArray[np.int64] = np.maximum(stats.binom.isf(ALPHA, n, p0) + 1, 1).astype(np.int64)
        peeked = reach_probability(p0, up) + reach_probability(1 - p0, up)
        rows.append(
            {"ratio": ratio, "n_max": 1000, "peeking": peeked, "ours": cached_boundary(p0, ALPHA, 1000).error}
        )
    return rows


def report(folder: Path, trials: int) -> Mapping[str, Any]:
    """All figures."""
    prior = published_prior(folder)
    other = published_prior(folder, log_alpha=ALPHAS[1])
    began = time.perf_counter()
    return {
        "what": f"{LOG}, alpha {ALPHA}, radii in units of sigma; p_A from the log at its own alpha {ALPHAS[0]:g}",
        "target": target_rows(prior),
        "target_inverted_at_0.001": target_rows(other)[:5],
        "largest": largest_rows(prior),
        "predict": predict_row(prior, max(1, trials // 250)),
        "in_flight": in_flight_rows(prior, trials),
        "peeking": peeking_rows(),
        "machine": {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "seconds": round(time.perf_counter() - began, 1),
        "software": software_versions(),
    }


def tables(found: Mapping[str, Any]) -> dict[str, str]:
    """The tables of docs/queries.md, by the name of their markers."""
    return {
        "target": table(
            ("N_max", "r/sigma", "fixed certifies", "ours certifies", "mean queries", "median", "saving", "study"),
            ((
                f"{row['n_max']:,}{', no last look' if row['boundary'] == 'mixture' else ''}", f"{row['ratio']:g}",
                f"{row['fixed_certifies']:.3f}", f"{row['certifies']:.3f}", f"{row['queries']:.0f}",
                f"{row['median']}", f"{row['saving']:.1f}x", _study(row),
            ) for row in found["target"]),
        ),
        "inversions": table(
            ("r/sigma", "certifies, log at 0.01", "at 0.001", "mean queries, log at 0.01", "at 0.001"),
            ((
                f"{a['ratio']:g}", f"{a['certifies']:.4f}", f"{b['certifies']:.4f}", f"{a['queries']:.1f}",
                f"{b['queries']:.1f}",
            ) for a, b in zip(found["target"], found["target_inverted_at_0.001"], strict=False)),
        ),
        "largest": table(
            ("draws at most", "tolerance", "pilot", "mean queries", "share of the full radius", "study"),
            ((
                f"{row['n_max']:,}", "fixed" if row["tolerance"] is None else f"{row['tolerance']:.0%}",
                f"{row['n0']}", f"{row['queries']:.0f} of {row['fixed_queries']:,.0f}", f"{row['radius']:.1%}",
                f"{row['study']['radius']:.0%} for {row['study']['queries']}",
            ) for row in found["largest"]),
        ),
        "predict": table(
            ("", "median queries", "mean queries", "abstains"),
            ((
                name, f"{row['median']}", f"{row['mean']:.0f}", f"{row['abstains']:.1%}",
            ) for name, row in (("measured", found["predict"]), ("study", found["predict"]["study"]))),
        ),
        "in flight": table(
            ("policy", "r/sigma", "needed", "sent", "overshoot", "time, in mean latencies"),
            ((
                row["policy"], f"{row['ratio']:g}", f"{row['needed']:.1f}", f"{row['sent']:.1f}",
                f"{row['overshoot']:.1%}", f"{row['latencies']:.1f}",
            ) for row in found["in_flight"]),
        ),
        "peeking": table(
            ("r/sigma", "error of peeking", "error of ours", "promised"),
            ((
                f"{row['ratio']:g}", f"{row['peeking']:.2e}", f"{row['ours']:.2e}", f"{ALPHA:.2e}",
            ) for row in found["peeking"]),
        ),
    }  # fmt: skip


def _study(row: Mapping[str, Any]) -> str:
    if "study" not in row:
        return ""
    study = row["study"]
    return f"{study['fixed_certifies']:.3f} / {study['certifies']:.3f} / {study['queries']}"


def table(header: Sequence[str], rows: Iterator[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def with_tables(text: str, found: Mapping[str, Any]) -> str:
    """The page with each table put between its markers, `<!-- NAME -->` and `<!-- end NAME -->`.

    Raises ValueError where a marker is missing.
    """
    for name, made in tables(found).items():
        begin, end = f"<!-- {name} -->\n", f"<!-- end {name} -->"
        start = text.index(begin) + len(begin)
        text = text[:start] + made + "\n" + text[text.index(end, start) :]
    return text


def main() -> None:
    """Measure, write the JSON, re-make the page's tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--logs", type=Path, default=LOGS, help="the folder of the published logs")
    parser.add_argument("--trials", type=int, default=5000, help="pictures of each simulation")
    options = parser.parse_args()
    if not (options.logs / f"{LOG}.tsv").is_file():
        print(f"no published logs at {options.logs}: nothing measured (--logs FOLDER)")
        return
    found = report(options.logs, options.trials)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    DOCS.write_text(with_tables(DOCS.read_text(encoding="utf-8"), found), encoding="utf-8")
    for name, made in tables(found).items():
        print(f"{name}\n{made}\n")


if __name__ == "__main__":
    main()
