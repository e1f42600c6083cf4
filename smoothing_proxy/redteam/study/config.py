"""A study as frozen settings: which pictures, classifiers, defences and attacks; every cell of its table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    ConfigDict,
    Field,
    JsonValue,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from smoothing_proxy.errors import nearest
from smoothing_proxy.images.noise import MAX_SIGMA
from smoothing_proxy.settings_file import Settings, load_settings
from smoothing_proxy.stats.binomial import lower_bound

__all__ = [
    "LARGEST_SEED",
    "SELF",
    "AttackEntry",
    "ClassifierEntry",
    "DataEntry",
    "DefenceEntry",
    "Row",
    "SmoothingEntry",
    "StudyConfig",
    "evenly",
    "load_study",
]

LARGEST_SEED = 2**63 - 1
"""Generators take 64 bits, and attacks count on from the seed."""

SELF = "self"
"""An attack that is made on each row itself: it knows the defence."""

NAME = r"^[^/|]+$"


class DataEntry(Settings):
    """Which pictures. source: a folder, or a zip of one, whose sub-folders are classes where `labels` is left out.

    labels: a CSV file with the columns `file` and `label_column`. working_size: as of a run; all pictures must
    come out of one size.
    """

    source: Path
    labels: Path | None = None
    label_column: str = "label"
    working_size: str = "original"


class ClassifierEntry(Settings):
    """A classifier by name. network: "local:..." as attacks take it, or "package.module:function", a function that
    returns a torch module (float32 [n, 3, h, w] on [0, 1] to logits [n, k]) and the names of its k classes.

    The further keys are the classifier's own options, or the function's arguments.
    """

    model_config = ConfigDict(extra="allow")

    name: str = Field(pattern=NAME)
    network: str = Field(min_length=1)

    @property
    def options(self) -> dict[str, JsonValue]:
        """All but name and network."""
        return dict(self.model_extra or {})


class SmoothingEntry(Settings):
    """Randomised smoothing. sigma: on the [0, 1] pixel scale. votes: draws behind each answer under attack.

    n0, n, alpha: of CERTIFY, which certify = false leaves out. certify_pictures: at most so many, evenly spread;
    0 takes all. copies: noisy copies behind each gradient of an attack that knows the defence.
    """

    sigma: float = Field(gt=0, le=MAX_SIGMA)
    votes: PositiveInt = 100
    n0: PositiveInt = 100
    n: PositiveInt = 1000
    alpha: float = Field(default=0.001, ge=1e-100, lt=1)
    certify: bool = True
    certify_pictures: NonNegativeInt = 0
    copies: PositiveInt = 8

    @model_validator(mode="after")
    def _can_certify(self) -> SmoothingEntry:
        if self.certify and not lower_bound(self.n, self.n, self.alpha) > 0.5:
            raise ValueError(f"n = {self.n} draws can certify nothing at alpha = {self.alpha:g}; raise n")
        return self


class DefenceEntry(Settings):
    """What stands before the classifier. denoiser: as everywhere. classifiers: a row of the table for each.

    told_sigma: what a denoiser without smoothing is told; only wavelets look at it.
    """

    name: str = Field(pattern=NAME)
    classifiers: tuple[str, ...] = Field(min_length=1)
    denoiser: str = "identity"
    told_sigma: float = Field(default=0.1, gt=0, le=10)
    smoothing: SmoothingEntry | None = None


class AttackEntry(Settings):
    """A column. attack, norm, eps, options, max_queries, surrogate: as of `attack` (eps None: the nearest found).

    made_on: "self", or a row (DEFENCE, or DEFENCE/CLASSIFIER) whose adversarial pictures all rows are shown.
    defences: rows of these alone; none takes all. rounded: to 8 bits, as whoever sends a picture must; off, as in
    works that never round. aims: classes to be reached, drawn by the seed from all but the picture's own (for
    `descend`); without them the attack chooses. bpda: gradients go past a filter as if it were not there (Athalye,
    Carlini, Wagner 2018), which helps where its own say little. pictures: at most so many, spread evenly; 0: all.
    draws: noisy copies behind one query of a smoothed row, of attacks that only ask; 0 takes as many as its votes.
    max_queries: of such attacks, for each picture. eps of an attack that looks for the nearest picture: one that
    is further away does not count, and the row is judged by the picture as it was.
    """

    name: str = Field(pattern=NAME)
    attack: str
    norm: Literal["linf", "l2"] | None = None
    eps: PositiveFloat | None = None
    options: dict[str, JsonValue] = Field(default_factory=dict)
    max_queries: PositiveInt = 1000
    surrogate: str | None = None
    made_on: str = SELF
    defences: tuple[str, ...] = ()
    rounded: bool = True
    aims: bool = False
    bpda: bool = False
    pictures: NonNegativeInt = 0
    draws: NonNegativeInt = 0


class Row(Settings):
    """A row of the table: one defence before one classifier."""

    defence: DefenceEntry
    classifier: ClassifierEntry

    @property
    def name(self) -> str:
        """DEFENCE/CLASSIFIER."""
        return f"{self.defence.name}/{self.classifier.name}"


class StudyConfig(Settings):
    """One table. pictures: at most so many, evenly spread over the sorted names; 0 takes all. seed: of attacks,
    aims and of the noise behind answers, so that a cell that is made again comes out the same.

    radii: l2, [0, 1] pixel scale, where certified accuracy is stated. threads: 0 leaves torch's choice.
    note: a line that goes under the table.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")
    seed: int = Field(default=0, ge=0, le=LARGEST_SEED)
    pictures: NonNegativeInt = 200
    data: DataEntry
    classifiers: tuple[ClassifierEntry, ...] = Field(min_length=1)
    defences: tuple[DefenceEntry, ...] = Field(min_length=1)
    attacks: tuple[AttackEntry, ...] = ()
    radii: tuple[NonNegativeFloat, ...] = (0.0, 0.25, 0.5)
    confidence: float = Field(default=0.95, gt=0, lt=1)
    batch: PositiveInt = 100
    device: str = "cpu"
    threads: NonNegativeInt = 0
    note: str = ""

    @model_validator(mode="after")
    def _consistent(self) -> StudyConfig:
        for what, names in (
            ("classifiers", [one.name for one in self.classifiers]),
            ("defences", [one.name for one in self.defences]),
            ("attacks", [one.name for one in self.attacks]),
        ):
            twice = [name for name, count in Counter(names).items() if count > 1]
            if twice:
                raise ValueError(f"{twice[0]!r} stands twice among the {what}")
        for defence in self.defences:
            for name in defence.classifiers:
                _known("classifier", name, [one.name for one in self.classifiers], f"defence {defence.name!r}")
        for attack in self.attacks:
            self._check_attack(attack)
        return self

    def rows(self) -> list[Row]:
        """In the order of the table."""
        by_name = {one.name: one for one in self.classifiers}
        return [Row(defence=one, classifier=by_name[name]) for one in self.defences for name in one.classifiers]

    def columns(self, row: Row) -> list[AttackEntry]:
        """The attacks that this row meets."""
        return [one for one in self.attacks if not one.defences or row.defence.name in one.defences]

    def maker(self, attack: AttackEntry, row: Row) -> Row:
        """The row whose gradients or answers the attack looks at when it is made for `row`."""
        if attack.made_on == SELF:
            return row
        return next(one for one in self.rows() if attack.made_on in (one.name, one.defence.name))

    def _check_attack(self, attack: AttackEntry) -> None:
        where = f"attack {attack.name!r}"
        for name in attack.defences:
            _known("defence", name, [one.name for one in self.defences], where)
        if attack.surrogate is not None:
            _known("surrogate", attack.surrogate, [one.name for one in self.classifiers], where)
        if attack.made_on != SELF:
            meant = [one.name for one in self.rows() if attack.made_on in (one.name, one.defence.name)]
            if len(meant) > 1:
                raise ValueError(f"{where}: made_on = {attack.made_on!r} is {' or '.join(meant)}; say which")
            if not meant:
                names = [SELF, *(one.name for one in self.rows())]
                raise ValueError(f"{where}: no row {attack.made_on!r}{nearest(attack.made_on, names)}")


def evenly(total: int, count: int) -> list[int]:
    """At most `count` of the indices 0..total-1, evenly spread; 0 takes all."""
    return list(range(total)) if count == 0 or count >= total else [i * total // count for i in range(count)]


def load_study(path: Path, overrides: Iterable[str] = ()) -> StudyConfig:
    """The file's settings. overrides: "pictures=50", "defences.0.told_sigma=0.05"; values as TOML, else text.

    Raises ConfigError with one line per fault: file, key, what was expected.
    """
    return load_settings(StudyConfig, path, overrides)


def _known(what: str, name: str, names: Sequence[Any], where: str) -> None:
    if name not in names:
        raise ValueError(f"{where}: no {what} {name!r}{nearest(name, names)}")
