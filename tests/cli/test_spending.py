"""Money: said and asked about before it is spent, and never more of it than the budget allows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from smoothing_proxy.backends.local.local_backend import LocalBackend
from smoothing_proxy.cli.spending import most_usd_left
from smoothing_proxy.errors import BackendTimeoutError, RequestRejectedError
from smoothing_proxy.ledger.store import Ledger
from smoothing_proxy.smoothing.observe import Outcome
from smoothing_proxy.types import Certificate, Reply, ScoredLabel, Votes
from smoothing_proxy.wire.base import Fault, HttpReply, HttpRequest, RequestFault
from smoothing_proxy.wire.openai import OpenAiWire
from tests.cli.command_line import SETTINGS, Invoke
from tests.wire.loopback import serving

WIRE = OpenAiWire()
DOG = Reply((ScoredLabel("dog", 0.9),), "v1")

PAID = """
[smoothing]
sigma = 0.1
n0 = 5
n = 15

[backend]
name = "openai-vision"
base_url = "{url}"
model = "m"
key_env = ""
labels = ["dog", "cat"]
price_usd_per_1000 = 2.5

[transport]
requests_per_s = 5000
backoff_base_s = 0.001
backoff_max_s = 0.001
circuit_failures = 1000
"""


def answered(request: HttpRequest) -> HttpReply:
    return WIRE.write(request, WIRE.read(request), [DOG], "r")


def failing(request: HttpRequest) -> HttpReply:
    return WIRE.refuse(request, RequestFault(Fault.INTERNAL, "it may have been billed"), "r")


@pytest.mark.parametrize(
    ("arguments", "answer", "code", "asked", "words"),
    [
        (["certify"], answered, 2, [0], "say --yes"),
        (["certify", "--yes"], answered, 0, [20], "at most 20 queries to openai-vision, $0.0500"),
        (["certify", "--yes", "--budget-queries", "20"], answered, 0, [20], ""),
        (
            ["certify", "--yes", "--budget-queries", "19"],
            answered,
            4,
            [0],
            "the budget allows 19: nothing was spent",
        ),
        (["certify", "--yes", "--per-label", "--budget-usd", "0.049"], answered, 4, [0], "up to 20 queries"),
        (["certify", "--yes", "--top-k", "1", "--budget-queries", "19"], answered, 4, [0], "nothing was spent"),
        (["predict"], answered, 2, [0], "say --yes"),
        (["predict", "--yes", "--method", "fixed"], answered, 0, [15], "at most 15 queries"),
        (["predict", "--yes", "--budget-usd", "0.001"], answered, 4, [0], "up to 1,000 queries"),
        (["certify", "--yes", "--budget-queries", "23"], failing, 4, range(20, 24), "raise the budget"),
    ],
)
def test_one_answer_spends_no_more_than_its_budget_and_only_when_told_to(
    invoke: Invoke,
    folder: Path,
    tmp_path: Path,
    arguments: list[str],
    answer: Callable[[HttpRequest], HttpReply],
    code: int,
    asked: list[int],
    words: str,
) -> None:
    seen: list[HttpRequest] = []

    def counted(request: HttpRequest) -> HttpReply:
        seen.append(request)
        return answer(request)

    with serving(counted) as url:
        (tmp_path / "proxy.toml").write_text(PAID.format(url=url))
        result = invoke(arguments[0], folder / "0.png", "--config", "proxy.toml", *arguments[1:])
    assert result.exit_code == code, result.stderr
    assert words in result.stderr
    assert len(seen) in asked


def test_a_budget_in_dollars_is_counted_at_one_price(
    invoke: Invoke, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["run", folder, *SETTINGS, "--out", "out", "--yes", "--labels", "labels.csv"]
    monkeypatch.setattr(LocalBackend, "price_usd", 0.001)
    assert invoke(*command, "--budget-usd", "0.15").exit_code == 4
    monkeypatch.setattr(LocalBackend, "price_usd", 0.0005)
    refused = invoke(*command, "--budget-usd", "0.15")
    assert refused.exit_code == 2
    assert "out: a query cost $0.001 when this run began, and $0.0005 now" in refused.stderr
    assert "price_usd_per_1000 = 1 again" in refused.stderr
    in_queries = invoke(*command, "--budget-queries", "230", "--json")
    assert "its cost is counted at the price it began with" in in_queries.stderr
    cost = json.loads(in_queries.stdout)["cost"]
    assert 3 * 70 <= cost["queries"] <= 230
    assert cost["usd"] == pytest.approx(0.001 * cost["queries"])


PROVEN = Certificate("cat", 0.1, 0.9, 0.25, 0.01, Votes({"cat": 5}), Votes({"cat": 5}))


async def ask(ledger: Ledger, picture: int, outcomes: list[Outcome]) -> None:
    await ledger.draws.sent(picture, [outcome.draw for outcome in outcomes])
    await ledger.draws.settled(picture, outcomes)


async def half_done(ledger: Ledger) -> None:
    """a: decided after 10 answers. b: 4 answered, 2 failed for nothing, 1 failed and may have been billed."""
    ledger.add_pictures(["a", "b"])
    answers = [Outcome(draw, "cat", reply=DOG) for draw in range(10)]
    await ask(ledger, 0, answers)
    ledger.decide(0, PROVEN)
    await ask(ledger, 1, answers[:4])
    await ask(ledger, 1, [Outcome(draw, None, error=RequestRejectedError("no")) for draw in (4, 5)])
    await ask(ledger, 1, [Outcome(6, None, error=BackendTimeoutError("late"))])


@pytest.mark.parametrize(
    ("names", "limit", "queries"),
    [
        (["a", "b", "c"], None, 3 + 10 + 3),
        (["a", "b"], None, 3 + 3),
        (["a"], None, 0),
        (["c"], None, 10 + 3),
        (["a", "b", "c"], 25, 10),
        (["a", "b", "c"], 12, 0),
    ],
)
def test_the_question_is_about_what_is_left_to_pay(
    names: list[str], limit: int | None, queries: int, tmp_path: Path
) -> None:
    with Ledger(tmp_path / "ledger.db", durable=False) as ledger:
        anyio.run(half_done, ledger)
        figures = {
            "queries": 10 * len(names) + 3, "canaries": 3, "budget_queries": limit, "price_usd": 0.5
        }  # fmt: skip
        assert most_usd_left(tmp_path, names, figures) == 0.5 * queries
    assert most_usd_left(tmp_path / "fresh", names, figures) == 0.5 * min(10 * len(names) + 3, limit or 99)


def test_a_run_that_ended_before_its_ledger_was_made_can_begin(invoke: Invoke, folder: Path) -> None:
    (folder.parent / "out").mkdir()
    (folder.parent / "out" / "ledger.db").touch()
    result = invoke("run", folder, *SETTINGS, "--out", "out", "--labels", "labels.csv", "--limit", "1", "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["complete"]
