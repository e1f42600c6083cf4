"""`serve`: the gateway, in the vendors' own formats."""

from __future__ import annotations

import json
import logging
import os
import platform
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from smoothing_proxy.errors import ConfigError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Iterable, Mapping

    from smoothing_proxy.gateway.admin import Admin
    from smoothing_proxy.gateway.memory_store import MemoryKey, MemoryStore
    from smoothing_proxy.gateway.ports import Store
    from smoothing_proxy.gateway.serving import Address
    from smoothing_proxy.gateway.settings import GatewayConfig

__all__ = ["serve"]

_logger = logging.getLogger(__name__)

_path = click.Path(path_type=Path)


@click.command()
@click.option("--config", "config_path", type=_path, required=True, help="A TOML file with the settings.")
@click.option("--host", help="The address to listen on, in place of the file's.")
@click.option("--port", type=int, help="The port of HTTP, likewise; 0 for a free one.")
@click.option("--grpc-port", type=int, help="The port of Google's gRPC, likewise.")
@click.option("--ready-file", type=_path, help="Write the address here, as JSON, once it is served.")
@click.option(
    "--log-level", type=click.Choice(("debug", "info", "warning", "error")), default="info", show_default=True
)
def serve(
    config_path: Path,
    host: str | None,
    port: int | None,
    grpc_port: int | None,
    ready_file: Path | None,
    log_level: str,
) -> None:
    """Answer the vendors' own SDKs with hardened labels, until it is stopped.

    SIGTERM finishes what is under way. SIGHUP reads the keys anew. The log goes to standard error, as JSON lines.
    """
    import asyncio

    from smoothing_proxy.gateway.logs import log_to
    from smoothing_proxy.gateway.settings import read_gateway_config

    config = read_gateway_config(config_path)
    config = _with_flags(config, {"host": host, "port": port, "grpc_port": grpc_port})
    log_to(sys.stderr, getattr(logging, log_level.upper()))
    asyncio.run(_serve(config_path, config, ready_file))


def _with_flags(config: GatewayConfig, flags: Mapping[str, object]) -> GatewayConfig:
    """The settings with the flags that were given on top. Raises ConfigError."""
    from smoothing_proxy.gateway.settings import GatewaySettings
    from smoothing_proxy.settings_file import parse_settings

    given = {key: value for key, value in flags.items() if value is not None}
    changed = parse_settings(GatewaySettings, config.gateway.model_dump() | given, source="command line")
    return config.model_copy(update={"gateway": changed})


@asynccontextmanager
async def _store(path: Path, config: GatewayConfig) -> AsyncIterator[Store]:
    """The database of [store], or the keys of the file. Raises ConfigError where there is neither, or both."""
    if config.store is None:
        yield _memory_store(path, config)
        return
    from smoothing_proxy.gateway.ledger_store import LedgerStore
    from smoothing_proxy.ledger.gateway.store import GatewayStore

    if config.keys:
        raise ConfigError(f"{path}: keys: they live in the [store]; make them with `smoothing-proxy keys create`")
    table = config.store
    async with await GatewayStore.open(
        table.address_in(os.environ),
        secret_key=table.master_key_in(os.environ),
        settings=table.settings(),
        replica=platform.node() or "replica",
    ) as inner:
        yield LedgerStore(inner)


def _memory_store(path: Path, config: GatewayConfig) -> MemoryStore:
    """Keys are those of the file, read anew at SIGHUP; what is spent is known to this process alone."""
    from smoothing_proxy.gateway.memory_store import MemoryStore
    from smoothing_proxy.gateway.settings import read_gateway_config

    if not config.keys:
        raise ConfigError(f"{path}: keys: nobody could ask; add a table [[keys]] with id and secret_env")
    limited = any(key.limit_queries is not None for key in config.keys)
    _logger.log(
        logging.WARNING if limited else logging.INFO,
        "what the keys of [[keys]] spend, and what was answered, is forgotten when this process ends: each start "
        "begins with full budgets; a [store] keeps them",
    )
    return MemoryStore(
        lambda: _keys(read_gateway_config(path)),
        replay_s=config.gateway.replay_ttl_s,
        cache_s=config.gateway.verdict_ttl_s,
    )


def _keys(config: GatewayConfig) -> Iterable[MemoryKey]:
    from smoothing_proxy.gateway.memory_store import MemoryKey
    from smoothing_proxy.gateway.ports import Caller

    return [
        MemoryKey(
            Caller(key.id, key.certify, key.target_radius, key.abstain, key.passthrough),
            key.secret(os.environ),
            key.vendors,
            key.limit_queries,
        )
        for key in config.keys
    ]


async def _serve(path: Path, config: GatewayConfig, ready_file: Path | None) -> None:
    from smoothing_proxy.gateway.signals import hangups

    with hangups() as reload:
        await _served(path, config, ready_file, reload)


async def _served(path: Path, config: GatewayConfig, ready_file: Path | None, reload: asyncio.Event) -> None:
    """Until it is told to stop, and what was under way then is done."""
    import asyncio

    from smoothing_proxy.assembly import make_classifier
    from smoothing_proxy.cli.driving import set_aside_what_is_loaded
    from smoothing_proxy.gateway.app import every_wire, make_gateway
    from smoothing_proxy.gateway.references import references_of
    from smoothing_proxy.gateway.serving import listening
    from smoothing_proxy.gateway.signals import stops, until_told
    from smoothing_proxy.gateway.traces import traces_of

    traces = traces_of(config.telemetry, os.environ)
    classifier = make_classifier(config)
    try:
        async with _store(path, config) as store:
            gateway = make_gateway(
                config.gateway,
                classifier,
                config.smoothing,
                store,
                in_flight=config.run.in_flight,
                transport=config.transport,
                traces=traces,
                references=references_of(config.references),
                admin=_admin(config, store),
            )
            # Before it listens: what is asked from then on is answered, whatever comes.
            with stops() as stop:
                async with listening(gateway, every_wire()) as address:
                    set_aside_what_is_loaded()
                    click.echo(_announcement(address))
                    if ready_file is not None:
                        _write(ready_file, address)
                    await until_told(gateway, stop, reload)
    finally:
        await classifier.backend.aclose()
        await asyncio.to_thread(traces.close)


def _admin(config: GatewayConfig, store: Store) -> Admin | None:
    """Who may change keys over HTTP. Raises ConfigError for an admin key that is none."""
    from smoothing_proxy.gateway.ledger_store import LedgerStore

    if config.admin is None or not isinstance(store, LedgerStore):
        return None
    from smoothing_proxy.gateway.admin import Admin

    key, timeout_s = config.admin.key(os.environ), config.gateway.body_timeout_s
    return Admin(store.inner, key, body_timeout_s=timeout_s)


def _announcement(address: Address) -> str:
    grpc = "" if address.grpc_port is None else f", Google's gRPC on {address.host}:{address.grpc_port}"
    return f"gateway on {address.url}{grpc}; stop with Ctrl-C"


def _write(path: Path, address: Address) -> None:
    """A JSON file that is there whole or not at all."""
    new = path.with_name(f"{path.name}.new")
    try:
        told = {"url": address.url, "port": address.port, "grpc_port": address.grpc_port}
        new.write_text(json.dumps(told) + "\n", encoding="utf-8")
        new.replace(path)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror or error}") from error
