"""Attacks that only ask, in studies; and certificates that no attack of a table may break."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from denoiser_training.study_networks import tflite
from smoothing_proxy.cli.app import app
from smoothing_proxy.errors import ConfigError
from smoothing_proxy.redteam.study.asking import AskedRow
from smoothing_proxy.redteam.study.cells import CERTIFIED, CLEAN, Cell, CellStore
from smoothing_proxy.redteam.study.config import StudyConfig, load_study
from smoothing_proxy.redteam.study.run import Study, prepare
from smoothing_proxy.redteam.study.table import lines_of
from smoothing_proxy.redteam.study.verdicts import covered
from smoothing_proxy.redteam.targets import Target
from tests.redteam.study_nets import STUDY, shaded_pictures

ASKING = """
[[attacks]]
name = "square"
attack = "square"
norm = "linf"
eps = 0.5
max_queries = 40
draws = 4
defences = ["none", "smoothing"]

[[attacks]]
name = "too near"
attack = "hopskipjump"
norm = "l2"
eps = 0.01
max_queries = 20
draws = 4
defences = ["none", "smoothing"]
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    shaded_pictures(tmp_path / "pictures", each=2)
    (tmp_path / "study.toml").write_text(STUDY[: STUDY.index("[[attacks]]")] + ASKING)
    return tmp_path / "study.toml"


def _row(study: Study, name: str) -> Target:
    return AskedRow(study.pipelines[name], 4)


