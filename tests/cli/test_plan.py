"""`plan` and `run --choose`: what a run will probably cost, and what a budget buys."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from smoothing_proxy.backends.local.local_backend import LocalBackend
from smoothing_proxy.errors import ConfigError
from smoothing_proxy.runs.choosing import choose, pictures_within
from smoothing_proxy.smoothing.settings import Smoothing
from smoothing_proxy.stats.forecast import forecast_fixed
from smoothing_proxy.stats.priors import PUBLISHED, Prior
from tests.cli.command_line import SETTINGS, Invoke

BASE = ("--backend", "local:shade_classifier:shade", "--sigma", "0.25")
TARGET = (*BASE, "--target-radius", "0.25", "--max-queries", "200")


@pytest.fixture
def paid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LocalBackend, "price_usd", 0.001)


def planned(invoke: Invoke, *arguments: str | Path) -> dict[str, Any]:
    return dict(json.loads(invoke("plan", *arguments, "--json").stdout))


@pytest.mark.usefixtures("paid")
def test_a_sequential_plan_says_the_worst_and_the_expected_cost(invoke: Invoke, folder: Path) -> None:
    figures = planned(invoke, folder, *TARGET, "--labels", "labels.csv")
    assert figures["queries"] == 6 * 200 + 3
    expected = figures["expected"]
    assert expected["queries"] == pytest.approx(6 * expected["draws_per_picture"]["mean"] + 3)
    assert expected["usd"] == pytest.approx(0.001 * expected["queries"])
    assert 30 < expected["draws_per_picture"]["mean"] < 100
    assert expected["draws_per_picture"]["median"] <= expected["draws_per_picture"]["nine_of_ten"] <= 200
    [row] = expected["certified"]
    assert row["radius"] == 0.25
    assert 0.5 < row["share"] < 0.62
    text = invoke("plan", folder, *TARGET).stdout
    assert "at most 1,209 queries, $1.21" in text
    assert "expected: " in text
    assert "Cohen et al. 2019, CIFAR-10" in text


def test_a_fixed_plan_costs_what_it_says(invoke: Invoke, folder: Path) -> None:
    figures = planned(invoke, folder, *SETTINGS)
    assert figures["expected"]["queries"] == figures["queries"] == 6 * 71
    shares = [row["share"] for row in figures["expected"]["certified"]]
    assert shares == sorted(shares, reverse=True)
    assert 0 < shares[-1] < shares[0] < 1 or shares[-1] == 0
    text = invoke("plan", folder, *SETTINGS).stdout
    assert "at most" not in text
    assert "expected:" not in text


@pytest.mark.usefixtures("paid")
@pytest.mark.parametrize(
    ("budget", "message"),
    [
        ("0.9", "expected to be enough all the same"),
        ("0.3", "which will end the run early"),
        ("9", "1,209 queries"),
    ],
)
def test_a_budget_below_the_worst_case_may_be_enough(
    invoke: Invoke, folder: Path, budget: str, message: str
) -> None:
    text = invoke("plan", folder, *TARGET, "--budget-usd", budget).stdout
    assert message in text
    assert ("more than the budget" in text) == (budget != "9")


def test_a_pilot_run_changes_what_is_expected_and_its_draws_are_kept(invoke: Invoke, folder: Path) -> None:
    before = planned(invoke, folder, *TARGET)["expected"]
    run = ("run", folder, *TARGET, "--out", "out", "--json")
    pilot = json.loads(invoke(*run, "--limit", "2").stdout)
    after = planned(invoke, folder, *TARGET, "--from-run", "out")["expected"]
    assert after["certified"][0]["share"] > before["certified"][0]["share"], "this classifier is always sure"
    assert "a pilot of 2 pictures, and 5 more of" in after["prior"]
    whole = json.loads(invoke(*run).stdout)
    assert whole["cost"]["queries"] == 3 * pilot["cost"]["queries"], "the pilot's draws were not asked again"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (("--sigma", "0.3"), "smoothing.sigma: 0.25 there, 0.3 here"),
        (("--denoiser", "median:3"), "denoiser.name"),
        (("--working-size", "8x8"), "smoothing.working_size"),
    ],
)
def test_a_pilot_of_other_draws_is_refused(
    invoke: Invoke, folder: Path, changed: tuple[str, ...], message: str
) -> None:
    invoke("run", folder, *TARGET, "--out", "out", "--limit", "1")
    result = invoke("plan", folder, *TARGET, *changed, "--from-run", "out")
    assert result.exit_code == 2
    assert "its draws say nothing about these settings" in result.stderr
    assert message in result.stderr


def test_settings_are_not_chosen_by_the_noise_that_the_proof_counts(invoke: Invoke, folder: Path) -> None:
    invoke("run", folder, *TARGET, "--out", "pilot", "--limit", "2", "--insecure-seed", "7")
    chosen = (
        "run",
        folder,
        *BASE,
        "--target-radius",
        "0.25",
        "--out",
        "out",
        "--choose",
        "--budget-queries",
        "9000",
    )
    same = invoke(*chosen, "--from-run", "pilot", "--insecure-seed", "7")
    assert same.exit_code == 2
    assert "take another seed" in same.stderr
    assert invoke(*chosen, "--from-run", "pilot", "--insecure-seed", "8").exit_code == 0


def test_a_pilot_at_another_level_and_method_counts(invoke: Invoke, folder: Path) -> None:
    invoke("run", folder, *SETTINGS, "--out", "out")
    settings = ("--sigma", "0.2", "--target-radius", "0.1", "--alpha", "0.01", *SETTINGS[:2])
    assert "a pilot of 6 pictures" in planned(invoke, folder, *settings, "--from-run", "out")["expected"]["prior"]


def test_what_is_no_pilot_is_refused(invoke: Invoke, folder: Path, tmp_path: Path) -> None:
    result = invoke("plan", folder, *TARGET, "--from-run", tmp_path)
    assert result.exit_code == 2
    assert "no run folder" in result.stderr


@pytest.mark.usefixtures("paid")
def test_settings_are_chosen_for_a_budget_said_first_and_kept_by_a_resumption(
    invoke: Invoke, folder: Path
) -> None:
    run = ("run", folder, *BASE, "--target-radius", "0.25", "--out", "out", "--labels", "labels.csv", "--choose")
    refused = invoke(*run, "--budget-usd", "0.6")
    assert refused.exit_code == 2
    assert "chosen of" in refused.stderr
    assert "say --yes" in refused.stderr
    assert not Path("out").exists(), "nothing was begun"
    first = json.loads(invoke(*run, "--budget-usd", "0.6", "--yes", "--limit", "3", "--json").stdout)
    chosen = first["settings"]["smoothing"]
    assert (chosen["method"], chosen["target_radii"]) == ("target", [0.25])
    resumed = invoke(*run, "--budget-usd", "5", "--yes", "--json")
    assert "chosen when this run began" in resumed.stderr
    summary = json.loads(resumed.stdout)
    assert summary["settings"]["smoothing"] == chosen
    assert summary["complete"]
    assert summary["pictures"]["decided"] == 6
    other = invoke(*run, "--budget-usd", "5", "--yes", "--target-radius", "0.1")
    assert other.exit_code == 2
    assert "made with other settings" in other.stderr


@pytest.mark.usefixtures("paid")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--budget-usd", "1", "--max-queries", "100"), "--choose would choose max_queries"),
        (("--budget-usd", "1", "--method", "fixed", "--n", "50"), "--choose would choose method, n"),
        (("--budget-usd", "1", "--config", "given.toml"), "--choose would choose n0"),
        ((), "--choose: say what may be spent"),
        (("--budget-usd", "0.005"), "not enough to prove anything"),
    ],
)
def test_a_choice_overrules_nothing_and_needs_a_budget(
    invoke: Invoke, folder: Path, arguments: tuple[str, ...], message: str
) -> None:
    Path("given.toml").write_text("[smoothing]\nsigma = 0.25\nn0 = 50\n")
    result = invoke("run", folder, *BASE, "--out", "out", "--choose", "--yes", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert not Path("out").exists()


def test_a_classifier_that_costs_nothing_wants_its_budget_in_queries(invoke: Invoke, folder: Path) -> None:
    run = ("run", folder, *BASE, "--target-radius", "0.1", "--out", "out", "--choose", "--json")
    assert "--budget-queries where queries cost nothing" in invoke(*run, "--budget-usd", "3").stderr
    summary = json.loads(invoke(*run, "--budget-queries", "700").stdout)
    assert summary["complete"]
    assert summary["cost"]["queries"] <= 700


def test_a_larger_budget_proves_more_until_it_is_enough() -> None:
    asked = Smoothing(sigma=0.25, target_radius=0.25)
    values = [
        choose(asked, PUBLISHED, pictures=50, limit_queries=50 * per_picture).value
        for per_picture in (15, 40, 200)
    ]
    assert values == sorted(values)
    assert values[0] < 0.6 * values[2]


def test_without_a_target_the_mean_radius_decides_and_the_user_keeps_the_rest() -> None:
    asked = Smoothing(sigma=0.5, alpha=0.01, policy="latency", lookahead=8)
    choice = choose(asked, PUBLISHED, pictures=20, limit_queries=20 * 60)
    assert choice.value == pytest.approx(choice.forecast.mean_radius * choice.pictures / 20)
    kept = (choice.smoothing.sigma, choice.smoothing.alpha, choice.smoothing.policy, choice.smoothing.lookahead)
    assert kept == (0.5, 0.01, "latency", 8)
    plain = forecast_fixed(PUBLISHED, n0=10, n=50, alpha=0.01, sigma=0.5)
    assert choice.value >= 0.999 * plain.mean_radius, "a fixed proof of as many queries is among the candidates"


def test_a_ladder_that_was_asked_for_is_kept_whole() -> None:
    asked = Smoothing(sigma=0.25, target_radii=(0.1, 0.25, 0.5))
    assert choose(asked, PUBLISHED, pictures=10, limit_queries=5000).smoothing.ladder == (0.1, 0.25, 0.5)
    with pytest.raises(ConfigError, match="not enough"):
        choose(asked, PUBLISHED, pictures=10, limit_queries=200)


def test_the_last_pictures_worst_case_must_be_left_and_chance_is_allowed_for() -> None:
    fixed = forecast_fixed(PUBLISHED, n0=10, n=90, alpha=0.001, sigma=1.0)
    assert [pictures_within(fixed, 5, limit) for limit in (99, 100, 499, 500, 5000)] == [0, 1, 4, 5, 5]
    assert pictures_within(fixed, 5, 504, extra=1) == 4
    sure = Prior.of([1.0], "sure")
    chance = choose(Smoothing(sigma=0.25, target_radius=0.0), sure, pictures=10, limit_queries=1000)
    assert chance.pictures == 10
