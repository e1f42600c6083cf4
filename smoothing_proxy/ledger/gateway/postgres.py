"""Connections to a PostgreSQL that may be away, or there and silent: whoever asks it hears so in time."""

from __future__ import annotations

import math
from collections.abc import Generator
from typing import Any

from psycopg import Connection, OperationalError
from sqlalchemy import URL, Engine, create_engine, event

from smoothing_proxy.ledger.gateway.doorstep import Doorstep

__all__ = ["PatientConnection", "make_engine"]

IDLE_S = 60
"""A transaction whose client is gone without a word holds its locks for so long."""

LEAST_CONNECT_S = 2
"""libpq waits at least so long for a connection."""


class SilenceError(OperationalError):
    """The server has said nothing for too long. What it was asked for may have been done."""


class PatientConnection(Connection[Any]):
    """A connection that is closed when its server says nothing for `patience_s` seconds."""

    patience_s = math.inf
    doorstep: Doorstep

    def wait(self, gen: Generator[Any, Any, Any], *arguments: Any, **options: Any) -> Any:
        """See psycopg. Raises SilenceError, an OperationalError."""
        try:
            return super().wait(self._bounded(gen), *arguments, **options)
        except SilenceError:
            self.doorstep.leave()
            self.close()
            raise

    def _bounded(self, gen: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
        """The same conversation; psycopg looks in now and then while nothing comes."""
        since = self.doorstep.now()
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if not ready and self.doorstep.now() - since > self.patience_s:
                    raise SilenceError(f"the server has not answered for {self.patience_s:g} s")
                wanted = gen.send(ready)
        except StopIteration as ended:
            return ended.value


def make_engine(url: URL, *, connections: int, timeout_s: float) -> Engine:
    """timeout_s: see StoreSettings. What the URL itself says about timeouts and keepalives holds."""
    ours = {
        "connect_timeout": max(LEAST_CONNECT_S, math.ceil(timeout_s)),
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
    }
    engine = create_engine(
        url,
        connect_args={name: value for name, value in ours.items() if name not in url.query},
        pool_size=connections,
        max_overflow=0,
        pool_pre_ping=True,
        hide_parameters=True,
    )
    doorstep = Doorstep()

    def connect(_: object, __: object, arguments: list[Any], parameters: dict[str, Any]) -> PatientConnection:
        if doorstep.is_vain:
            raise OperationalError("the server has not answered just now")
        since = doorstep.now()
        try:
            made = PatientConnection.connect(*arguments, **parameters)
        except OperationalError:
            if doorstep.now() - since > LEAST_CONNECT_S / 2:  # a refusal comes at once, and costs nobody time
                doorstep.leave()
            raise
        made.patience_s, made.doorstep = timeout_s, doorstep
        made.execute(f"SET idle_in_transaction_session_timeout = {IDLE_S * 1_000}")
        made.commit()
        return made

    event.listen(engine, "do_connect", connect)
    return engine
