"""`keys`: who may ask the gateway, and what each may spend."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from smoothing_proxy.cli.keys_shown import identity, limits, table, tell, tell_secret
from smoothing_proxy.cli.options import json_option
from smoothing_proxy.errors import ConfigError

if TYPE_CHECKING:
    from smoothing_proxy.ledger.gateway.nouns import KeyTerms, Period, Spend, StoreSettings, VirtualKey
    from smoothing_proxy.ledger.gateway.store import GatewayStore

__all__ = ["keys"]

T = TypeVar("T")

_VENDORS = ("aws", "azure", "clarifai", "google", "native", "openai")
_PERIODS = ("day", "month", "total")

_TERMS = (
    click.option("--calls-limit", type=int, help="Queries to the classifier that it may spend in each period."),
    click.option("--usd-limit", type=float, help="Dollars that it may spend in each period."),
    click.option("--period", type=click.Choice(_PERIODS), help="Of both limits, in UTC; by default a month."),
    click.option("--requests-per-minute", type=int, help="On each replica."),
    click.option("--parallel", type=int, help="Requests under way at once, on each replica."),
    click.option("--certify/--no-certify", default=None, help="Whether its answers come with a certificate."),
    click.option("--target-radius", type=float, help="The l2 radius that is enough for it."),
    click.option(
        "--passthrough/--no-passthrough",
        default=None,
        help="Whether what cannot be hardened goes to the vendor as it is; by default as the gateway is set.",
    ),
)

_LIMITS = {
    "calls": "calls_limit",
    "usd": "usd_limit",
    "requests-per-minute": "requests_per_minute",
    "parallel": "parallel",
    "target-radius": "target_radius",
    "passthrough": "passthrough",
}
"""What `--no-limit` takes away, by the name of the term."""


@dataclass(frozen=True)
class _Opening:
    """Where the store is. reference: of the master key; "" for the configuration's, or the usual variable."""

    address: str | None
    config_path: Path | None
    reference: str


@click.group()
@click.option(
    "--store", "address", metavar="PATH|URL", help="The store: a file, or postgresql://USER@HOST/DATABASE."
)
@click.option(
    "--config", "config_path", type=click.Path(path_type=Path), help="A gateway's TOML file with a table [store]."
)
@click.option(
    "--master-key",
    "reference",
    metavar="env:NAME|file:PATH",
    default="",
    help="Where the master key is; by default env:SMOOTHING_PROXY_MASTER_KEY.",
)
@click.pass_context
def keys(context: click.Context, address: str | None, config_path: Path | None, reference: str) -> None:
    """Make and manage the gateway's keys.

    A master key is 32 random bytes in base64, kept for as long as the store: openssl rand -base64 32
    """
    context.obj = _Opening(address, config_path, reference)


