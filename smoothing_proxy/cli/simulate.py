"""`simulate`: a vendor on this machine, for trying and testing without paying."""

from __future__ import annotations

import json
import shlex
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from smoothing_proxy.cli.options import key_values
from smoothing_proxy.errors import ConfigError

if TYPE_CHECKING:
    from smoothing_proxy.backends.base import Backend
    from smoothing_proxy.simulator.faults import Faults
    from smoothing_proxy.simulator.server import Address
    from smoothing_proxy.simulator.settings import SimulatorSettings

__all__ = ["simulate"]

_VENDORS = ("aws", "azure", "clarifai", "google", "openai")

_path = click.Path(path_type=Path)


@click.command()
@click.argument("vendor", type=click.Choice(_VENDORS))
@click.option("--backend", required=True, help="The classifier behind it: local:model.tflite, scripted:cat, ...")
@click.option(
    "--backend-option", "-b", multiple=True, metavar="KEY=VALUE", help="An option of the backend; repeatable."
)
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", type=int, default=0, help="The port of HTTP; left out, a free one.")
@click.option("--grpc-port", type=int, default=0, help="The port of gRPC, for google; left out, a free one.")
@click.option(
    "--key", metavar="ID:SECRET", default="simulator:simulator-secret", help="The one key, or only its secret."
)
@click.option("--tls", nargs=2, type=_path, metavar="CERT KEY", help="Serve https from these two PEM files.")
@click.option("--check/--no-check", default=True, help="Decode each picture, or trust it, which is faster.")
@click.option("--fault", "-f", multiple=True, metavar="KEY=VALUE", help="A fault: throttle=0.1; repeatable.")
@click.option("--faults", "faults_path", type=_path, help="A TOML file of faults.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the dice that decide the faults.")
@click.option("--till", "till_path", type=_path, help="Write here, at the end, what was sent and billed.")
@click.option("--ready-file", type=_path, help="Write the address here, as JSON, once it is served.")
def simulate(
    vendor: str,
    backend: str,
    backend_option: tuple[str, ...],
    fault: tuple[str, ...],
    faults_path: Path | None,
    seed: int,
    till_path: Path | None,
    ready_file: Path | None,
    **listening: Any,
) -> None:
    """Serve a classifier of this machine as VENDOR would, until it is stopped.

    It is as strict as the vendor about keys, sizes and formats. What was sent and billed: GET /_simulator/till.
    What goes wrong: GET and POST /_simulator/faults.
    """
    import asyncio

    from smoothing_proxy.backends.registry import backend as make_backend

    faults = _faults(faults_path, key_values(fault))
    settings = _settings(**listening)
    classifier = make_backend(backend, **key_values(backend_option))
    asyncio.run(_serve(vendor, classifier, settings, faults, seed, ready_file, till_path))


def _faults(path: Path | None, overrides: Mapping[str, Any]) -> Faults:
    from smoothing_proxy.settings_file import parse_settings, read_toml
    from smoothing_proxy.simulator.faults import Faults

    table = read_toml(path) if path else {}
    return parse_settings(Faults, {**table, **overrides}, source=str(path) if path else "--fault")


def _settings(
    *, host: str, port: int, grpc_port: int, key: str, tls: tuple[Path, Path] | None, check: bool
) -> SimulatorSettings:
    from smoothing_proxy.settings_file import parse_settings
    from smoothing_proxy.simulator.settings import SimulatorSettings

    key_id, colon, secret = key.partition(":")
    cert, cert_key = tls or (None, None)
    values: dict[str, Any] = {"key_id": key_id, "secret": secret} if colon else {"secret": key}
    values |= {"host": host, "port": port, "grpc_port": grpc_port, "check_pictures": check}
    return parse_settings(
        SimulatorSettings, values | {"tls_cert": cert, "tls_key": cert_key}, source="command line"
    )


async def _serve(
    vendor: str,
    classifier: Backend,
    settings: SimulatorSettings,
    faults: Faults,
    seed: int,
    ready_file: Path | None,
    till_path: Path | None,
) -> None:
    import asyncio
    import random

    from smoothing_proxy.simulator.server import running
    from smoothing_proxy.simulator.vendors import vendor_wire

    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        wire = vendor_wire(vendor)
        async with running(settings, wire, classifier, faults=faults, rng=random.Random(seed)) as address:
            click.echo(_announcement(vendor, address, settings))
            if ready_file:
                _write(ready_file, {"url": address.url, "port": address.port, "grpc_port": address.grpc_port})
            await stop.wait()
        if till_path:
            _write(till_path, address.simulator.till.report(by_picture=True))
    finally:
        await classifier.aclose()


def _announcement(vendor: str, address: Address, settings: SimulatorSettings) -> str:
    from smoothing_proxy.simulator.vendors import environment, grpc_hint

    secret = settings.secret.get_secret_value()
    also = f", gRPC on {address.grpc}" if address.grpc else ""
    lines = [f"{vendor} on {address.url}{also}; stop with Ctrl-C"]
    lines += [
        f"export {name}={shlex.quote(value)}"
        for name, value in environment(vendor, address.url, settings.key_id, secret).items()
    ]
    lines += grpc_hint(address.url, address.grpc, secret) if vendor == "google" else []
    return "\n".join(lines)


def _write(path: Path, value: Mapping[str, Any]) -> None:
    """A JSON file that is there whole or not at all."""
    new = path.with_name(f"{path.name}.new")
    try:
        new.write_text(json.dumps(value) + "\n", encoding="utf-8")
        new.replace(path)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror or error}") from error
