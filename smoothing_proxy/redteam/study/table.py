"""A study's cells as lines with intervals, and these as Markdown and CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from smoothing_proxy.redteam.study.cells import CERTIFIED, CLEAN, Cell
from smoothing_proxy.redteam.study.config import SELF, AttackEntry, Row, StudyConfig, evenly
from smoothing_proxy.redteam.study.making import copies_behind
from smoothing_proxy.redteam.study.notes import notes_of
from smoothing_proxy.redteam.study.verdicts import decided
from smoothing_proxy.stats.curves import Share, share_of

__all__ = ["Finder", "Line", "csv_text", "lines_of", "markdown"]

COSTS = (
    "by_proof queries_per_answer ms_per_answer "
    "queries_per_attacked_picture copies_per_attack_query ms_per_attacked_picture"
)

Finder = Callable[[Row, "AttackEntry | str"], "Cell | None"]
"""The cell of a row and a column; None where it is not finished."""


@dataclass(frozen=True)
class Line:
    """One figure of the table. column: "clean", "certified 0.25" or the attack's name. accuracy: of the answers.

    attack: as it is known to `attack`; "" without one. made_on: the row whose defence it knew.
    l2: mean distance over the pictures that it had to change, NaN where there is none. reached: the share of them
    that it turned, as it saw it. score: clean accuracy times l2, for attacks with aims, else NaN.
    before, theirs: accuracy of the row, and of that which it was made on, on the same pictures without the attack.
    queries, ms: of the defence for one answer. asked, took_ms: of the attack for each picture. draws: noisy copies
    behind each query or pass of the attack. by_proof: of the right answers, those that a certificate decides.
    broken: proofs that the attack broke.
    """

    row: Row
    column: str
    accuracy: Share
    attack: str = ""
    made_on: str = ""
    l2: float = math.nan
    reached: Share | None = None
    score: float = math.nan
    before: float = math.nan
    theirs: float = math.nan
    queries: int = 0
    asked: float = math.nan
    draws: int = 1
    took_ms: float = math.nan
    ms: float = math.nan
    by_proof: int = 0
    broken: int = 0


def lines_of(config: StudyConfig, find: Finder) -> list[Line]:
    """Every finished figure, row by row."""
    lines: list[Line] = []
    for row in config.rows():
        clean = find(row, CLEAN)
        if clean is not None:
            right, by_proof = _clean(row, find)
            share = _share(right, config)
            lines.append(Line(row, CLEAN, share, queries=clean.queries, ms=clean.ms, by_proof=by_proof))
        met = [attack for attack in config.columns(row) if find(row, attack) is not None]
        lines += [_attacked(config, row, attack, find) for attack in met]
        lines += _certified(config, row, find)
    return lines


def markdown(config: StudyConfig, lines: Sequence[Line], pictures: int) -> str:
    """Tables: accuracy in % with its interval, what the attacks took, and falls under attacks made elsewhere."""
    percent = f"{100 * config.confidence:g} %"
    head = (
        f"# {config.name}\n\n{pictures} pictures of {config.data.source.name}, seed {config.seed}; "
        f"accuracy in % with {percent} Clopper-Pearson intervals; distances are l2 on the [0, 1] scale.\n"
    )
    fewer = {line.column: line.accuracy.total for line in lines if line.accuracy.total < pictures}
    if fewer:
        head += f"On fewer of these pictures: {', '.join(f'{name} ({count})' for name, count in fewer.items())}.\n"
    proven = [f"{line.row.name}, {line.column} ({line.by_proof})" for line in lines if line.by_proof]
    if proven:
        head += f"Right by a certificate that covers the change, against a chance majority: {'; '.join(proven)}.\n"
    broken = [f"{line.row.name}, {line.column} ({line.broken})" for line in lines if line.broken]
    if broken:
        head += f"**Proofs that an attack broke: {'; '.join(broken)}.**\n"
    parts = [head, _accuracies(config, lines), notes_of(config), _efforts(lines), _falls(config, lines)]
    return "\n".join(part for part in [*parts, f"{config.note}\n" if config.note else ""] if part)


def csv_text(lines: Iterable[Line]) -> str:
    """One row per figure; numbers that there are not are empty."""
    stream = io.StringIO()
    table = csv.writer(stream, lineterminator="\n")
    names = (
        "defence classifier column attack made_on accuracy low high right pictures mean_l2 reached attacked score"
    )
    table.writerow([*names.split(), *COSTS.split()])
    for line in lines:
        share, reached = line.accuracy, line.reached
        table.writerow(
            [
                *(line.row.defence.name, line.row.classifier.name, line.column, line.attack, line.made_on),
                *(f"{value:.6f}" for value in (share.value, share.low, share.high)),
                *(share.count, share.total, _number(line.l2)),
                *(("", "") if reached is None else (reached.count, reached.total)),
                *(_number(line.score), line.by_proof, line.queries, _number(line.ms)),
                *((_number(line.asked), line.draws, _number(line.took_ms)) if line.attack else ("", "", "")),
            ]
        )
    return stream.getvalue()


def _attacked(config: StudyConfig, row: Row, attack: AttackEntry, find: Finder) -> Line:
    cell, clean, maker = find(row, attack), find(row, CLEAN), config.maker(attack, row)
    assert cell is not None
    right, by_proof = list(cell.right), 0
    if clean is not None:
        many, certified = len(clean.right), find(row, CERTIFIED)
        right, by_proof = decided(
            row, right, cell.l2, certified, pictures=many, shown=attack.pictures, broken=cell.broken
        )
    before = _on(_clean(row, find)[0], attack)
    far = [l2 for l2, had_to in zip(cell.l2, cell.attacked, strict=True) if had_to]
    mean = _mean(far) if far else math.nan
    return Line(
        row,
        attack.name,
        _share(right, config),
        attack=attack.attack,
        made_on=maker.name,
        l2=mean,
        reached=share_of(cell.reached, len(far), confidence=config.confidence) if far else None,
        score=before * mean if attack.aims else math.nan,
        before=before,
        theirs=_on(_clean(maker, find)[0], attack),
        queries=1 if row.defence.smoothing is None else row.defence.smoothing.votes,
        asked=cell.queries / len(cell.right),
        draws=copies_behind(attack, maker.defence),
        took_ms=1000 * cell.seconds / len(cell.right),
        by_proof=by_proof,
        broken=len(cell.broken),
    )


def _clean(row: Row, find: Finder) -> tuple[list[bool], int]:
    """The row's answers to the pictures as they are; none where they are not known."""
    cell = find(row, CLEAN)
    if cell is None:
        return [], 0
    many = len(cell.right)
    return decided(row, cell.right, [0.0] * many, find(row, CERTIFIED), pictures=many, shown=0)


