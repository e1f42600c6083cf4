"""What is wrong with folders, files and memory ends a run with a word, not with a traceback."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from denoiser_training.__main__ import main
from denoiser_training.data import digits
from denoiser_training.files import claimed
from denoiser_training.pictures import Pictures
from denoiser_training.placement import placed

SHORT = ("phases.0.steps=2", "phases.1.steps=2", "surrogates.0.training.steps=2")

META = torch.device("meta")


def zipped(folder: Path, path: Path) -> bytes:
    return Path(shutil.make_archive(str(path), "zip", folder)).read_bytes()


def damaged(archive: bytes) -> bytes:
    """Other bytes in the middle of one picture."""
    start = archive.index(b"IHDR", archive.index(b"cat/0.png")) + 20
    return archive[:start] + bytes(8) + archive[start + 8 :]


def encrypted(archive: bytes) -> bytes:
    """Every entry is marked as encrypted, here and in the directory at the end."""
    marked = bytearray(archive)
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = archive.find(signature)
        while at >= 0:
            marked[at + offset] |= 1
            at = archive.find(signature, at + 1)
    return bytes(marked)


@pytest.mark.parametrize(("spoil", "says"), [(damaged, "Bad CRC-32"), (encrypted, "password required")])
def test_an_entry_of_a_zip_that_cannot_be_read_is_named(
    tiny: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], spoil: object, says: str
) -> None:
    assert callable(spoil)
    (tmp_path / "bad.zip").write_bytes(spoil(zipped(folder, tmp_path / "good")))
    assert main([str(tiny), "--out", str(tmp_path / "out"), "--set", f"data.source={tmp_path / 'bad.zip'}"]) == 2
    err = capsys.readouterr().err
    assert "cat/0.png: cannot be read: " in err
    assert says in err


def test_a_zip_without_its_directory_is_refused(
    tiny: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = zipped(folder, tmp_path / "good")
    (tmp_path / "cut.zip").write_bytes(archive.replace(b"PK\x01\x02", b"PK\x01\x09"))
    assert main([str(tiny), "--out", str(tmp_path / "out"), "--set", f"data.source={tmp_path / 'cut.zip'}"]) == 2
    assert "cut.zip: not a zip that can be read" in capsys.readouterr().err


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_a_picture_that_may_not_be_read_is_named(
    tiny: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "cat" / "0.png").chmod(0)
    assert main([str(tiny), "--out", str(tmp_path / "out"), "--set", f"data.source={folder}"]) == 2
    assert "cat/0.png: cannot be read" in capsys.readouterr().err


CLASSIFIER = """
name = "small"
network = "mlp"
training = { steps = 2 }
[data]
source = "digits"
license = "test"
crop_px = 8
"""

EVALUATION = """
name = "small"
pictures = 2
denoisers = ["identity"]
reference = "clean"
[data]
source = "digits"
license = "test"
crop_px = 8
[certify]
sigma = 0.25
n = 20
[[targets]]
name = "crisp"
network = "tests.training.test_ablation:Crisp"
"""


@pytest.mark.parametrize("command", ["train", "classifier", "evaluate"])
@pytest.mark.parametrize("trouble", ["a file", "below a file", "another run"])
def test_results_need_a_folder_of_their_own(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, trouble: str
) -> None:
    config = tmp_path / "config.toml"
    config.write_text({"train": tiny.read_text(), "classifier": CLASSIFIER, "evaluate": EVALUATION}[command])
    words = [] if command == "train" else [command]
    out = tmp_path / "out"
    if trouble == "another run":
        with claimed(out):
            assert main([*words, str(config), "--out", str(out)]) == 2
        assert f"{out}: another run works there; choose another --out" in capsys.readouterr().err
        return
    out.write_text("a file")
    taken = out if trouble == "a file" else out / "deep"
    assert main([*words, str(config), "--out", str(taken)]) == 2
    assert f"{taken}: cannot be the folder of the results" in capsys.readouterr().err


def test_a_folder_is_free_again_when_its_run_has_ended(tmp_path: Path) -> None:
    for _ in range(2):
        with claimed(tmp_path / "out"):
            pass


def test_names_with_brackets_are_only_names(
    tiny: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = shutil.copytree(folder, tmp_path / "p[" / "x]")
    out = tmp_path / "o[" / "x]"
    assert main([str(tiny), "--out", str(out), "--set", f"data.source={odd}", *SHORT]) == 0
    printed = capsys.readouterr().out
    assert f"{odd}: 9 pictures to train on" in printed
    assert f"{out / 'tiny.json'}" in printed


def test_pictures_go_to_the_device_only_where_they_leave_it_room() -> None:
    pictures = digits().evenly(4)
    assert pictures.nbytes == 4 * 3 * 8 * 8
    assert placed(pictures, META).pixels[0].device == META
    assert placed(pictures, META, room=2 * pictures.nbytes).pixels[0].device == META
    assert placed(pictures, META, room=2 * pictures.nbytes - 1) is pictures


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_run_sees_the_same_wherever_its_pictures_lie(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, share in (("device", 1.0), ("host", 0.0)):
        monkeypatch.setattr("denoiser_training.placement.SHARE", share)
        assert main([str(tiny), "--out", str(tmp_path / name), "--set", "runtime.device=cuda"]) == 0
    first, second = ((tmp_path / name / "validation.csv").read_text() for name in ("device", "host"))
    found, expected = (np.genfromtxt(text.splitlines(), delimiter=",", skip_header=1) for text in (first, second))
    assert found == pytest.approx(expected, rel=1e-3)


def test_decoded_pictures_that_fill_the_memory_are_told_of(
    tiny: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> Pictures:
        raise MemoryError

    monkeypatch.setattr("denoiser_training.data.Pictures", full)
    assert main([str(tiny), "--out", str(tmp_path / "out"), "--set", f"data.source={folder}"]) == 2
    assert f"{folder}: decoded, it does not fit into memory; set data.limit" in capsys.readouterr().err
