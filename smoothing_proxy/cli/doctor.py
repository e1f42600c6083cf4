"""`doctor`: everything that can be wrong with a configuration, before it costs anything."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from smoothing_proxy.cli.options import json_option, settings_options

if TYPE_CHECKING:
    from smoothing_proxy.backends.base import Backend
    from smoothing_proxy.config import ProxyConfig
    from smoothing_proxy.denoisers.base import Denoiser
    from smoothing_proxy.runs.checkup.finding import Finding
    from smoothing_proxy.smoothing.base_classifier import BaseClassifier
    from smoothing_proxy.smoothing.picture import Picture

__all__ = ["doctor"]

Made = TypeVar("Made")


@settings_options
def _read(config: ProxyConfig) -> ProxyConfig:
    return config


_SETTINGS = click.command()(_read).params
"""The shared flags. The command takes them unread, since a configuration that cannot be read is a finding here."""


@click.command(params=_SETTINGS)
@click.argument("configs", nargs=-1, type=click.Path(path_type=Path))
@click.option("--image", type=click.Path(path_type=Path), help="Ask about this picture instead of a synthetic one.")
@click.option("--out", type=click.Path(path_type=Path), help="The folder of a run: can its ledger be written?")
@click.option("--yes", is_flag=True, help="Do not ask before the one query is paid.")
@json_option
def doctor(
    configs: tuple[Path, ...], image: Path | None, out: Path | None, yes: bool, as_json: bool, **values: Any
) -> None:
    """Check configurations, step by step, with one query at the most to each classifier.

    CONFIGS are checked one after the other, and so is --config. Exit code: 0 without a failure, 2 where something
    is yours to mend, 3 where only the vendor can.
    """
    from smoothing_proxy.runs.checkup.finding import exit_code

    named = (values.get("config_path"),)
    paths: tuple[Path | None, ...] = (*configs, *(named if named[0] or not configs else ()))
    console = _Console(quiet=as_json)
    sections = []
    for path in paths:
        checkup = _Checkup(partial(_read, **{**values, "config_path": path}), image, out, yes=yes)
        title = str(path) if path else "command line"
        console.title(title)
        findings = [console.show(finding) for finding in checkup.findings()]
        sections.append({"config": title, "findings": [asdict(finding) for finding in findings], "code": exit_code(findings)})
    codes = [int(str(section["code"])) for section in sections]
    code = 2 if 2 in codes else max(codes)
    if as_json:
        click.echo(json.dumps({"configurations": sections, "exit_code": code}, indent=2))
    sys.exit(code)


@dataclass
class _Checkup:
    """One configuration's checks, in order. What an earlier one made is here for the later ones."""

    read: Callable[[], ProxyConfig]
    image: Path | None
    out: Path | None
    yes: bool
    secrets: tuple[str, ...] = ()
    latency_s: float | None = None
