"""`plan`, `certify` and `predict`: one question, one answer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.command_line import SETTINGS, Invoke


def test_certify_prints_the_label_the_radius_and_what_it_cost(invoke: Invoke, folder: Path) -> None:
    result = invoke("certify", folder / "5.png", *SETTINGS)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0] == "light"
    assert lines[1].startswith("proven within l2 radius 0.")
    assert lines[-1] == "70 queries, $0.0000"


def test_certify_as_json_is_the_whole_certificate(invoke: Invoke, folder: Path) -> None:
    result = invoke("certify", folder / "0.png", *SETTINGS, "--working-size", "6x6", "--json")
    certificate = json.loads(result.stdout)
    assert certificate["label"] == "dark"
    assert certificate["working_size"] == [6, 6]
    assert certificate["votes"] == {"counts": {"dark": 60}, "failed": 0}
    assert certificate["queries"] == 70


def test_predict_answers_or_abstains(invoke: Invoke, folder: Path) -> None:
    result = invoke("predict", folder / "5.png", *SETTINGS, "--json")
    assert json.loads(result.stdout)["label"] == "light"


def test_settings_come_from_a_file_and_flags_go_on_top(invoke: Invoke, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "proxy.toml").write_text(
        "[smoothing]\nsigma = 0.2\nn0 = 10\nn = 60\n"
        '[backend]\nname = "local:shade_classifier:shade"\nbatch_size = 7\n'
        '[denoiser]\nname = "median:3"\n'
        '[labels]\nclosed = true\n[labels.groups]\nbright = ["light", "grey"]\nnight = ["dark"]\n'
    )
    result = invoke("certify", folder / "5.png", "--config", "proxy.toml", "--n", "70", "--json")
    certificate = json.loads(result.stdout)
    assert certificate["label"] == "bright"
    assert certificate["votes"]["counts"] == {"bright": 70}


def test_plan_says_what_a_folder_costs_and_could_prove(invoke: Invoke, folder: Path) -> None:
    result = invoke("plan", folder, *SETTINGS, "--json")
    figures = json.loads(result.stdout)
    assert figures["pictures"] == 6
    assert figures["queries"] == 6 * (10 + 60 + 1), "the clean picture is asked about too"
    labelled = invoke("plan", folder, *SETTINGS, "--labels", "labels.csv", "--json")
    assert json.loads(labelled.stdout)["queries"] == 6 * 70
    assert "can prove up to l2 radius" in invoke("plan", folder, *SETTINGS).stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--n", "9"], "n is 9: with fewer than 10 draws nothing can be certified"),
        (["--sigma", "25"], "expected the [0, 1] pixel scale"),
        (["--backend", "scriptd"], "did you mean 'scripted'"),
        (["--backend", "local:nowhere.tflite"], "nowhere.tflite"),
        (["--backend", "local:shade_classifier:shades"], "shades"),
        (["--denoiser", "wavlet:haar"], "did you mean 'wavelet'"),
        (["--denoiser", "median:4"], "4"),
        (["--working-size", "large"], "working size 'large'"),
        (["--encoding", "gif"], "gif"),
        (["-b", "batchsize=3"], "did you mean 'batch_size'"),
        (["-b", "batch_size"], "expected KEY=VALUE"),
        (["--config", "missing.toml"], "missing.toml: no such file"),
        (["--config", "wrong.toml"], "wrong.toml: smoothing.sigmaa: unknown key; did you mean 'sigma'"),
        (["--config", "table.toml"], "table.toml: smothing: unknown key; did you mean 'smoothing'"),
        (["--config", "broken.toml"], "broken.toml"),
    ],
)
def test_a_wrong_setting_is_named_with_what_was_expected(
    invoke: Invoke, folder: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    (tmp_path / "wrong.toml").write_text("[smoothing]\nsigma = 0.2\nsigmaa = 0.3\n")
    (tmp_path / "table.toml").write_text("[smothing]\nsigma = 0.2\n")
    (tmp_path / "broken.toml").write_text("[smoothing\n")
    result = invoke("certify", folder / "0.png", *SETTINGS, *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_what_is_missing_is_named_with_its_flag(invoke: Invoke, folder: Path, tmp_path: Path) -> None:
    result = invoke("certify", folder / "0.png")
    assert result.exit_code == 2
    assert "a classifier (--backend), the noise level (--sigma)" in result.stderr
    (tmp_path / "flat.toml").write_text('backend = "local:x"\n')
    flat = invoke("certify", folder / "0.png", "--config", "flat.toml", *SETTINGS)
    assert "backend: expected a table [backend]" in flat.stderr


def test_a_printed_radius_never_exceeds_its_proof(invoke: Invoke, folder: Path) -> None:
    arguments = ["certify", folder / "0.png", *SETTINGS[:2], "--sigma", "0.2", "--n0", "10"]
    for n in range(60, 70):
        printed = invoke(*arguments, "--n", str(n), "--working-size", "300x300").stdout.splitlines()
        exact = json.loads(invoke(*arguments, "--n", str(n), "--working-size", "300x300", "--json").stdout)
        assert float(printed[1].split()[4]) <= exact["radius"]
        assert printed[2].endswith("at the picture's own 12x12")
        assert float(printed[2].split()[2]) <= exact["input_radius"]


def test_a_picture_that_is_none_is_refused(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "fake.png").write_text("<html>not found</html>")
    result = invoke("certify", "fake.png", *SETTINGS)
    assert result.exit_code == 2
    assert "fake.png" in result.stderr
