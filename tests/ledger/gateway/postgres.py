"""A real PostgreSQL for the tests, from the programs of this machine, on loopback and in a folder of its own."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

WAIT_S = 60.0

USERS = ("postgres", "nobody")
"""Whom the server runs as where the tests run as root, which it refuses."""

SETTINGS = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_connections=200")


class NoPostgresError(Exception):
    """This machine cannot run one."""


@dataclass(frozen=True)
class Postgres:
    """A running server. programs: the folder of psql, pg_dump and the others."""

    port: int
    programs: Path
    _numbers: Iterator[int] = field(default_factory=count)

    @property
    def url(self) -> str:
        return f"postgresql://tests@127.0.0.1:{self.port}/postgres"

    def new_schema(self) -> str:
        """The URL of an empty schema, which costs a tenth of a database."""
        name = f"gateway_{next(self._numbers)}"
        self.run("psql", "--quiet", "--command", f"CREATE SCHEMA {name}", self.url)
        return f"{self.url}?options=-csearch_path%3D{name}"

    def run(self, program: str, *arguments: str) -> str:
        done = subprocess.run(
            [self.programs / program, *arguments], capture_output=True, text=True, timeout=WAIT_S, check=True
        )
        return done.stdout


@contextmanager
def running_postgres() -> Iterator[Postgres]:
    """Raises NoPostgresError where its programs, or a user to run it as, are missing."""
    programs, become = _programs(), _become()
    folder = Path(tempfile.mkdtemp(prefix="gateway-postgres-"))
    try:
        data, log = folder / "data", folder / "log"
        if become[1]:
            shutil.chown(folder, become[1])
        initdb: list[str | Path] = [
            programs / "initdb",
            "--pgdata",
            data,
            "--username=tests",
            "--auth=trust",
            "--no-sync",
            "--encoding=UTF8",
        ]
        subprocess.run([*become[0], *initdb], check=True, capture_output=True, timeout=WAIT_S, cwd=folder)
        port = _free_port()
        options = [part for setting in SETTINGS for part in ("-c", setting)]
        options += ["-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={folder}", "-p", str(port)]
        with log.open("wb") as output:
            server = subprocess.Popen(
                [*become[0], programs / "postgres", "-D", data, *options], stdout=output, stderr=output, cwd=folder
            )
            try:
                _wait_until_ready(server, programs, port, log)
                yield Postgres(port, programs)
            finally:
                server.send_signal(signal.SIGQUIT)  # at once: what it holds is thrown away
                server.wait(WAIT_S)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _programs() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    initdb = shutil.which("initdb")
    if initdb is None:
        raise NoPostgresError("no initdb on this machine (Debian: apt-get install postgresql)")
    return Path(initdb).resolve().parent


def _become() -> tuple[Sequence[str], str]:
    """The command that runs another as somebody who is not root, and who that is; empty where we are not root."""
    if os.geteuid() != 0:
        return (), ""
    known = {user.pw_name for user in pwd.getpwall()}
    user = next((user for user in USERS if user in known), None)
    setpriv = shutil.which("setpriv")
    if user is None or setpriv is None:
        raise NoPostgresError("no user or no setpriv to run PostgreSQL as somebody other than root")
    return (setpriv, f"--reuid={user}", "--regid", str(pwd.getpwnam(user).pw_gid), "--clear-groups"), user


def _wait_until_ready(server: subprocess.Popen[bytes], programs: Path, port: int, log: Path) -> None:
    until = time.monotonic() + WAIT_S
    ask: list[str | Path] = [programs / "pg_isready", "--quiet", "--host=127.0.0.1", f"--port={port}"]
    while subprocess.run(ask, timeout=WAIT_S, check=False).returncode != 0:
        if server.poll() is not None or time.monotonic() > until:
            raise NoPostgresError(f"PostgreSQL does not start: {log.read_text()[-2_000:]}")
        time.sleep(0.05)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