def _with_terms(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(_TERMS):
        command = option(command)
    return command


@keys.command()
@click.argument("name")
@click.option("--vendor", type=click.Choice(_VENDORS), required=True, help="Whose clients will use it.")
@_with_terms
@json_option
@click.pass_obj
def create(opening: _Opening, /, name: str, vendor: str, as_json: bool, **terms: Any) -> None:
    """Make a key; its secret is shown now and never again."""

    async def work(store: GatewayStore) -> tuple[VirtualKey, str]:
        return await store.create_key(name, vendor, _terms(terms))

    tell_secret(*_run(opening, work, may_make=True), as_json=as_json)


@keys.command()
@click.argument("key")
@_with_terms
@click.option(
    "--no-limit",
    "unlimited",
    type=click.Choice(tuple(_LIMITS)),
    multiple=True,
    help="Take this limit away, or leave this to the gateway's own settings; repeatable.",
)
@json_option
@click.pass_obj
def update(opening: _Opening, /, key: str, as_json: bool, unlimited: tuple[str, ...], **terms: Any) -> None:
    """Change what KEY may do, from its next request on; what is not given stays as it is."""
    both = [name for name in unlimited if terms[_LIMITS[name]] is not None]
    if both:
        raise click.UsageError(f"--no-limit {both[0]}: it is set by another option of this command")

    async def work(store: GatewayStore) -> VirtualKey:
        found = await _find(store, key)
        nothing: dict[str, Any] = {_LIMITS[name]: None for name in unlimited}
        without = replace(_terms({}, found), **nothing)
        return await store.update_key(found.id, _terms(terms, without))

    tell(_run(opening, work), as_json=as_json)


@keys.command()
@click.argument("key")
@click.option("--undo", is_flag=True, help="Let it in again.")
@json_option
@click.pass_obj
def disable(opening: _Opening, key: str, undo: bool, as_json: bool) -> None:
    """Refuse the next request with KEY, on every replica."""

    async def work(store: GatewayStore) -> VirtualKey:
        return await store.disable_key((await _find(store, key)).id, disabled=not undo)

    tell(_run(opening, work), as_json=as_json)


@keys.command()
@click.argument("key")
@json_option
@click.pass_obj
def rotate(opening: _Opening, key: str, as_json: bool) -> None:
    """Give KEY a new secret, shown now and never again; the old one is refused from now on."""

    async def work(store: GatewayStore) -> tuple[VirtualKey, str]:
        return await store.rotate_key((await _find(store, key)).id)

    tell_secret(*_run(opening, work), as_json=as_json)


@keys.command("list")
@json_option
@click.pass_obj
def list_(opening: _Opening, as_json: bool) -> None:
    """Every key with its limits."""

    async def work(store: GatewayStore) -> list[VirtualKey]:
        return await store.keys()

    found = _run(opening, work)
    if as_json:
        click.echo(json.dumps([asdict(key) for key in found], indent=2))
        return
    table(
        ["id", "name", "vendor", "calls", "dollars", "period", "a minute", "at once", "certifies", ""],
        [[*identity(key), *limits(key), "disabled" if key.disabled else ""] for key in found],
    )


@keys.command()
@click.argument("key", required=False)
@click.option("--period", type=click.Choice(_PERIODS), help="By default the key's own; for all keys, a month.")
@json_option
@click.pass_obj
def spend(opening: _Opening, key: str | None, period: Period | None, as_json: bool) -> None:
    """What KEY, or every key, has spent in the current day or month of UTC, or in all."""

    async def work(store: GatewayStore) -> list[tuple[VirtualKey, Period, Spend]]:
        from smoothing_proxy.gateway.admin_keys import spend_of

        return await spend_of(store, key, period)

    rows = _run(opening, work)
    if as_json:
        figures = [{"id": one.id, "name": one.name, "period": span, **asdict(spent)} for one, span, spent in rows]
        click.echo(json.dumps(figures, indent=2))
        return
    table(
        ["id", "name", "vendor", "period", "answered", "unknown", "dollars", "held"],
        [
            [*identity(one), span, f"{x.calls:,}", f"{x.unknown:,}", f"{x.usd:,.4f}", f"{x.held:,}"]
            for one, span, x in rows
        ],
    )


def _run(opening: _Opening, work: Callable[[GatewayStore], Awaitable[T]], *, may_make: bool = False) -> T:
    """Open the store, do the work, close it. may_make: a store that is not there yet."""
    import os

    import anyio

    from smoothing_proxy.ledger.gateway.store import GatewayStore

    address, master, settings = _opened(opening, os.environ)
    if not may_make and "://" not in address and not Path(address).is_file():
        raise ConfigError(f"{address}: there is no store; `keys create` makes one")

    async def main() -> T:
        async with await GatewayStore.open(address, secret_key=master, settings=settings) as store:
            return await work(store)

    return anyio.run(main)


def _opened(opening: _Opening, environ: Mapping[str, str]) -> tuple[str, bytes, StoreSettings]:
    """The address, the master key and the settings; a flag stands above the file."""
    from smoothing_proxy.ledger.gateway.settings import StoreTable
    from smoothing_proxy.ledger.gateway.vault import referred_master_key
    from smoothing_proxy.settings_file import parse_settings, read_toml

    found: dict[str, Any] = {}
    if opening.config_path is not None:
        found = read_toml(opening.config_path).get("store", {})
        if not isinstance(found, dict):
            raise ConfigError(f"{opening.config_path}: store: expected a table [store]")
    if opening.address is not None:
        found = {name: value for name, value in found.items() if name != "address_env"}
        found["address"] = opening.address
    if not found:
        raise ConfigError(
            "store: missing: give --store PATH, or name a file with --config that has a table [store]"
        )
    source = f"{opening.config_path}: store" if opening.config_path else "command line"
    store = parse_settings(StoreTable, found, source=source)
    reference = opening.reference
    master = referred_master_key(reference, environ) if reference else store.master_key_in(environ)
    return store.address_in(environ), master, store.settings()


async def _find(store: GatewayStore, key: str) -> VirtualKey:
    """The key with this id or name."""
    from smoothing_proxy.gateway.admin_keys import find_key

    return await find_key(store, key)


def _terms(given: Mapping[str, Any], before: KeyTerms | None = None) -> KeyTerms:
    from smoothing_proxy.gateway.admin_keys import terms_with

    return terms_with({name: value for name, value in given.items() if value is not None}, before)
