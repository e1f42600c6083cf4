"""The command line: `smoothing-proxy COMMAND`. Each command loads what it needs when it is called."""

from __future__ import annotations

import os

__all__ = ["main"]


def main() -> None:
    """The console script."""
    # Threads of torch that wait by spinning slow a busy machine down a hundredfold; read once, when torch loads.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from smoothing_proxy.cli.app import app

    app()