def test_black_box_attacks_stand_in_the_table_with_the_queries_that_they_took(file: Path) -> None:
    result = CliRunner().invoke(app, ["study", str(file), "--out", "out"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    with (file.parent / "out" / "shades.csv").open(newline="") as stream:
        found = {(row["defence"], row["classifier"], row["column"]): row for row in csv.DictReader(stream)}
    raw, smooth = (found[name, "net", "square"] for name in ("none", "smoothing"))
    assert float(raw["accuracy"]) < 1.0, "an attack that is broken flatters every defence"
    for row in (raw, smooth):
        assert 1 <= float(row["queries_per_attacked_picture"]) <= 40
        assert float(row["ms_per_attacked_picture"]) > 0
    assert (raw["copies_per_attack_query"], smooth["copies_per_attack_query"]) == ("1", "4")
    near = found["none", "net", "too near"]
    assert float(near["accuracy"]) == float(found["none", "net", "clean"]["accuracy"]), (
        "further away is no success"
    )
    assert float(near["mean_l2"]) > 0.01
    assert near["reached"] == "0"


def test_a_smoothed_row_that_is_asked_votes_with_fresh_noise(file: Path) -> None:
    study = prepare(load_study(file))
    pixels, labels = np.full((1, 8, 8, 3), 90, np.uint8), np.array([0])
    raw, smooth = _row(study, "none/net"), _row(study, "smoothing/net")
    assert (raw.noisy, smooth.noisy) == (False, True)
    assert raw.ask(pixels, labels).own == raw.ask(pixels, labels).own
    shares = {float(np.exp(smooth.ask(pixels, labels).own[0])) for _ in range(12)}
    assert len(shares) > 1
    assert all(min(abs(share - part / 4) for part in range(5)) < 1e-9 for share in shares)


def _cells(config: StudyConfig, study: Study) -> dict[tuple[str, str], Cell]:
    """Of 6 pictures, of which 3 are certified: 0, 2 and 4."""
    certified = Cell(CERTIFIED, (True, True, False), l2=(0.3, 0.05, 0.4))
    return {
        ("smoothing/net", CLEAN): Cell(CLEAN, (False, True, True, True, True, False)),
        ("smoothing/net", CERTIFIED): certified,
        ("smoothing/net", "square"): Cell(
            "attack", (False,) * 6, l2=(0.2,) * 6, attacked=(True,) * 6, reached=6, queries=6
        ),
    }


def test_certified_is_never_above_attacked_in_a_table_and_what_a_proof_decided_is_counted(file: Path) -> None:
    """Votes are few: a majority against what is proven is chance, and the certificate decides."""
    config = load_study(file, ["data.source=pictures"])
    cells = _cells(config, prepare(config))
    lines = lines_of(config, lambda row, what: cells.get((row.name, what if isinstance(what, str) else what.name)))
    found = {line.column: line for line in lines}
    assert (found["square"].accuracy.count, found["square"].by_proof) == (1, 1)
    assert (found["clean"].accuracy.count, found["clean"].by_proof) == (4, 1), "4 is proven to be wrong"
    assert found["certified 0.05"].accuracy.count == 2
    assert found["certified 0"].accuracy.count == 2


def test_a_proof_that_many_votes_speak_against_is_told_at_the_end_of_a_study_that_is_finished(file: Path) -> None:
    """The certificates are made false on the disk: they say 9, and an attack of linf .5 goes less far."""
    set_all = ("--set", "defences.2.smoothing.certify_pictures=0")
    study = prepare(load_study(file, [set_all[1]]))
    row = next(one for one in study.config.rows() if one.name == "smoothing/net")
    far = Cell(CERTIFIED, (True,) * 6, l2=(9.0,) * 6, queries=45)
    with CellStore(Path("out")) as store:
        store.put(study.key(row, CERTIFIED), far, {})
    first = CliRunner().invoke(app, ["study", str(file), "--out", "out", *set_all], catch_exceptions=False)
    assert first.exit_code == 1
    assert re.search(r"broken proof: .*within l2 radius 9\.0000 by smoothing/net, and 'square'", first.stderr)
    assert "**Proofs that an attack broke: smoothing/net, square (" in first.stdout
    with (file.parent / "out" / "shades.csv").open(newline="") as stream:
        found = {row["column"]: row for row in csv.DictReader(stream) if row["defence"] == "smoothing"}
    assert float(found["square"]["accuracy"]) < 1.0, "such a proof decides nothing"
    again = CliRunner().invoke(app, ["study", str(file), "--out", "out", *set_all], catch_exceptions=False)
    assert (again.exit_code, again.stdout) == (1, first.stdout), "it is kept, and said every time"


def test_a_radius_of_nothing_covers_nothing() -> None:
    assert [covered(0.0, 0.0), covered(0.1, 0.2), covered(0.2, 0.2)] == [False, True, False]


@pytest.mark.parametrize("name", ["three-defences", "three-defences-small"])
def test_the_three_defences_meet_attacks_that_only_ask(name: str) -> None:
    config = load_study(Path(__file__).parents[2] / "configs" / "studies" / f"{name}.toml")
    asking = [one for one in config.attacks if one.attack in ("square", "hopskipjump")]
    assert {one.attack for one in asking} == {"square", "hopskipjump"}
    assert all({"raw", "smoothing"} <= set(one.defences) for one in asking)


def test_a_quantised_file_is_a_network_with_gradients_that_answers_as_its_interpreter(shared_data: Path) -> None:
    import torch

    from smoothing_proxy.backends.local.tflite import TfliteOptions, TfliteScorer

    path = shared_data / "blackbox" / "mobilenet_v1_0.25_128_quant.tflite"
    network, classes = tflite(str(path), "imagenet-1001")
    coarse = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 3), np.uint8)
    pixels = coarse.repeat(16, axis=1).repeat(16, axis=2)
    wanted = TfliteScorer(path, TfliteOptions()).scores(pixels)
    pictures = torch.from_numpy(pixels.transpose(0, 3, 1, 2) / np.float32(255)).requires_grad_()
    shares = torch.softmax(network(pictures), dim=1)
    assert len(classes) == shares.shape[1] == 1001
    assert np.abs(shares.detach().numpy() - wanted).mean() < 2e-4
    correlation = np.corrcoef(shares.detach().numpy().ravel(), wanted.ravel())[0, 1]
    assert correlation > 0.9
    (gradient,) = torch.autograd.grad(shares[:, 0].sum(), pictures)
    assert bool((gradient.abs().amax(dim=(1, 2, 3)) > 0).all())
    with pytest.raises(ConfigError, match="1001 outputs, and cifar10 has 10"):
        tflite(str(path), "cifar10")
