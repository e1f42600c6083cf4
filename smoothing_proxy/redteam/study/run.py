"""A study from its settings to its cells: everything is checked first, then what is not on disk yet is made."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from smoothing_proxy.denoisers.registry import denoiser
from smoothing_proxy.errors import ConfigError, SmoothingProxyError
from smoothing_proxy.redteam.attacks.registry import attack_named
from smoothing_proxy.redteam.attacks.run import check_side
from smoothing_proxy.redteam.grid import Pictures, check_norm, distances
from smoothing_proxy.redteam.study.cells import CERTIFIED, CLEAN, Adversarial, Cell, CellStore, digest
from smoothing_proxy.redteam.study.config import AttackEntry, Row, StudyConfig
from smoothing_proxy.redteam.study.making import check_attack, make
from smoothing_proxy.redteam.study.networks import Opened, open_network
from smoothing_proxy.redteam.study.pictures import Gallery, read_gallery
from smoothing_proxy.redteam.study.pipelines import Pipeline
from smoothing_proxy.redteam.study.verdicts import covered
from smoothing_proxy.stats.binomial import lower_bound

__all__ = ["Study", "prepare"]

Judged = npt.NDArray[np.bool_]

SLACK = 1.0 + 1e-5
"""For an eps that is a whole number of levels, written with few digits."""

DOUBT = 1e-6
"""The chance at which votes against a proof are no chance any more."""


@dataclass(frozen=True)
class Study:
    """Ready to run. networks: by classifier's name. pipelines: by row's name."""

    config: StudyConfig
    gallery: Gallery
    networks: dict[str, Opened]
    pipelines: dict[str, Pipeline]

    def cells(self) -> list[tuple[Row, AttackEntry | str]]:
        """Every cell of the table, row by row: clean, certified where that can be, and each attack."""
        found: list[tuple[Row, AttackEntry | str]] = []
        for row in self.config.rows():
            found.append((row, CLEAN))
            if row.defence.smoothing is not None and row.defence.smoothing.certify:
                found.append((row, CERTIFIED))
            found += [(row, attack) for attack in self.config.columns(row)]
        return found

    def run(self, store: CellStore, told: Callable[[str], object] = lambda _: None) -> None:
        """Make the cells that `store` does not hold. told: is given a line as each one is finished."""
        cells = self.cells()
        for number, (row, what) in enumerate(cells, 1):
            key = self.key(row, what)
            if store.get(key) is not None:
                continue
            name = what if isinstance(what, str) else what.name
            began = time.perf_counter()
            cell = self._made(row, what, store)
            store.put(key, cell, {"row": row.name, "column": name})
            right = 100 * sum(cell.right) / len(cell.right)
            seconds = time.perf_counter() - began
            told(f"{number}/{len(cells)} {row.name} | {name}: {right:.1f} % right, {seconds:.0f} s")

    def key(self, row: Row, what: AttackEntry | str) -> str:
        """Of all that decides the cell."""
        if isinstance(what, str):
            return digest(what, self._row(row), self.gallery.digest(), self.config.seed)
        return digest("judged", self._row(row), self._attack_key(what, self.config.maker(what, row)))

    def _attack_key(self, attack: AttackEntry, maker: Row) -> str:
        named = {"name", "made_on", "defences", "surrogate"}
        settings = attack.model_dump(mode="json", exclude=named, exclude_defaults=True)
        surrogate = self.networks[attack.surrogate].identity if attack.surrogate else None
        return digest("made", self._row(maker), settings, surrogate, self.gallery.digest(), self.config.seed)

    def _row(self, row: Row) -> list[Any]:
        """What the row answers, whatever it is called."""
        settings = row.defence.model_dump(mode="json", exclude={"name", "classifiers", "denoiser"})
        fingerprint = self.pipelines[row.name].denoiser.fingerprint
        if fingerprint == "identity":
            settings.pop("told_sigma")
        return [self.networks[row.classifier.name].identity, fingerprint, settings]

    def _made(self, row: Row, what: AttackEntry | str, store: CellStore) -> Cell:
        if what == CLEAN:
            return self._clean(row)
        if isinstance(what, str):
            return self._certified(row)
        return self._attacked(row, what, store)

    def _clean(self, row: Row) -> Cell:
        pipeline, labels = self.pipelines[row.name], self._labels(row)
        began = time.perf_counter()
        answers = pipeline.answers(self.gallery.pictures, range(len(self.gallery)))
        ms = 1000 * (time.perf_counter() - began) / len(labels)
        return Cell(CLEAN, _flags(answers == labels), queries=pipeline.queries, ms=ms)

    def _certified(self, row: Row) -> Cell:
        pipeline, labels, smoothing = self.pipelines[row.name], self._labels(row), row.defence.smoothing
        assert smoothing is not None
        chosen = self.gallery.evenly(smoothing.certify_pictures)
        began = time.perf_counter()
        found = [pipeline.certificate(self.gallery.pictures[i], i) for i in chosen]
        ms = 1000 * (time.perf_counter() - began) / len(chosen)
        right = tuple(one.label == str(labels[i]) for one, i in zip(found, chosen, strict=True))
        queries = smoothing.n0 + smoothing.n
        return Cell(CERTIFIED, right, l2=tuple(one.radius for one in found), queries=queries, ms=ms)

    def _attacked(self, row: Row, attack: AttackEntry, store: CellStore) -> Cell:
        chosen = self.gallery.evenly(attack.pictures)
        made = self._adversarial(row, attack, chosen, store)
        clean, labels = self.gallery.pictures[chosen], self._labels(row)[chosen]
        beyond = _beyond(attack, made.pictures, clean)
        shown = np.where(beyond[:, None, None, None], clean, made.pictures)
        answers = self.pipelines[row.name].answers(shown, chosen)
        broken = self._broken_proofs(row, shown, chosen, np.flatnonzero(answers != labels), store)
        far = distances(made.pictures, clean, "l2")
        return Cell(
            kind="attack",
            right=_flags(answers == labels),
            l2=tuple(round(float(one), 6) for one in far),
            attacked=_flags(made.attacked),
            reached=int(np.count_nonzero(made.reached & made.attacked & ~beyond)),
            queries=made.queries,
            seconds=round(made.seconds, 3),
            broken=tuple(broken),
        )

    def broken_proofs(self, store: CellStore) -> list[str]:
        """What to say of each proof that an attack of the finished cells broke."""
        return [
            self._complaint(row, what, number, store)
            for row, what in self.cells()
            if (cell := store.get(self.key(row, what))) is not None
            for number in cell.broken
        ]

    def _complaint(self, row: Row, what: AttackEntry | str, number: int, store: CellStore) -> str:
        cell, name = store.get(self.key(row, what)), what if isinstance(what, str) else what.name
        assert cell is not None
        assert row.defence.smoothing is not None
        shown = 0 if isinstance(what, str) else what.pictures
        far = cell.l2[self.gallery.evenly(shown).index(number)]
        return (
            f"{self.gallery.names[number]}: proven to keep its label within l2 radius "
            f"{self._radii(row, store).get(number, 0.0):.4f} by {row.name}, and {name!r} changed it at {far:.4f}; "
            f"more often than alpha = {row.defence.smoothing.alpha:g} that is a bug here: please report it"
        )

    def _radii(self, row: Row, store: CellStore) -> dict[int, float]:
        """How far the right label of each picture is proven to stand; those without such a proof are left out."""
        certified, smoothing = store.get(self.key(row, CERTIFIED)), row.defence.smoothing
        if certified is None or smoothing is None:
            return {}
        numbers = self.gallery.evenly(smoothing.certify_pictures)
        return {i: far for i, right, far in zip(numbers, certified.right, certified.l2, strict=True) if right}

    def _broken_proofs(
        self, row: Row, shown: Pictures, chosen: list[int], wrong: npt.NDArray[np.int64], store: CellStore
    ) -> list[int]:
        """Numbers of the pictures whose proven label has no majority of many fresh votes.

        A majority of few votes may be another one by chance; the table takes the certificate's word there.
        """
        radii, smoothing = self._radii(row, store), row.defence.smoothing
        if not radii or smoothing is None:
            return []
        pipeline, labels, broken = self.pipelines[row.name], self._labels(row), []
        far = distances(shown, self.gallery.pictures[chosen], "l2")
        for place in wrong:
            number = chosen[place]
            if covered(far[place], radii.get(number, 0.0)):
                votes = pipeline.further_votes(shown[place], number, smoothing.n, 0)
                others = smoothing.n - int(votes[labels[number]])
                if lower_bound(others, smoothing.n, DOUBT) > 0.5:
                    broken.append(number)
        return broken

    def _adversarial(self, row: Row, attack: AttackEntry, chosen: list[int], store: CellStore) -> Adversarial:
        """Made on the row that the attack knows, once for all the rows that are shown them."""
        maker = self.config.maker(attack, row)
        key = self._attack_key(attack, maker)
        kept = store.adversarial(key)
        if kept is not None:
            return kept
        pipeline, labels = self.pipelines[maker.name], self._labels(maker)[chosen]
        surrogate = self.networks[attack.surrogate].network if attack.surrogate else None
        pictures, seed = self.gallery.pictures[chosen], self.config.seed
        made = make(attack, pipeline, pictures, chosen, labels, surrogate=surrogate, seed=seed)
        store.keep_adversarial(key, made)
        return made

    def _labels(self, row: Row) -> npt.NDArray[np.int64]:
        network = self.networks[row.classifier.name].network
        return self.gallery.indices(network.classes, row.classifier.name)


def prepare(config: StudyConfig) -> Study:
    """Read and check all that the study needs, before any long work.

    Raises ConfigError for pictures, weights, classes or attacks that do not fit, DenoiserError for a denoiser
    that does not take such noise or pictures, ImageError for a picture that cannot be decoded.
    """
    for attack in config.attacks:
        check_attack(attack)
    networks = {one.name: open_network(one, config.device) for one in config.classifiers}
    gallery = read_gallery(config.data, config.pictures)
    for attack in config.attacks:
        norm = attack.norm or attack_named(attack.attack).norms[0]
        check_side(attack.attack, norm, min(gallery.pictures.shape[2:]))
    pipelines = {row.name: _pipeline(row, networks, config) for row in config.rows()}
    for pipeline in pipelines.values():
        pipeline.check(*gallery.pictures.shape[2:])
    for name, opened in networks.items():
        gallery.indices(opened.network.classes, name)
    study = Study(config, gallery, networks, pipelines)
    for row, what in study.cells():
        if isinstance(what, AttackEntry):
            _check_classes(study, config.maker(what, row), what)
    return study


def _pipeline(row: Row, networks: dict[str, Opened], config: StudyConfig) -> Pipeline:
    try:
        made = denoiser(row.defence.denoiser)
    except SmoothingProxyError as error:
        raise type(error)(f"defence {row.defence.name!r}: {error}") from error
    network = networks[row.classifier.name].network
    return Pipeline(network, made, row.defence, batch=config.batch, seed=config.seed)


def _check_classes(study: Study, maker: Row, attack: AttackEntry) -> None:
    """Raises ConfigError where the surrogate has other classes than the classifier under attack."""
    if attack.surrogate is None:
        return
    ours = study.networks[maker.classifier.name].network.classes
    theirs = study.networks[attack.surrogate].network.classes
    if ours != theirs:
        raise ConfigError(
            f"attack {attack.name!r}: surrogate {attack.surrogate!r} and {maker.classifier.name!r} have not the "
            f"same classes ({len(theirs)} and {len(ours)} of them)"
        )


def _beyond(attack: AttackEntry, pictures: Pictures, clean: Pictures) -> Judged:
    """bool [n]: which of the nearest pictures found are further away than what counts."""
    kind = attack_named(attack.attack)
    if attack.eps is None or not kind.nearest:
        return np.zeros(len(clean), np.bool_)
    return distances(pictures, clean, check_norm(attack.norm or kind.norms[0])) > attack.eps * SLACK


def _flags(found: Judged | Sequence[bool]) -> tuple[bool, ...]:
    return tuple(bool(one) for one in found)