def _on(clean: Sequence[bool], attack: AttackEntry) -> float:
    """Accuracy on the attack's pictures without it; NaN where it is not known."""
    return _mean([clean[i] for i in evenly(len(clean), attack.pictures)]) if clean else math.nan


def _certified(config: StudyConfig, row: Row, find: Finder) -> list[Line]:
    cell = find(row, CERTIFIED) if row.defence.smoothing is not None else None
    if cell is None:
        return []
    return [
        Line(
            row,
            f"{CERTIFIED} {radius:g}",
            _share([right and far >= radius for right, far in zip(cell.right, cell.l2, strict=True)], config),
            queries=cell.queries,
            ms=cell.ms,
        )
        for radius in config.radii
    ]


def _accuracies(config: StudyConfig, lines: Sequence[Line]) -> str:
    columns = [CLEAN, *(one.name for one in config.attacks), *(f"{CERTIFIED} {r:g}" for r in config.radii)]
    found = {(line.row.name, line.column): line for line in lines}
    columns = [name for name in columns if any(line.column == name for line in lines)]
    rows = []
    for row in config.rows():
        cells = [found.get((row.name, name)) for name in columns]
        clean = found.get((row.name, CLEAN))
        cost = ["", ""] if clean is None else [f"{clean.queries:,}", f"{clean.ms:.3g}"]
        rows.append(
            [
                row.defence.name,
                row.classifier.name,
                *("" if one is None else _shown(one.accuracy) for one in cells),
                *cost,
            ]
        )
    return _table(["defence", "classifier", *columns, "queries", "ms"], rows, left=2)


def _efforts(lines: Sequence[Line]) -> str:
    """What each attack came to, on the row that it was made on."""
    attacks = [line for line in lines if line.attack and line.made_on == line.row.name]
    if not attacks:
        return ""
    rows = [
        [
            *(line.column, line.attack, line.made_on),
            "" if line.reached is None else _shown(line.reached),
            *(_number(line.l2, 3), _number(line.score, 3), _number(line.asked, 0), f"{line.draws}"),
            _number(line.took_ms, 0),
        ]
        for line in attacks
    ]
    text = (
        "Each attack on the row that it was made on. Turned: in % of the pictures that were right before. "
        "Score: clean accuracy x mean l2, where the attack aims at a drawn class. Queries (of attacks with "
        "gradients: passes), noisy copies behind each, and ms: for each picture.\n\n"
    )
    heads = ["attack", "kind", "made on", "turned", "mean l2", "score", "queries", "copies", "ms"]
    return text + _table(heads, rows, left=3)


def _falls(config: StudyConfig, lines: Sequence[Line]) -> str:
    """By how many points each row falls under the attacks that are made on one row for all."""
    elsewhere = {one.name: one.made_on for one in config.attacks if one.made_on != SELF}
    rows = []
    for row in config.rows():
        under = [line for line in lines if line.row.name == row.name and line.column in elsewhere]
        if under:
            own = [100 * (line.before - line.accuracy.value) for line in under]
            theirs = [100 * (line.theirs - line.accuracy.value) for line in under]
            shown = [f"{value:.1f}" for falls in (own, theirs) for value in (_mean(falls), max(falls))]
            rows.append([row.defence.name, row.classifier.name, *shown])
    if not rows:
        return ""
    text = (
        "Points lost to the attacks that are made on one row for all: mean and largest, under the row's own clean "
        "accuracy, and under that of the row that they were made on.\n\n"
    )
    heads = ["defence", "classifier", "mean, own", "largest, own", "mean, of theirs", "largest, of theirs"]
    return text + _table(heads, rows, left=2)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, left: int) -> str:
    marks = ["---"] * left + ["---:"] * (len(heads) - left)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [heads, marks, *rows]) + "\n"


def _share(right: Sequence[bool], config: StudyConfig) -> Share:
    return share_of(sum(right), len(right), confidence=config.confidence)


def _shown(share: Share) -> str:
    return f"{100 * share.value:.1f} [{100 * share.low:.1f}, {100 * share.high:.1f}]"


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _number(value: float, digits: int = 6) -> str:
    return "" if math.isnan(value) else f"{value:.{digits}f}"
