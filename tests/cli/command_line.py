"""What the command line's tests share."""

from __future__ import annotations

from collections.abc import Callable

from click.testing import Result

SETTINGS = ("--backend", "local:shade_classifier:shade", "--sigma", "0.2", "--n0", "10", "--n", "60")

Invoke = Callable[..., Result]
