"""How keys and what they spent are printed."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from smoothing_proxy.ledger.gateway.nouns import VirtualKey

__all__ = ["identity", "limits", "table", "tell", "tell_secret"]


def tell(key: VirtualKey, *, as_json: bool) -> None:
    """One key, in a line or as JSON."""
    if as_json:
        click.echo(json.dumps(asdict(key), indent=2))
        return
    state = "disabled" if key.disabled else "enabled"
    click.echo(f"{key.id}  {key.name}  {key.vendor}  {state}")


def tell_secret(key: VirtualKey, secret: str, *, as_json: bool) -> None:
    """A new key with its secret, which is never shown again."""
    if as_json:
        click.echo(json.dumps({**asdict(key), "secret": secret}, indent=2))
        return
    tell(key, as_json=False)
    if key.scheme == "sigv4":
        click.echo(f"AWS_ACCESS_KEY_ID={key.id}\nAWS_SECRET_ACCESS_KEY={secret}")
    else:
        click.echo(f"key: {secret}")
    click.echo("this secret is shown once; `keys rotate` makes another", err=True)


def identity(key: VirtualKey) -> list[str]:
    """The first cells of its row."""
    return [key.id, key.name, key.vendor]


def limits(key: VirtualKey) -> list[str]:
    """The cells of what it may do."""
    certifies = "no" if not key.certify else f"to {key.target_radius:g}" if key.target_radius else "yes"
    return [
        _number(key.calls_limit),
        _number(key.usd_limit),
        key.period,
        _number(key.requests_per_minute),
        _number(key.parallel),
        certifies,
    ]


def _number(value: float | None) -> str:
    return "any" if value is None else f"{value:,}"


def table(head: list[str], rows: list[list[str]]) -> None:
    """Print rows under their heads."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in head:
        table.add_column(name, overflow="fold", no_wrap=name == "id")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))  # a name is text, never markup
    Console().print(table)
