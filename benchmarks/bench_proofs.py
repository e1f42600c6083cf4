"""What the proofs of docs/proofs.md reach: the tables of that page, exact, or by simulation.

    python benchmarks/bench_proofs.py

Writes the tables into docs/proofs.md, each between its markers. Radii are in units of sigma, alpha is 0.001.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import stats

from smoothing_proxy.stats.binomial import lower_bound
from smoothing_proxy.stats.certificates import certified_radius, certify_votes
from smoothing_proxy.stats.percentile import order_statistic
from smoothing_proxy.stats.reaching import reach_probability
from smoothing_proxy.stats.rounding import rounded_down
from smoothing_proxy.stats.so_far import lower_bound_so_far
from smoothing_proxy.stats.two_sided import certify_either
from smoothing_proxy.types import Votes

DOCS = Path(__file__).resolve().parents[1] / "docs" / "proofs.md"

ALPHA, N0, N = 0.001, 100, 1000
TRIALS = 500
"""Pictures for each line of the simulated table."""

SPREADS = ((0.95, 1), (0.95, 4), (0.8, 4), (0.6, 2), (0.6, 4), (0.5, 4), (0.4, 10))
"""p_A, and over how many other labels the rest is spread evenly."""

CLAIMS = (1, 3, 10, 30)
VOTES = (1000, 950, 800)
DRAWS = (12, 20, 50, 100, 300, 1000)
PEEKED = 250

Rows = list[list[float]]


def two_sided_rows(trials: int = TRIALS) -> Rows:
    """p_A, others, mean radius with one bound, and with either; 0.0 where nothing is proven. Simulated."""
    rng = np.random.default_rng(0)
    rows = []
    for p, others in SPREADS:
        shares = np.array([p] + [(1.0 - p) / others] * others)
        drawn = [(_votes(rng, N0, shares), _votes(rng, N, shares)) for _ in range(trials)]
        one = [certify_votes(votes, first.top(), sigma=1.0, alpha=ALPHA).radius for first, votes in drawn]
        either = [certify_either(votes, first, sigma=1.0, alpha=ALPHA).radius for first, votes in drawn]
        rows.append([p, others, float(np.mean(one)), float(np.mean(either))])
    return rows


def _votes(rng: np.random.Generator, n: int, shares: npt.NDArray[np.float64]) -> Votes:
    return Votes({f"label {i}": int(count) for i, count in enumerate(rng.multinomial(n, shares))})


def claim_rows() -> Rows:
    """Claims that share alpha, and the radius at each of VOTES. Exact."""
    return [[m, *(certified_radius(lower_bound(k, N, ALPHA / m), 1.0) for k in VOTES)] for m in CLAIMS]


def anytime_rows() -> Rows:
    """The radius when all of DRAWS agree: of a fixed number, and of any number. Exact."""
    bounds = (lower_bound, lower_bound_so_far)
    return [[certified_radius(bound(n, n, ALPHA), 1.0) for n in DRAWS] for bound in bounds]


def peeking_factor() -> float:
    """By what factor Clopper-Pearson is false at some of PEEKED draws rather than at a fixed one. Exact."""
    n = np.arange(PEEKED + 1)
    worst = 0.0
    for p in (0.5, 0.6, 0.8, 0.95):
        up: npt.NDArray[np.int64] = np.maximum(stats.binom.isf(ALPHA, n, p) + 1, 1).astype(np.int64)
        worst = max(worst, reach_probability(p, up) / ALPHA)
    return worst


def tables(two_sided: Rows) -> dict[str, str]:
    """The tables of docs/proofs.md, by the name of their markers."""
    return {
        "two-sided": table(
            ("p_A", "others", "one bound", "either"),
            (
                (f"{p:.2f}", f"{others:.0f}", _or_abstains(one), _or_abstains(both))
                for p, others, one, both in two_sided
            ),
        ),
        "claims": table(
            ("claims", f"{VOTES[0]} of {N}", *(f"{k}" for k in VOTES[1:])),
            ((f"{row[0]:.0f}", *(rounded_down(radius, 2) for radius in row[1:])) for row in claim_rows()),
        ),
        "any time": table(
            ("draws", *(f"{n}" for n in DRAWS)),
            (
                (name, *(rounded_down(radius, 2) for radius in row))
                for name, row in zip(("fixed number", "at any time"), anytime_rows(), strict=True)
            ),
        ),
    }


def sentences() -> list[str]:
    """What the page says in words, as it would have to be said today."""
    fewest = [next(n for n in range(1, 200) if order_statistic(n, ratio, 1.0, ALPHA)) for ratio in (0.0, 0.5, 1.0)]
    return [
        f"{fewest[0]} are needed for a radius of 0, {fewest[1]} for sigma / 2, {fewest[2]} for sigma",
        f"Clopper-Pearson would be false with up to {peeking_factor():.0f} times alpha ({PEEKED} draws",
    ]


def _or_abstains(radius: float) -> str:
    return f"{radius:.2f}" if radius > 0.005 else "abstains"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    return "\n".join(f"| {' | '.join(line)} |" for line in (header, ["---"] * len(header), *rows))


def with_tables(text: str, made: dict[str, str]) -> str:
    """The page with each table put between its markers, `<!-- NAME -->` and `<!-- end NAME -->`.

    Raises ValueError where a marker is missing.
    """
    for name, lines in made.items():
        begin, end = f"<!-- {name} -->\n", f"<!-- end {name} -->"
        start = text.index(begin) + len(begin)
        text = text[:start] + lines + "\n" + text[text.index(end, start) :]
    return text


def missing(text: str) -> list[str]:
    """The sentences that the page does not say, however its lines are broken."""
    return [sentence for sentence in sentences() if sentence not in " ".join(text.split())]


def main() -> None:
    """Compute, re-make the page's tables, and say which of its sentences are no longer right."""
    made = tables(two_sided_rows())
    text = with_tables(DOCS.read_text(encoding="utf-8"), made)
    DOCS.write_text(text, encoding="utf-8")
    for sentence in missing(text):
        print(f"to be said in {DOCS.name}: {sentence}")
    for name, lines in made.items():
        print(f"{name}\n{lines}\n")


if __name__ == "__main__":
    main()
