"""A signed URL opens the pictures' door: nothing of it is printed or stored, and a renewed one goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from denoiser_training.__main__ import main
from denoiser_training.data_settings import without_secrets
from denoiser_training.evaluate_config import load_evaluation
from tests.training.test_faults import EVALUATION
from tests.training.test_sources import archive, server

__all__ = ["archive", "server"]

SHORT = ("phases.0.steps=2", "phases.1.steps=2", "surrogates.0.training.steps=2")


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("https://example.org/a/train.zip?sig=hush&x=1", "https://example.org/a/train.zip"),
        ("https://hush@example.org/train.zip#hush", "https://example.org/train.zip"),
        ("simplecache::https://hush@example.org/t.zip?sig=hush", "simplecache::https://example.org/t.zip"),
        ("s3://bucket/train.zip", "s3://bucket/train.zip"),
        ("photos/why?#1", "photos/why?#1"),
        ("torchvision:CIFAR10", "torchvision:CIFAR10"),
    ],
)
def test_a_url_is_shown_without_what_may_be_secret(source: str, shown: str) -> None:
    assert without_secrets(source) == shown


def test_an_evaluation_asks_the_same_question_with_a_renewed_signature(tmp_path: Path) -> None:
    path = tmp_path / "small.toml"
    path.write_text(EVALUATION, encoding="utf-8")
    questions = [
        load_evaluation(path, [f"data.source=https://example.org/a.zip?sig={signature}"]).question()
        for signature in ("HUSH1", "HUSH2")
    ]
    assert questions[0] == questions[1]
    assert "HUSH" not in str(questions)


@pytest.mark.parametrize("fields", [(), ("phases.0.objective={mse=1}", "surrogates.0.training.optimiser.batch=4")])
def test_a_signature_is_neither_printed_nor_stored_and_may_be_renewed(
    tiny: Path, tmp_path: Path, server: str, capsys: pytest.CaptureFixture[str], fields: tuple[str, ...]
) -> None:
    out = tmp_path / "out"
    for signature in ("HUSH1", "HUSH2"):
        source = f"data.source={server}/all.zip?sig={signature}"
        assert main([str(tiny), "--out", str(out), "--set", source, *SHORT, *fields]) == 0
    printed = capsys.readouterr()
    assert f"{server}/all.zip: 9 pictures to train on" in printed.out
    stored = [path.read_bytes() for path in out.rglob("*") if path.is_file()]
    assert b"all.zip" in b"".join(stored)
    for text in (printed.out.encode(), printed.err.encode(), *stored):
        assert b"HUSH" not in text
