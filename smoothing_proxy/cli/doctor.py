"""`doctor`: everything that can be wrong with a configuration, before it costs anything."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Generator, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from smoothing_proxy.cli.init import PLACEHOLDER
from smoothing_proxy.cli.options import json_option, settings_options

if TYPE_CHECKING:
    from smoothing_proxy.backends.base import Backend
    from smoothing_proxy.config import ProxyConfig
    from smoothing_proxy.denoisers.base import Denoiser
    from smoothing_proxy.runs.checkup.finding import Finding
    from smoothing_proxy.smoothing.picture import Picture

__all__ = ["doctor"]

COLOURS = {"ok": "green", "warn": "yellow", "fail": "bold red", "skip": "dim"}


@settings_options
def _read(config: ProxyConfig) -> ProxyConfig:
    return config


_SETTINGS = click.command()(_read).params
"""The shared flags. The command takes them unread: a configuration that cannot be read is a finding here."""


@click.command(params=_SETTINGS)
@click.argument("configs", nargs=-1, type=click.Path(path_type=Path))
@click.option("--image", type=click.Path(path_type=Path), help="Check with this picture, not a synthetic one.")
@click.option("--out", type=click.Path(path_type=Path), help="A run's folder: can its ledger be written?")
@click.option("--yes", is_flag=True, help="Do not ask before the one query is paid.")
@json_option
def doctor(
    configs: tuple[Path, ...], image: Path | None, out: Path | None, yes: bool, as_json: bool, **values: Any
) -> None:
    """Check configurations step by step, with at most one query to each classifier.

    CONFIGS are checked one after the other, then --config. The exit code is 0 without a failure, 2 where one is
    yours to mend, 3 where only the vendor can.
    """
    from smoothing_proxy.runs.checkup.finding import exit_code

    asked = _Asked(image, out, yes)
    given = values.pop("config_path")
    paths: list[Path | None] = [*configs, *([given] if given or not configs else [])]
    console = _Console(quiet=as_json)
    sections, everything = [], []
    for path in paths:
        title = str(path or "command line")
        console.title(title)
        findings = [console.shown(finding) for finding in _findings(path, values, asked, os.environ)]
        everything += findings
        sections.append({"config": title, "findings": [asdict(finding) for finding in findings]})
    if as_json:
        click.echo(json.dumps({"configurations": sections, "exit_code": exit_code(everything)}, indent=2))
    sys.exit(exit_code(everything))


@dataclass(frozen=True, slots=True)
class _Asked:
    """What the flags of this command alone say."""

    image: Path | None
    out: Path | None
    yes: bool


def _findings(
    path: Path | None, values: Mapping[str, Any], asked: _Asked, environ: Mapping[str, str]
) -> Iterator[Finding]:
    """Every check of one configuration, in order; none of them holds a secret."""
    from smoothing_proxy.errors import ConfigError
    from smoothing_proxy.runs.checkup.finding import secrets_in
    from smoothing_proxy.runs.checkup.meanings import failed

    try:
        config = _read(config_path=path, **values)
    except ConfigError as error:
        yield failed("settings", error).without(secrets_in(environ, {}))
        yield from _ledger(asked)
        return
    secrets = secrets_in(environ, config.backend.options)
    for finding in _checks(config, asked):
        yield finding.without(secrets)


def _checks(config: ProxyConfig, asked: _Asked) -> Iterator[Finding]:
    import anyio

    from smoothing_proxy.runs.checkup.checks import map_finding
    from smoothing_proxy.runs.checkup.finding import Finding
    from smoothing_proxy.runs.checkup.vendors import closed_answers

    yield _settings(config)
    yield map_finding(config.labels, closed_answers(config.backend.name, config.backend.options))
    picture = yield from _picture(config, asked.image)
    denoiser = yield from _denoiser(config, picture)
    backend = yield from _backend(config)
    latency_s = None
    if backend is None:
        for check in ("copy", "price", "answer"):
            yield Finding(check, "skip", "needs the backend")
    else:
        try:
            latency_s = yield from _classifier(config, backend, denoiser, picture, asked)
        finally:
            anyio.run(backend.aclose)
    yield from _plans(config, backend, picture, latency_s)
    yield from _ledger(asked)


def _settings(config: ProxyConfig) -> Finding:
    from smoothing_proxy.runs.checkup.finding import Finding

    options = {"name": config.backend.name, **config.backend.options}
    left = [key for key, value in options.items() if isinstance(value, str) and PLACEHOLDER in value]
    if left:
        text = f"still as `init` wrote it: {', '.join(left)}"
        return Finding("settings", "fail", text, f"put in what is yours for each {PLACEHOLDER}... of [backend]")
    smoothing = config.smoothing
    text = (
        f"{config.denoiser.name} before {config.backend.name}; sigma {smoothing.sigma:g}, "
        f"alpha {smoothing.alpha:g}, method {smoothing.certify_method}, working size {smoothing.working_size}"
    )
    return Finding("settings", "ok", text)


def _picture(config: ProxyConfig, image: Path | None) -> Generator[Finding, None, Picture]:
    """The picture to check with. The user's own, where it can be used."""
    from smoothing_proxy.errors import SmoothingProxyError
    from smoothing_proxy.runs.checkup.checks import synthetic_picture
    from smoothing_proxy.runs.checkup.meanings import failed
    from smoothing_proxy.smoothing.picture import canonical, prepare

    size = config.smoothing.working_size
    if image is not None:
        try:
            return prepare(canonical(image), size)
        except SmoothingProxyError as error:
            yield failed("picture", error)
    return prepare(synthetic_picture(), size)


