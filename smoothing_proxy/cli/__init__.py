"""The command line: `smoothing-proxy COMMAND`. Each command loads what it needs when it is called."""

from __future__ import annotations

__all__ = ["main"]


def main() -> None:
    """The console script."""
    from smoothing_proxy.cli.app import app

    app()
