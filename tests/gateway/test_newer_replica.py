"""Beside a replica of a newer version: what it has kept is told again, without what is not known here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anyio
import pytest
from sqlalchemy import Table, select, update

from smoothing_proxy.gateway.ledger_store import LedgerStore
from smoothing_proxy.gateway.verdicts import Verdict
from smoothing_proxy.ledger.gateway.nouns import StoreSettings
from smoothing_proxy.ledger.gateway.schema import requests, verdicts
from tests.gateway.test_per_label import ask
from tests.ledger.gateway.stores import open_store, plain_engine

KEEPING = StoreSettings(cache_s=3_600.0)


def newer(kept: Any) -> Any:
    """The same document with one field more in each of its objects."""
    if isinstance(kept, list):
        return [newer(item) for item in kept]
    if not isinstance(kept, dict) or "agreed" in kept or not kept.keys() & {"verdict", "label", "labels", "name"}:
        return kept
    return {**{key: newer(value) for key, value in kept.items()}, "of_a_newer_version": 1}


@pytest.mark.parametrize("table", [requests, verdicts], ids=["the same request", "another one about the picture"])
def test_a_verdict_with_fields_of_a_newer_version_is_told_without_them(table: Table, tmp_path: Path) -> None:
    address = str(tmp_path / "gateway.db")

    async def first() -> tuple[str, Verdict]:
        async with open_store(address, settings=KEEPING) as store:
            _, token = await store.create_key("shop", "native")
            verdict, _ = await ask(LedgerStore(store), token)
            return token, verdict

    async def again(token: str) -> tuple[Verdict, int]:
        async with open_store(address, settings=KEEPING) as store:
            return await ask(LedgerStore(store), token)

    token, verdict = anyio.run(first)
    engine = plain_engine(address)
    with engine.begin() as connection:
        if table is verdicts:
            connection.execute(requests.delete())
        (row,) = connection.execute(select(table.c.verdict)).scalars()
        changed = json.dumps(newer(json.loads(row)))
        assert changed.count("of_a_newer_version") > 5
        connection.execute(update(table).values(verdict=changed))
    told, asked = anyio.run(again, token)
    assert (told, asked) == (verdict, 0)
    assert "of_a_newer_version" not in told.text
