from __future__ import annotations

import json

import pytest

from smoothing_proxy.ledger.records import reply_from_json, reply_to_json
from smoothing_proxy.types import Reply, ScoredLabel


@pytest.mark.parametrize(
    ("label", "entry"),
    [
        (ScoredLabel("Dog", 0.5), ["Dog", 0.5, ""]),
        (ScoredLabel("Dog", 0.5, "/m/0bt9lr"), ["Dog", 0.5, "/m/0bt9lr"]),
        (ScoredLabel("Pug", 0.5, "", ("Dog", "Animal"), ("Mops",)), ["Pug", 0.5, "", ["Dog", "Animal"], ["Mops"]]),
        (ScoredLabel("Car", 1.0, "", (), ("Automobile",)), ["Car", 1.0, "", [], ["Automobile"]]),
    ],
)
def test_a_reply_comes_back_from_the_ledger_as_a_label_map_needs_it(
    label: ScoredLabel, entry: list[object]
) -> None:
    text = reply_to_json(Reply((label,), "7", "request"))
    assert json.loads(text) == [entry]
    assert reply_from_json(text, "7") == Reply((label,), "7")
