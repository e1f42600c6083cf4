"""A server that sends every header back, as proxies and debugging modes do: no key gets into what a run keeps."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest
from PIL import Image

from smoothing_proxy.backends.base import Backend
from smoothing_proxy.backends.registry import backend
from smoothing_proxy.denoisers.registry import denoiser
from smoothing_proxy.errors import BackendDownError
from smoothing_proxy.ledger.store import Ledger
from smoothing_proxy.runs.report import write_report
from smoothing_proxy.runs.runner import FolderRun
from smoothing_proxy.smoothing.base_classifier import BaseClassifier
from smoothing_proxy.smoothing.halt import Halt
from smoothing_proxy.smoothing.settings import Smoothing
from smoothing_proxy.wire.base import HttpReply, HttpRequest
from tests.runs.silent import Silent
from tests.runs.test_faults import HASTY
from tests.wire.loopback import serving

KEY = "0123456789abcdef/fedcba98"
"""Shorter than what is left out of messages for its length alone, and with what JSON may write in two ways."""

SMOOTHING = Smoothing(sigma=0.25, n0=5, n=15, alpha=0.01)
ENVIRON = {"KEY": KEY}
PAID = {"price_usd_per_1000": 1.0}
MODEL = {"user_id": "u", "app_id": "a", "model_id": "m", "model_version": "1"}
BACKENDS: dict[str, Callable[[str], dict[str, Any]]] = {
    "aws-rekognition": lambda url: {"endpoint": url, "region": "eu-west-1"},
    "azure-vision": lambda url: {"endpoint": url, "key_env": "KEY", "environ": ENVIRON},
    "clarifai": lambda url: {"base_url": url, "pat_env": "KEY", "environ": ENVIRON, **MODEL},
    "json-api": lambda url: {
        "url": url, "headers": {"X-My-Own": "id {env:KEY}"}, "body": "raw", "label_path": "$.label",
        "environ": ENVIRON, **PAID,
    },
    "openai-vision": lambda url: {
        "base_url": url, "model": "m", "labels": ["cat", "dog"], "key_env": "KEY", "environ": ENVIRON, **PAID
    },
}  # fmt: skip


def page(request: HttpRequest) -> HttpReply:
    """No answer of a classifier's."""
    return HttpReply(
        200, {"x-echo": request.headers.get("authorization", "")}, f"you sent {said(request)}".encode()
    )


def refusal(request: HttpRequest) -> HttpReply:
    """Every vendor's error in one: each reads its own words."""
    echo = said(request)
    body = {
        "__type": "InvalidParameterException",
        "message": echo,
        "error": {"code": "InvalidRequest", "message": echo},
        "status": {"code": 11102, "description": echo, "details": echo},
    }
    return HttpReply(400, {}, json.dumps(body).encode())


def said(request: HttpRequest) -> str:
    """The headers, shortest first, so that a message which is cut still holds them."""
    lines = sorted((f"{name}: {value}" for name, value in request.headers.items()), key=len)
    return "\n".join([*lines, *(line.replace("/", "\\/") for line in lines)])


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_SESSION_TOKEN", KEY)
    for number in range(4):
        Image.fromarray(np.full((80, 80, 3), 60 * number, np.uint8)).save(tmp_path / f"{number}.png")
    return tmp_path


async def certified(folder: Path, asked: Backend, ledger: Ledger) -> Exception | None:
    """Run the folder and close the backend; returns what stopped it."""
    names = [f"{number}.png" for number in range(4)]
    classifier = BaseClassifier(asked, denoiser("identity"), sigma=SMOOTHING.sigma)
    run = FolderRun(ledger, classifier, SMOOTHING, folder, names, dict.fromkeys(names, "cat"), transport=HASTY)
    run.begin("here")
    try:
        await run.run(Silent(), Halt())
    except Exception as error:  # noqa: BLE001 (returned)
        return error
    finally:
        await asked.aclose()
    return None


@pytest.mark.parametrize("answer", [page, refusal])
@pytest.mark.parametrize("name", BACKENDS)
def test_a_key_that_a_server_sends_back_is_kept_nowhere(
    name: str, answer: Callable[[HttpRequest], HttpReply], pictures: Path
) -> None:
    heard: list[str] = []

    def answered(request: HttpRequest) -> HttpReply:
        reply = answer(request)
        heard.append(reply.body.decode())
        return reply

    with serving(answered) as url, Ledger(pictures / "ledger.db", durable=False) as ledger:
        asked: Backend = backend(name, **BACKENDS[name](url))
        fault = anyio.run(certified, pictures, asked, ledger)
        write_report(ledger, pictures)
    assert KEY in heard[0]
    assert isinstance(fault, BackendDownError) is (answer is page)
    with closing(sqlite3.connect(pictures / "ledger.db")) as connection:
        kept = connection.execute("SELECT reply, error FROM draws WHERE status = 'failed'").fetchall()
    assert len(kept) >= 20
    assert all(("you sent" in reply) if answer is page else reply is None for reply, _ in kept)
    written = b"".join(path.read_bytes() for path in pictures.rglob("*") if path.is_file())
    for form in (KEY, KEY.replace("/", "\\/"), KEY.partition("/")[0]):
        assert form.encode() not in written
        assert form not in str(fault)