def _denoiser(config: ProxyConfig, picture: Picture) -> Generator[Finding, None, Denoiser | None]:
    from smoothing_proxy.denoisers.registry import denoiser
    from smoothing_proxy.runs.checkup.checks import denoiser_finding
    from smoothing_proxy.runs.checkup.probe import attempt

    def checked() -> Denoiser:
        made = denoiser(config.denoiser.name, **config.denoiser.options)
        made.check(config.smoothing.sigma, *picture.working_size)
        return made

    made = yield from attempt("denoiser", config.denoiser.name, checked)
    if made is not None:
        yield denoiser_finding(made, config.smoothing.sigma, picture.working_size)
    return made


def _backend(config: ProxyConfig) -> Generator[Finding, None, Backend | None]:
    from smoothing_proxy.assembly import make_backend
    from smoothing_proxy.runs.checkup.checks import backend_finding
    from smoothing_proxy.runs.checkup.probe import attempt
    from smoothing_proxy.runs.checkup.vendors import credential_source

    name, options = config.backend.name, config.backend.options

    def checked() -> tuple[Backend, str]:
        return make_backend(config), credential_source(name, options)

    made = yield from attempt("backend", name, checked)
    if made is None:
        return None
    yield backend_finding(*made)
    return made[0]


def _classifier(
    config: ProxyConfig, backend: Backend, denoiser: Denoiser | None, picture: Picture, asked: _Asked
) -> Generator[Finding, None, float | None]:
    """The checks that need a backend. Returns the latency of its answer in seconds, where there was one."""
    from smoothing_proxy.denoisers.identity import Identity
    from smoothing_proxy.runs.checkup.checks import price_finding
    from smoothing_proxy.runs.checkup.finding import Finding
    from smoothing_proxy.runs.checkup.probe import answered, copied
    from smoothing_proxy.smoothing.base_classifier import BaseClassifier

    name, options, sigma = config.backend.name, config.backend.options, config.smoothing.sigma
    clean = denoiser or Identity()  # the clean picture meets none
    classifier = BaseClassifier(backend, clean, sigma=sigma, labels=config.labels, encoding=config.encoding)
    if denoiser is None:
        yield Finding("copy", "skip", "needs the denoiser")
    else:
        yield from copied(classifier, picture, name, options)
    yield price_finding(backend.price_usd, getattr(backend, "price_as_of", ""), datetime.now(UTC).date())
    if not _agreed(backend.name, backend.price_usd, yes=asked.yes):
        yield Finding("answer", "warn", "not asked: nothing was spent", "say --yes to pay for one query")
        return None
    return (yield from answered(classifier, picture, name, options, yours=asked.image is not None))


def _agreed(name: str, usd: float, *, yes: bool) -> bool:
    """Say what one query costs, and ask where somebody can answer."""
    click.echo(f"one query to {name}, ${usd:,.4f}", err=True)
    if yes or usd <= 0:
        return True
    return sys.stdin.isatty() and click.confirm(f"Spend ${usd:,.4f}?", err=True)


def _plans(
    config: ProxyConfig, backend: Backend | None, picture: Picture, latency_s: float | None
) -> Iterator[Finding]:
    from smoothing_proxy.runs.checkup.plans import pace_finding, proof_finding
    from smoothing_proxy.transport.settings import TransportSettings

    price_usd = None if backend is None else backend.price_usd
    yield proof_finding(
        config.smoothing,
        picture,
        price_usd=price_usd,
        limit_queries=config.budget.limit_queries(price_usd or 0.0),
        canaries=bool(price_usd) if config.run.canaries is None else config.run.canaries,
    )
    if backend is not None:
        in_flight = config.run.in_flight or backend.concurrency
        transport = config.transport or TransportSettings()
        yield pace_finding(backend, config.smoothing, transport, in_flight=in_flight, latency_s=latency_s)


def _ledger(asked: _Asked) -> Iterator[Finding]:
    from smoothing_proxy.assembly import LEDGER_NAME
    from smoothing_proxy.runs.checkup.plans import ledger_finding

    if asked.out is not None:
        yield ledger_finding(asked.out, LEDGER_NAME)


class _Console:
    """Prints findings as they come; nothing where `quiet`."""

    def __init__(self, *, quiet: bool) -> None:
        from rich.console import Console

        self._rich = Console(soft_wrap=True, highlight=False, quiet=quiet)

    def title(self, title: str) -> None:
        """The head of a configuration's section."""
        from rich.text import Text

        self._rich.print(Text(_printable(title), style="bold"))

    def shown(self, finding: Finding) -> Finding:
        """Print a finding, and pass it on."""
        from rich.text import Text

        margin = " " * 18
        text = _printable(finding.text).replace("\n", f"\n{margin}")
        line = Text.assemble("  ", (f"{finding.status:5} ", COLOURS[finding.status]), f"{finding.check:10}{text}")
        if finding.mend:
            line.append(f"\n{margin}-> {_printable(finding.mend)}", style="italic")
        self._rich.print(line)
        return finding


def _printable(text: str) -> str:
    """Without control characters, which a terminal would obey."""
    return "".join(letter if letter.isprintable() or letter == "\n" else "?" for letter in text)
